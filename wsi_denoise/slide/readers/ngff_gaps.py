"""Distinction of chunks that the writer omitted from chunks that were lost.

Zarr reads a chunk that is not stored as the array's fill value. Writers omit chunks of empty areas. An unfinished copy,
or one that lost files, looks the same. The rest of the image decides, from the smallest level up:

* Each level is made from the next larger one. A chunk counts as omitted if the next smaller level shows the fill value
  there, and as lost otherwise.
* For the smallest level, a chunk counts as omitted only if every stored neighbour shows the fill value along the shared
  edge. The neighbour must also have other values: a writer that stores chunks of only the fill value omits none.
* A chunk inside a stored shard counts as omitted, because a shard is written and copied as one file.

In all other cases the chunk counts as lost, and the slide waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wsi_denoise.errors import IncompleteSlide
from wsi_denoise.slide.base import DecodeFailure, Pixels
from wsi_denoise.slide.readers.ngff_level import ChunkGone, Level

#: Tolerance in grey levels of a resampled fill value.
TOLERANCE = 2
#: Pixels of the smaller level at the border of a chunk that resampling filters mix with its neighbours.
MARGIN = 3


def check_gaps(levels: Sequence[Level]) -> None:
    """Check that the writer omitted every chunk that is not stored.

    Parameters
    ----------
    levels : sequence of Level
        Largest first.

    Raises
    ------
    IncompleteSlide
        A chunk was lost, or has not arrived.
    """
    smaller: Level | None = None
    for level in reversed(levels):
        missing = [(int(which), int(row), int(column)) for which, row, column in np.argwhere(level.missing)]
        if missing:
            _check_level(level, smaller, missing)
        smaller = level


def _check_level(level: Level, smaller: Level | None, missing: Sequence[tuple[int, int, int]]) -> None:
    count = f"{len(missing):,} of {level.stored.size:,} chunks of level {level.name} are not stored"
    if not level.stored.any(axis=(1, 2)).all():
        raise IncompleteSlide(f"{count}, which is a whole image")
    if level.array.fill is None:
        raise IncompleteSlide(f"{count}, and the file states no fill value for them")
    for place in missing:
        try:
            reason = _beside(level, place) if smaller is None else _on_smaller(level, smaller, place)
        except (DecodeFailure, ChunkGone) as error:
            reason = f"the chunks that could explain it are damaged ({error})"
        if reason:
            raise IncompleteSlide(f"{count}, such as {level.name}/{level.array.name(level.numbers(place))}: {reason}")


def _on_smaller(level: Level, smaller: Level, place: tuple[int, int, int]) -> str:
    """Return why a chunk is lost, according to the next smaller level; empty if that shows the fill value."""
    x, y, width, height = level.box(place)
    left, right = _scaled(x, x + width, level.size[0], smaller.size[0])
    top, bottom = _scaled(y, y + height, level.size[1], smaller.size[1])
    if smaller.is_gap(left, top, right - left, bottom - top) and smaller.array.fill == level.array.fill:
        return ""
    pixels = smaller.read(left, top, right - left, bottom - top)[..., level.channels(place)]
    return "" if _is_fill(pixels, level) else f"level {smaller.name} shows an image there"


def _scaled(start: int, stop: int, full: int, small: int) -> tuple[int, int]:
    """Return the span in pixels of the smaller level, without those that resampling mixes with its neighbours."""
    first, last = start * small // full, max(start * small // full + 1, -(-stop * small // full))
    last = min(last, small)
    first = min(first, last - 1)
    margin = min(MARGIN, (last - first - 1) // 2)
    # At the edge of the image a chunk has no neighbour.
    return first + (margin if start else 0), last - (margin if stop < full else 0)


def _beside(level: Level, place: tuple[int, int, int]) -> str:
    """Return why a chunk is lost, according to its stored neighbours; empty if they show the fill value."""
    which, row, column = place
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        beside = (which, row + down, column + right)
        if not (0 <= beside[1] < level.stored.shape[1] and 0 <= beside[2] < level.stored.shape[2]):
            continue
        if not level.stored[beside]:
            continue
        pixels = level.read(*level.box(beside))[..., level.channels(place)]
        edge = {(-1, 0): pixels[-1], (1, 0): pixels[0], (0, -1): pixels[:, -1], (0, 1): pixels[:, 0]}[down, right]
        if not _is_fill(edge, level):
            return "the image continues there, and no smaller level shows it"
        if bool((pixels == level.array.fill).all()):
            return f"other chunks of nothing but the fill value {level.array.fill} are stored"
    return ""


def _is_fill(pixels: Pixels, level: Level) -> bool:
    difference = np.abs(pixels.astype(np.int16) - (level.array.fill or 0))
    return bool(difference.max(initial=0) <= TOLERANCE)
