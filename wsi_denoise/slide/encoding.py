"""Codecs of the output's tiles, and the matching TIFF tags.

JPEG tiles are YCbCr, with matching photometric and subsampling tags. Tiles written as RGB JPEG with photometric RGB
have correct colours in tifffile and wrong ones in OpenSlide. See docs/programs/tiff.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsi_denoise.slide.geometry import TILE

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Encoding:
    """Compression of tiles.

    Parameters
    ----------
    compression : str
        ``jpeg``, ``deflate`` or ``zstd``.
    quality : int
        JPEG quality, 50 to 100.
    subsampling : str
        JPEG chroma subsampling: ``4:4:4``, ``4:2:2`` or ``4:2:0``.
    """

    compression: Literal["jpeg", "deflate", "zstd"] = "jpeg"
    quality: int = 95
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:4:4"

    @property
    def lossless(self) -> bool:
        """Whether decoding returns the same pixels."""
        return self.compression != "jpeg"

    def encode(self, tile: Pixels) -> bytes:
        """Encode one tile, (256, 256, 3) uint8."""
        if self.compression == "jpeg":
            chroma = self.subsampling.replace(":", "")
            return bytes(
                imagecodecs.jpeg8_encode(
                    tile, level=self.quality, subsampling=chroma, colorspace="RGB", outcolorspace="YCBCR"
                )
            )
        differences = imagecodecs.delta_encode(tile, axis=-2).tobytes()
        if self.compression == "deflate":
            return bytes(imagecodecs.zlib_encode(differences, level=6))
        return bytes(imagecodecs.zstd_encode(differences, level=9))

    def decode(self, data: bytes) -> Pixels:
        """Decode one tile to (256, 256, 3) uint8; JPEG returns approximate pixels."""
        if self.compression == "jpeg":
            return np.asarray(imagecodecs.jpeg8_decode(data), np.uint8)
        inflate = imagecodecs.zlib_decode if self.compression == "deflate" else imagecodecs.zstd_decode
        differences = np.frombuffer(inflate(data), np.uint8).reshape(TILE, TILE, 3)
        return np.asarray(imagecodecs.delta_decode(differences, axis=-2), np.uint8)

    def tags(self) -> dict[str, Any]:
        """Return arguments of tifffile's writer that make the tags match the tiles."""
        if self.compression == "jpeg":
            horizontal = 1 if self.subsampling == "4:4:4" else 2
            vertical = 2 if self.subsampling == "4:2:0" else 1
            return {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (horizontal, vertical)}
        code = {"deflate": "adobe_deflate", "zstd": "zstd"}[self.compression]
        return {"compression": code, "photometric": "rgb", "predictor": 2}


def cut(pixels: Pixels, row: int, column: int) -> Pixels:
    """Return one full tile, (256, 256, 3), of (height, width, 3) pixels.

    A tile at the edge is padded with the last row and column, because a sharp edge causes ringing in JPEG.
    """
    part = pixels[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
    height, width = part.shape[:2]
    if (height, width) == (TILE, TILE):
        return np.ascontiguousarray(part)
    return np.pad(part, ((0, TILE - height), (0, TILE - width), (0, 0)), mode="edge")
