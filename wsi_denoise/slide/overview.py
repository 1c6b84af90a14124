"""Overviews of slides without usable smaller levels, for low zoom in the viewer.

An overview is made from the source's pixels at level 2 during processing, when they are in memory. Without it, a view
of a whole 40k x 40k slide of one level would decode all of its pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

from wsi_denoise.slide.base import Slide
from wsi_denoise.slide.encoding import Encoding, Pixels
from wsi_denoise.slide.geometry import level_sizes
from wsi_denoise.slide.pyramid import Bands, Header, write_pyramid
from wsi_denoise.system.files import atomic_path

FIRST = 2
"""The slide's level that is the overview's level 0."""

LARGEST_STEP = 8.5
"""Maximum ratio between a level and the next: a viewer's tile then needs at most 8 x 8 times its pixels."""

SMALL = 4096
"""Longer side, in pixels, of a level that is small enough to be read as a whole."""

ENCODING = Encoding("jpeg", 95, "4:4:4")
DESCRIPTION = "wsi-denoise: overview of an original, at a quarter of its size. Research use only, derived image."


def true_levels(slide: Slide) -> tuple[int, ...]:
    """Return the levels that agree with level 0, level 0 first."""
    return tuple(level for level in range(len(slide.info.levels)) if slide.level_is_true(level))


def needed(slide: Slide) -> bool:
    """Return whether a slide needs an overview: a ratio between its levels, or its smallest level, is too large."""
    if len(level_sizes(slide.info.width, slide.info.height)) <= FIRST:
        return False
    sides = [max(slide.info.levels[level]) for level in true_levels(slide)]
    return sides[-1] > SMALL or any(larger > smaller * LARGEST_STEP for larger, smaller in itertools.pairwise(sides))


def write(path: Path, size: tuple[int, int], rows: Iterable[Pixels]) -> None:
    """Write an overview atomically.

    Parameters
    ----------
    size : (int, int)
        (width, height) of the slide at level 0.
    rows : iterable of ndarray
        The source at level 2 from the top, (any height, width at level 2, 3) uint8.

    Raises
    ------
    OSError
    ValueError
        If the rows do not add up to level 2.
    """
    path.parent.mkdir(exist_ok=True)  # without parents: the state folder must exist
    bands = Bands(level_sizes(*size)[FIRST:], ENCODING, path.parent)
    try:
        for some in rows:
            bands.feed(some)
        with atomic_path(path) as part:
            write_pyramid(part, list(bands.levels()), ENCODING, Header(DESCRIPTION))
    finally:
        bands.close()
