"""Geometry of a slide: patches, blocks, levels and tiles. Pure arithmetic without pixels; windows are in windows.py.

Coordinates are level-0 pixels unless a name says otherwise. Sizes are (width, height). Shapes of grids are
(rows, columns), as in arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PATCH = 96
BLOCK_PATCHES = 16
BLOCK = PATCH * BLOCK_PATCHES
TILE = 256
STRIDE = 16


@dataclass(frozen=True, order=True)
class Span:
    """A half-open interval of pixels ``[start, stop)`` along one axis."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def grown(self, margin: int) -> Span:
        """Return the span extended by `margin` pixels on both sides; it may exceed the slide."""
        return Span(self.start - margin, self.stop + margin)


@dataclass(frozen=True, order=True)
class Region:
    """A rectangle of level-0 pixels: rows ``y`` and columns ``x``."""

    y: Span
    x: Span

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return len(self.x), len(self.y)

    @property
    def origin(self) -> tuple[int, int]:
        """(x, y) of the upper left pixel."""
        return self.x.start, self.y.start

    def grown(self, margin: int) -> Region:
        """Return the region extended by `margin` pixels on every side; it may exceed the slide."""
        return Region(self.y.grown(margin), self.x.grown(margin))


@dataclass(frozen=True, order=True)
class BlockIndex:
    """Row and column of a block in the grid of blocks; its text form names it in the spool and in errors."""

    row: int
    column: int

    def __str__(self) -> str:
        return f"{self.row:05d}-{self.column:05d}"


def count(length: int, step: int) -> int:
    """Return the number of parts of `step` pixels in `length`; the last one may be shorter."""
    return -(-length // step)


def round_up(length: int, step: int) -> int:
    """Return the least multiple of `step` that is not below `length`."""
    return count(length, step) * step


@dataclass(frozen=True)
class Lattice:
    """The patches and blocks of a slide of (width, height) pixels."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a slide of {self.width} x {self.height} px has no pixels")

    @property
    def patch_shape(self) -> tuple[int, int]:
        """(rows, columns) of patches; those at the right and lower edges may be partial."""
        return count(self.height, PATCH), count(self.width, PATCH)

    @property
    def block_shape(self) -> tuple[int, int]:
        """(rows, columns) of blocks."""
        return count(self.height, BLOCK), count(self.width, BLOCK)

    def blocks(self) -> Iterator[BlockIndex]:
        """Yield every block in raster order."""
        rows, columns = self.block_shape
        for row in range(rows):
            for column in range(columns):
                yield BlockIndex(row, column)

    def column_order(self, workers: int) -> Iterator[BlockIndex]:
        """Yield every block, column by column within groups of `workers` rows.

        With this order, a worker's next block is usually the right neighbour of its last one. The worker then has the
        tiles that both need in its cache.
        """
        rows, columns = self.block_shape
        for top in range(0, rows, workers):
            for column in range(columns):
                for row in range(top, min(top + workers, rows)):
                    yield BlockIndex(row, column)

    def region(self, block: BlockIndex) -> Region:
        """Return the region of a block, clipped to the slide."""
        return Region(
            Span(block.row * BLOCK, min((block.row + 1) * BLOCK, self.height)),
            Span(block.column * BLOCK, min((block.column + 1) * BLOCK, self.width)),
        )

    def patches(self, block: BlockIndex) -> tuple[slice, slice]:
        """Return the (rows, columns) slices of a block in an array of :attr:`patch_shape`."""
        rows, columns = self.patch_shape
        return (
            slice(block.row * BLOCK_PATCHES, min((block.row + 1) * BLOCK_PATCHES, rows)),
            slice(block.column * BLOCK_PATCHES, min((block.column + 1) * BLOCK_PATCHES, columns)),
        )


def mirror(start: int, stop: int, length: int) -> NDArray[np.intp]:
    """Return the indices that mirror ``[start, stop)`` into ``[0, length)``, without repeating the edge pixel.

    The period is ``2 * (length - 1)``. This works at any distance from the slide and for any length from 1 on;
    PyTorch's reflect padding is limited to one reflection.
    """
    if length < 1:
        raise ValueError("nothing to mirror")
    indices = np.arange(start, stop, dtype=np.intp)
    if length == 1:
        return np.zeros_like(indices)
    period = 2 * (length - 1)
    folded = np.mod(indices, period)
    result: NDArray[np.intp] = np.minimum(folded, period - folded)
    return result


def level_sizes(width: int, height: int) -> tuple[tuple[int, int], ...]:
    """Return the (width, height) of each level, halved as ``(n + 1) // 2`` until it fits into one tile."""
    sizes = [(width, height)]
    while max(sizes[-1]) > TILE:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return tuple(sizes)


def tile_shape(width: int, height: int) -> tuple[int, int]:
    """Return the (rows, columns) of tiles of a level of (width, height) pixels."""
    return count(height, TILE), count(width, TILE)
