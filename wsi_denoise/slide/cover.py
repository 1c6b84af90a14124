"""Which windows a block is denoised in: as few computed pixels as possible. Pure arithmetic, no pixels.

A device is quickest with few shapes of windows, which it prepares for; at the edge of a slide or of tissue a window
that fits what is needed saves more than that costs. A GPU gets squares only, a CPU whole windows and fitted ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np
from numpy.typing import NDArray

from wsi_denoise.slide.lattice import PATCH, STRIDE, Region, Span, round_up

FITTED_COST = 9 / 8
"""What a pixel costs in a window of any shape, in those of a shape that was prepared for: OpenVINO joins fewer layers
then (docs/performance.md)."""

CUT = 2
"""Patches: fitted windows are cut at multiples of it, so that choosing them takes a millisecond and not ten."""

Rectangle = tuple[int, int, int, int]
"""Rows and columns of patches: (top, bottom, left, right), half-open."""


@dataclass(frozen=True)
class Cover:
    """The windows that a block's region is denoised in.

    Parameters
    ----------
    region : Region
        What is kept of the block, in pixels of the slide.
    whole, fitted : tuple of Region
        Windows without halo, which do not overlap: squares of the sides that were asked for, and others. They may reach
        beyond the region; what lies there is cut off afterwards.
    halo : int
        Context in pixels around each window.
    """

    region: Region
    whole: tuple[Region, ...]
    fitted: tuple[Region, ...]
    halo: int

    @property
    def windows(self) -> tuple[Region, ...]:
        """All windows."""
        return self.whole + self.fitted

    @property
    def area(self) -> Region:
        """What has to be read: the region, and all windows with their halo. It may leave the slide."""
        if not self.windows:
            return self.region
        parts = (self.region, *self.windows)
        return Region(
            Span(min(part.y.start for part in parts), max(part.y.stop for part in parts)),
            Span(min(part.x.start for part in parts), max(part.x.stop for part in parts)),
        ).grown(self.halo)


def cover(region: Region, needed: NDArray[np.bool_], sides: Sequence[int], halo: int, fitted: int = 0) -> Cover:
    """Choose windows that hold every needed patch of a block and for which the network computes the fewest pixels.

    Large windows spend less on their halo, small ones less on glass. Every side is a multiple of 16 px, as the network
    needs it, and every window begins on the lattice of patches.

    Parameters
    ----------
    region : Region
        Of a block; its origin lies on the lattice.
    needed : ndarray of bool
        (rows, columns) of the block's patches.
    sides : sequence of int
        Sides of whole windows in patches, largest first, each half of the one before.
    halo : int
        Pixels.
    fitted : int
        Most pixels of a fitted window, its halo included; 0: there are whole ones only.

    Returns
    -------
    Cover
        Windows of one size follow each other, the largest first.
    """
    side = sides[0]
    whole: list[Region] = []
    others: list[Region] = []
    for row in range(0, needed.shape[0], side):
        for column in range(0, needed.shape[1], side):
            if not needed[row : row + side, column : column + side].any():
                continue
            if fitted:
                cell = _Cell(region, needed, (row, column), side, halo, fitted)
                parts = cell.windows()
                (others if parts else whole).extend(parts or [cell.whole])
            else:
                whole += _squares(region, needed, (row, column), sides, halo)[1]
    return Cover(region, _by_size(whole), _by_size(others), halo)


def _by_size(windows: list[Region]) -> tuple[Region, ...]:
    return tuple(sorted(windows, key=lambda window: window.size, reverse=True))


def _squares(
    region: Region, needed: NDArray[np.bool_], place: tuple[int, int], sides: Sequence[int], halo: int
) -> tuple[int, list[Region]]:
    """Return the computed pixels and the windows: a square, or its four quarters where those that are needed cost less.

    Windows of a side lie on the lattice of that side.
    """
    (row, column), (side, *smaller) = place, sides
    if not needed[row : row + side, column : column + side].any():
        return 0, []
    pixels = (side * PATCH + 2 * halo) ** 2
    if smaller:
        half = side // 2
        places = [(row + y, column + x) for y in (0, half) for x in (0, half)]
        parts = [_squares(region, needed, each, smaller, halo) for each in places]
        cost = sum(cost for cost, _ in parts)
        if cost < pixels:
            return cost, [window for _, windows in parts for window in windows]
    return pixels, [_square(region, place, side)]


def _square(region: Region, place: tuple[int, int], side: int) -> Region:
    y, x = region.y.start + place[0] * PATCH, region.x.start + place[1] * PATCH
    return Region(Span(y, y + side * PATCH), Span(x, x + side * PATCH))


@dataclass
class _Cell:
    """A square of patches as large as the largest window, which is done in that or in fitted ones.

    Parameters
    ----------
    region : Region
        Of the block.
    needed : ndarray of bool
        Of the block.
    place : (int, int)
        Row and column of the cell's first patch in the block.
    side : int
        Patches.
    halo, most : int
        Pixels around a window, and of a fitted one with them.
    """

    region: Region
    needed: NDArray[np.bool_]
    place: tuple[int, int]
    side: int
    halo: int
    most: int
    _known: dict[Rectangle, tuple[float, tuple[Rectangle, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (row, column), side = self.place, self.side
        cell = self.needed[row : row + side, column : column + side]
        # A row as the bits of a number: trimming a rectangle is a few operations on whole rows.
        weights = 1 << np.arange(cell.shape[1], dtype=np.int64)
        self._rows = [int(value) for value in cell @ weights]
        width, height = self.region.size
        self._ends = round_up(height, STRIDE) - row * PATCH, round_up(width, STRIDE) - column * PATCH

    @property
    def whole(self) -> Region:
        """The one window that holds all of it."""
        return _square(self.region, self.place, self.side)

    def windows(self) -> list[Region]:
        """Return fitted windows that cost less than the whole one; none when it is the cheapest."""
        pixels = (self.side * PATCH + 2 * self.halo) ** 2
        full = (1 << self.side) - 1
        if len(self._rows) == self.side and all(row == full for row in self._rows) and not self._is_cut():
            return []
        cost, rectangles = self._cheapest(0, len(self._rows), 0, self.side)
        return [self._window(each) for each in rectangles] if cost < pixels else []

    def _is_cut(self) -> bool:
        """Whether the slide ends within it."""
        return min(self._ends) < self.side * PATCH

    def _window(self, rectangle: Rectangle) -> Region:
        top, bottom, left, right = rectangle
        y, x = self.region.y.start + self.place[0] * PATCH, self.region.x.start + self.place[1] * PATCH
        return Region(
            Span(y + top * PATCH, y + min(bottom * PATCH, self._ends[0])),
            Span(x + left * PATCH, x + min(right * PATCH, self._ends[1])),
        )

    def _cheapest(self, top: int, bottom: int, left: int, right: int) -> tuple[float, tuple[Rectangle, ...]]:
        """Return the least cost of a rectangle in patches, and its parts, by straight cuts from side to side."""
        columns = (1 << right) - (1 << left)
        rows = self._rows
        while top < bottom and not rows[top] & columns:
            top += 1
        while bottom > top and not rows[bottom - 1] & columns:
            bottom -= 1
        if top == bottom:
            return 0.0, ()
        seen, everywhere = 0, columns
        for row in rows[top:bottom]:
            seen |= row & columns
            everywhere &= row
        left, right = (seen & -seen).bit_length() - 1, seen.bit_length()
        rectangle = (top, bottom, left, right)
        if rectangle not in self._known:
            self._known[rectangle] = self._cut(rectangle, full=everywhere == (1 << right) - (1 << left))
        return self._known[rectangle]

    def _cut(self, rectangle: Rectangle, *, full: bool) -> tuple[float, tuple[Rectangle, ...]]:
        top, bottom, left, right = rectangle
        width, height = self._window(rectangle).size
        pixels = (width + 2 * self.halo) * (height + 2 * self.halo)
        # Two patches each way can be cut no further: they are a window even where that is more than is allowed.
        small = bottom - top <= CUT and right - left <= CUT
        best: tuple[float, tuple[Rectangle, ...]] = inf, ()
        if pixels <= self.most or small:
            best = pixels * FITTED_COST, (rectangle,)
            if full:
                return best
        for one, other in _halves(rectangle):
            first = self._cheapest(*one)
            if first[0] < best[0]:
                second = self._cheapest(*other)
                if first[0] + second[0] < best[0]:
                    best = first[0] + second[0], first[1] + second[1]
        return best


def _halves(rectangle: Rectangle) -> Iterator[tuple[Rectangle, Rectangle]]:
    """Yield the two parts of a rectangle for each straight cut."""
    top, bottom, left, right = rectangle
    for at in range(top // CUT * CUT + CUT, bottom, CUT):
        yield (top, at, left, right), (at, bottom, left, right)
    for at in range(left // CUT * CUT + CUT, right, CUT):
        yield (top, bottom, left, at), (top, bottom, at, right)
