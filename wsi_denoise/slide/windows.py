"""Which windows a block is denoised in: as few computed pixels as possible. Pure arithmetic, no pixels.

A device is quickest with few shapes of windows, which it is prepared for. Smaller ones save more than that at the edge
of tissue; and where the slide ends, a CPU ends the window as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_denoise.slide.geometry import PATCH, STRIDE, Region, Span, round_up

PREPARED = 2
"""Sides of windows that a device is prepared for, of those that there are: each takes memory for itself."""


@dataclass(frozen=True)
class Cover:
    """The windows that a block's region is denoised in.

    Parameters
    ----------
    region : Region
        What is kept of the block, in pixels of the slide.
    whole, fitted : tuple of Region
        Windows without halo, which do not overlap: those that the device is prepared for, and others. They may reach
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

    Large windows spend less on their halo, small ones less on glass: a window is cut into its four quarters where
    those that are needed cost less, and so on. Windows of a side lie on the lattice of that side. Their lengths are
    multiples of 16 px, as the network needs it.

    Parameters
    ----------
    region : Region
        Of a block; its origin lies on the lattice.
    needed : ndarray of bool
        (rows, columns) of the block's patches.
    sides : sequence of int
        Sides of windows in patches, largest first, each half of the one before.
    halo : int
        Pixels.
    fitted : int
        Where the device takes any shape: the most pixels that such a window has, with its halo. Windows then end where
        the region does, and whole ones are those of the two largest sides. 0: every window is a whole square.

    Returns
    -------
    Cover
        Windows of one size follow each other, the largest first.
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
    """Return the computed pixels and the windows of a square of patches: one, or those of its quarters."""
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
    """Return what the network computes."""
    width, height = window.size
    return (width + 2 * halo) * (height + 2 * halo)
