"""Choice of the windows in which a block is denoised, for the fewest computed pixels. Pure arithmetic without pixels.

A device is fastest with the few window shapes that it is prepared for. At the edge of tissue, smaller windows save more
time than other shapes cost. On a CPU, windows also end at the edge of the slide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_denoise.slide.geometry import PATCH, STRIDE, Region, Span, round_up

PREPARED = 2
"""Number of window sides, largest first, that a device which takes any shape is prepared for: each needs memory."""


@dataclass(frozen=True)
class Cover:
    """The windows of a block's region.

    Parameters
    ----------
    region : Region
        The part of the block on the slide, in level-0 pixels.
    whole, fitted : tuple of Region
        Windows without halo, which do not overlap: in shapes that the device is prepared for, and in other shapes.
        They may extend beyond the region; the surplus is cropped later.
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
        """The region to read: `region` and all windows, with the halo around them. It may exceed the slide."""
        if not self.windows:
            return self.region
        parts = (self.region, *self.windows)
        return Region(
            Span(min(part.y.start for part in parts), max(part.y.stop for part in parts)),
            Span(min(part.x.start for part in parts), max(part.x.stop for part in parts)),
        ).grown(self.halo)


def cover(region: Region, needed: NDArray[np.bool_], sides: Sequence[int], halo: int, fitted: int = 0) -> Cover:
    """Choose the windows for all needed patches of a block for which the network computes the fewest pixels.

    Large windows need less halo, small ones less glass. A window is split into its four quarters, recursively, if the
    needed quarters cost less. Windows of one side lie on the lattice of that side. Lengths are multiples of 16 px,
    because the network requires it.

    Parameters
    ----------
    region : Region
        Region of a block; its origin is on the lattice.
    needed : ndarray of bool
        (rows, columns) of the block's patches.
    sides : sequence of int
        Sides of windows in patches, largest first, each half of the one before.
    halo : int
        Pixels.
    fitted : int
        For a device that takes any shape: the maximum pixels of a window with its halo. Windows then end at the edge of
        the region, and only the two largest squares count as `whole`. 0: every window is a whole square.

    Returns
    -------
    Cover
        Windows are sorted by size, largest first.
    """
    side = sides[0]
    found: list[Region] = []
    for row in range(0, needed.shape[0], side):
        for column in range(0, needed.shape[1], side):
            found += _cheapest(region, needed, (row, column), sides, (halo, fitted))[1]
    found.sort(key=lambda window: window.size, reverse=True)
    prepared = {(side * PATCH, side * PATCH) for side in (sides[:PREPARED] if fitted else sides)}
    whole = tuple(window for window in found if window.size in prepared)
    return Cover(region, whole, tuple(window for window in found if window.size not in prepared), halo)


def _cheapest(
    region: Region, needed: NDArray[np.bool_], place: tuple[int, int], sides: Sequence[int], limits: tuple[int, int]
) -> tuple[int, list[Region]]:
    """Return the computed pixels and the windows of a square of patches: one window, or those of its quarters."""
    (row, column), (side, *smaller), (halo, fitted) = place, sides, limits
    if not needed[row : row + side, column : column + side].any():
        return 0, []
    window = _square(region, place, side)
    if fitted and (ended := _ended(window, region)) != window and _pixels(ended, halo) <= fitted:
        window = ended
    pixels = _pixels(window, halo)
    if smaller:
        half = side // 2
        places = [(row + y, column + x) for y in (0, half) for x in (0, half)]
        parts = [_cheapest(region, needed, each, smaller, limits) for each in places]
        cost = sum(cost for cost, _ in parts)
        if cost < pixels:
            return cost, [each for _, windows in parts for each in windows]
    return pixels, [window]


def _square(region: Region, place: tuple[int, int], side: int) -> Region:
    y, x = region.y.start + place[0] * PATCH, region.x.start + place[1] * PATCH
    return Region(Span(y, y + side * PATCH), Span(x, x + side * PATCH))


def _ended(window: Region, region: Region) -> Region:
    """Return a window that ends with the region, rounded up to the network's stride."""
    bottom, right = (round_up(span.stop, STRIDE) for span in (region.y, region.x))
    return Region(
        Span(window.y.start, min(window.y.stop, bottom)),
        Span(window.x.start, min(window.x.stop, right)),
    )


def _pixels(window: Region, halo: int) -> int:
    """Return the number of pixels that the network computes for a window."""
    width, height = window.size
    return (width + 2 * halo) * (height + 2 * halo)
