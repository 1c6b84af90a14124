"""The overview of a slide that has no smaller levels of its own: what low zoom is shown from.

Made from the source's pixels at level 2 while the slide is processed, since they pass by then. Without it, one look at
the whole of a 40k x 40k slide of one level would decode all of it.
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
"""A level may be this many times as large as the next; then a tile of a viewer is made from at most 8 x 8 as much."""

SMALL = 4096
"""The longer side of a level that is read whole without a thought."""

ENCODING = Encoding("jpeg", 95, "4:4:4")
DESCRIPTION = "wsi-denoise: overview of an original, at a quarter of its size. Research use only, derived image."


def true_levels(slide: Slide) -> tuple[int, ...]:
    """Return the levels that show what level 0 shows, level 0 first."""
    return tuple(level for level in range(len(slide.info.levels)) if slide.level_is_true(level))


def needed(slide: Slide) -> bool:
    """Return whether the slide's own levels leave a gap, or end too early, for looking at it as a whole."""
    if len(level_sizes(slide.info.width, slide.info.height)) <= FIRST:
        return False
    sides = [max(slide.info.levels[level]) for level in true_levels(slide)]
    return sides[-1] > SMALL or any(larger > smaller * LARGEST_STEP for larger, smaller in itertools.pairwise(sides))


def write(path: Path, size: tuple[int, int], rows: Iterable[Pixels]) -> None:
    """Write an overview, whole or not at all.

    Parameters
    ----------
    path : Path
    size : (int, int)
        (width, height) of the slide at level 0.
    rows : iterable of ndarray
        The source at level 2 from the top, (any height, width at level 2, 3) uint8.

    Raises
    ------
    OSError
    ValueError
        When the rows do not make up level 2.
    """
    path.parent.mkdir(exist_ok=True)  # not the state folder above it
    bands = Bands(level_sizes(*size)[FIRST:], ENCODING, path.parent)
    try:
        for some in rows:
            bands.feed(some)
        with atomic_path(path) as part:
            write_pyramid(part, list(bands.levels()), ENCODING, Header(DESCRIPTION))
    finally:
        bands.close()
