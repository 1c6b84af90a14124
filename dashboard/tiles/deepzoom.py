"""Geometry of Deep Zoom pictures: levels, tiles, and the part of the slide that each shows. Pure arithmetic.

Level n of N is the slide made smaller by 2 ** (N - n), rounded up; level 0 is one pixel. Tiles do not overlap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TILE = 512


@dataclass(frozen=True)
class Box:
    """A part of the slide, and its size in pixels of the tile.

    Parameters
    ----------
    left, top, right, bottom : float
        In pixels of level 0. The last pixel of a row or column may reach beyond the slide: each pixel shows as much
        of the slide as the others, so that before and after lie on each other to the last row.
    width, height : int
        Pixels of the tile.
    """

    left: float
    top: float
    right: float
    bottom: float
    width: int
    height: int

    @property
    def scale(self) -> float:
        """Pixels of level 0 along one pixel of the tile."""
        return (self.right - self.left) / self.width


@dataclass(frozen=True)
class DeepZoom:
    """A picture of (width, height) pixels, cut into tiles."""

    width: int
    height: int
    tile: int = TILE

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.tile) < 1:
            raise ValueError(f"nothing to show of {self.width} x {self.height} px in tiles of {self.tile}")

    @property
    def last(self) -> int:
        """Number of the level that is the slide itself."""
        return (max(self.width, self.height) - 1).bit_length()

    def size(self, level: int) -> tuple[int, int]:
        """Return the (width, height) of a level."""
        step = 1 << (self.last - level)
        return -(-self.width // step), -(-self.height // step)

    def shape(self, level: int) -> tuple[int, int]:
        """Return the (columns, rows) of tiles of a level."""
        width, height = self.size(level)
        return -(-width // self.tile), -(-height // self.tile)

    def box(self, level: int, column: int, row: int) -> Box | None:
        """Return the part that a tile shows, or None if the tile does not exist."""
        if not 0 <= level <= self.last:
            return None
        columns, rows = self.shape(level)
        if not (0 <= column < columns and 0 <= row < rows):
            return None
        width, height = self.size(level)
        left, top = column * self.tile, row * self.tile
        right, bottom = min(left + self.tile, width), min(top + self.tile, height)
        step = 1 << (self.last - level)
        return Box(left * step, top * step, right * step, bottom * step, right - left, bottom - top)

    def whole(self, side: int) -> Box:
        """Return the whole slide, its longer side `side` pixels, or its own size if that is less."""
        scale = max(1.0, max(self.width, self.height) / side)
        return Box(
            0,
            0,
            self.width,
            self.height,
            max(1, math.floor(self.width / scale + 0.5)),
            max(1, math.floor(self.height / scale + 0.5)),
        )

    def descriptor(self, suffix: str) -> str:
        """Return the XML that viewers ask for first."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" TileSize="{self.tile}" Overlap="0" '
            f'Format="{suffix}"><Size Width="{self.width}" Height="{self.height}"/></Image>\n'
        )
