"""Difference of a slide before and after, computed from level 0 and reduced by area.

The slide's own smaller levels are made by the scanner's filter and the output's by 2 x 2 means: their difference is
that of two filters. Measured on a slide with 0.8 grey levels of change at 1/16: 6.4.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from dashboard.tiles.deepzoom import Box, DeepZoom
from dashboard.tiles.slides import MOST_PIXELS, Pixels, Plane

MEASURES = ("mean", "rms")
"""``mean`` of the difference, with its sign; ``rms``, its root mean square."""

LARGEST_STEP = 4
"""Pixels of level 0 along a pixel of the smallest level that is offered for a slide of any size."""

_BAND_PIXELS = 4_000_000

Figures = NDArray[np.float32]


def least_level(geometry: DeepZoom) -> int:
    """Return the smallest Deep Zoom level at which the difference is offered.

    A screen at a smaller level would read hundreds of megapixels. A slide that is small enough has all levels.
    """
    if geometry.width * geometry.height <= MOST_PIXELS:
        return 0
    return max(0, geometry.last - (LARGEST_STEP.bit_length() - 1))


def least_zoom(geometry: DeepZoom) -> float:
    """Return the zoom, in screen pixels per pixel of level 0, from which on a viewer can show the difference."""
    level = least_level(geometry)
    # Viewers draw a level from half its size on.
    return 0.5 / (1 << (geometry.last - level)) if level else 0.0


def area_differences(before: Plane, after: Plane, box: Box, measure: str) -> Figures:
    """Return the difference before - after over the areas of a box's pixels.

    Parameters
    ----------
    before, after : Plane
        Level 0 of each.
    box : Box
        Its scale is a whole number. Pixels at the slide's edge count only what the slide has.
    measure : str
        One of :data:`MEASURES`.

    Returns
    -------
    ndarray of float32, shape (box.height, box.width, 3)
        Grey levels.

    Raises
    ------
    SlideError, SourceError
    """
    step = round(box.scale)
    right = min(round(box.right), before.size[0], after.size[0])
    parts = []
    for top, bottom in _bands(round(box.top), min(round(box.bottom), before.size[1], after.size[1]), right, box, step):
        left, width = round(box.left), right - round(box.left)
        change = before.read(left, top, width, bottom - top).astype(np.float32)
        change -= after.read(left, top, width, bottom - top)
        parts.append(_area_means(change if measure == "mean" else change * change, step))
    means = np.concatenate(parts)
    return means if measure == "mean" else np.sqrt(means)


def to_pixels(figures: Figures, gain: int, measure: str) -> Pixels:
    """Return figures as grey levels, (height, width, 3) uint8: `gain` times as strong, a mean around mid grey."""
    shown = np.rint(figures * gain)
    return np.clip(shown + 128 if measure == "mean" else shown, 0, 255).astype(np.uint8)


def _bands(top: int, bottom: int, right: int, box: Box, step: int) -> Iterator[tuple[int, int]]:
    """Yield (top, bottom) of bands of whole areas, of a few megapixels each."""
    width = max(1, right - round(box.left))
    rows = max(1, _BAND_PIXELS // (width * step)) * step
    for start in range(top, bottom, rows):
        yield start, min(start + rows, bottom)


def _area_means(values: Figures, step: int) -> Figures:
    """Return the means of areas of `step` x `step`; areas at the right and lower edge may be smaller."""
    if step == 1:
        return values
    rows, columns = values.shape[:2]
    height, width = -(-rows // step), -(-columns // step)
    padded = np.pad(values, ((0, height * step - rows), (0, width * step - columns), (0, 0)))
    means = np.asarray(cv2.resize(padded, (width, height), interpolation=cv2.INTER_AREA), np.float32)
    down = step / np.minimum(step, rows - step * np.arange(height))
    across = step / np.minimum(step, columns - step * np.arange(width))
    return (means * down[:, None, None] * across[None, :, None]).astype(np.float32)
