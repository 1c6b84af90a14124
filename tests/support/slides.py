"""Slides for tests and programs: real tissue of any size, noise, and tiled TIFF files."""

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from wsi_denoise.slide.halving import halve


@functools.cache
def tissue() -> np.ndarray:
    """Return real H&E, (height, width, 3) uint8, from tiatoolbox's package data (found without importing it)."""
    file = Path(str(importlib.util.find_spec("tiatoolbox").origin)).parent / "data" / "target_image.png"
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def tiled_tissue(width: int, height: int, number: int = 0, *, step: int = 97) -> np.ndarray:
    """Return (height, width, 3) uint8 of tissue and its mirror images, from another corner for each number."""
    source = tissue()
    rows, columns = (
        _mirrored(np.arange(length) + step * number, side)
        for length, side in zip((height, width), source.shape[:2], strict=True)
    )
    return np.ascontiguousarray(source[rows[:, None], columns[None, :]])


def _mirrored(positions: np.ndarray, side: int) -> np.ndarray:
    folded = positions % (2 * side)
    return np.where(folded < side, folded, 2 * side - 1 - folded)


def add_noise(pixels: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    """Add a fresh draw of white noise, clipped and rounded as by a camera."""
    noise = np.random.default_rng(seed).standard_normal(pixels.shape, np.float32) * np.float32(sigma)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def write_slide(file: Path, pixels: np.ndarray, *, mpp: float | None = 0.5, **options: Any) -> Path:
    """Write (height, width, 3) uint8 as a tiled TIFF without loss; the final name appears with the whole file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    tifffile.imwrite(
        part,
        pixels,
        photometric="rgb",
        tile=(256, 256),
        metadata=None,
        **{"compression": "deflate", **options},
        **({"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}),
    )
    part.rename(file)
    return file


def write_tiff(path: Path, levels: list[np.ndarray], *, icc: bytes | None = None) -> Path:
    """Write a tiled, lossless TIFF of the given levels, (height, width, 3) uint8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as tiff:
        for number, pixels in enumerate(levels):
            tiff.write(
                pixels, tile=(256, 256), photometric="rgb", compression="adobe_deflate", metadata=None,
                subfiletype=1 if number else 0, iccprofile=icc,
            )  # fmt: skip
    return path


def pyramid(pixels: np.ndarray, levels: int) -> list[np.ndarray]:
    """Return an image and so many smaller levels of it."""
    made = [pixels]
    for _ in range(levels):
        made.append(halve(made[-1]))
    return made


def pixels_of(file: str | Path, level: int = 0) -> np.ndarray:
    """Decode a level of a TIFF by tifffile: (height, width, 3) uint8."""
    with tifffile.TiffFile(file) as tiff:
        return tiff.pages[level].asarray()


def tiles_of(file: str | Path) -> list[list[bytes]]:
    """Return the encoded tiles of every level."""
    levels = []
    with tifffile.TiffFile(file) as tiff:
        for page in tiff.pages:
            tiles = []
            for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
                tiff.filehandle.seek(offset)
                tiles.append(tiff.filehandle.read(length))
            levels.append(tiles)
    return levels
