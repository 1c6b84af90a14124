"""Detection of patches with tissue, and of slides that are not brightfield.

A patch that is wrongly taken for tissue costs time, but tissue that is taken for glass stays noisy. Doubtful patches
therefore count as tissue. ``docs/evidence/formats.md`` explains the choice of the thresholds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from wsi_denoise.errors import NotBrightfield
from wsi_denoise.slide.background import find_glass
from wsi_denoise.slide.base import Pixels
from wsi_denoise.slide.geometry import PATCH

#: Below this number of patches a mask saves no time, and every patch counts as tissue.
LEAST_PATCHES = 64
#: Pixels of the thumbnail along a patch. Each averages 24 x 24 px, which reduces noise of sigma 25 to sigma 1.
PIXELS_PER_PATCH = 4
LARGEST_THUMBNAIL = 4096
#: Grey levels by which tissue is darker than glass in at least one channel: 5 sigma of the glass, within these bounds.
LEAST_MARGIN, MOST_MARGIN = 6.0, 14.0
#: Grey levels between the means of Otsu's two classes for them to be used; for noisy glass the means differ by 2.
LEAST_SEPARATION = 12.0
#: A slide is dark if its median brightness is below the first value and its share of pixels that are brighter than the
#: third value in every channel is below the second.
DARK_MEDIAN, BRIGHT_SHARE, BRIGHT = 50.0, 0.02, 150

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TissueMask:
    """Patches with tissue.

    Parameters
    ----------
    patches : bool array, (rows, columns)
        True for patches that the network processes.
    found : bool
        False if no tissue was found; `patches` is then all False.
    note : str
        Reason for a mask of all or no patches; empty otherwise.
    """

    patches: Bools
    found: bool
    note: str


def thumbnail_side(lattice_shape: tuple[int, int]) -> int:
    """Return the longer side in pixels of the thumbnail for a lattice of (rows, columns) patches."""
    return min(LARGEST_THUMBNAIL, PIXELS_PER_PATCH * max(lattice_shape))


def tissue_patches(
    thumbnail: Pixels,
    lattice_shape: tuple[int, int],
    slide_size: tuple[int, int],
    *,
    mode: Literal["auto", "all"] | str = "auto",  # noqa: PYI051 - the two words that settings know, as text
    dilate: int = 1,
) -> TissueMask:
    """Find the patches that contain tissue.

    Parameters
    ----------
    thumbnail : uint8 array, (height, width, 3), RGB
        The whole slide, preferably with the size of :func:`thumbnail_side`.
    lattice_shape : (int, int)
        (rows, columns) of 96-px patches; the last ones may extend beyond the slide.
    slide_size : (int, int)
        (width, height) at level 0.
    mode : {"auto", "all"}
        ``all`` selects every patch without any check.
    dilate : int
        Number of patches by which the mask is dilated in all eight directions.

    Raises
    ------
    NotBrightfield
        For a slide with a dark background, unless `mode` is ``all``.
    """
    everything = np.ones(lattice_shape, np.bool_)
    if mode == "all":
        return TissueMask(everything, found=True, note="tissue.mode is all: every patch is processed")
    if is_dark(thumbnail):
        raise NotBrightfield(f"the median brightness is {_median_brightness(thumbnail):.0f} of 255")
    if lattice_shape[0] * lattice_shape[1] < LEAST_PATCHES:
        return TissueMask(everything, found=True, note=f"fewer than {LEAST_PATCHES} patches: all of them are processed")
    small = _averaged(thumbnail, lattice_shape)
    mask = tissue_pixels(small)
    if mask is None:
        return TissueMask(everything, found=True, note="no empty glass was found: every patch is processed")
    patches = _on_lattice(mask, lattice_shape, slide_size)
    if not patches.any():
        return TissueMask(patches, found=False, note="no tissue was found")
    if dilate:
        from scipy import ndimage  # noqa: PLC0415

        patches = ndimage.binary_dilation(patches, np.ones((3, 3), np.bool_), iterations=dilate)
    return TissueMask(patches, found=True, note="")


def tissue_pixels(thumbnail: Pixels) -> Bools | None:
    """Return the mask of pixels that are not glass, (height, width), or None if the thumbnail has no glass.

    Pixels that are darker than glass in any channel count, which includes pale pink. The mask of tiatoolbox's Otsu
    masker is added if its threshold separates two classes. Otsu alone loses pale tissue, and splits the noise of an
    empty slide into two classes.
    """
    glass = find_glass(thumbnail)
    if glass is None:
        return None
    margin = min(max(5 * glass.sigma, LEAST_MARGIN), MOST_MARGIN)
    darker = np.array(glass.colour, np.int16) - thumbnail
    mask: Bools = darker.max(axis=2) > margin
    from wsi_denoise.slide.readers.toolbox_reader import otsu_masker  # noqa: PLC0415

    found: Bools = otsu_masker().fit_transform(thumbnail[None])[0]
    brightness = thumbnail.mean(axis=2)
    if found.any() and not found.all() and brightness[~found].mean() - brightness[found].mean() >= LEAST_SEPARATION:
        mask |= found
    return mask


def is_dark(thumbnail: Pixels) -> bool:
    """Return whether a slide has a dark background, as in fluorescence."""
    bright = float((thumbnail.min(axis=2) > BRIGHT).mean())
    return _median_brightness(thumbnail) < DARK_MEDIAN and bright < BRIGHT_SHARE


def _median_brightness(thumbnail: Pixels) -> float:
    return float(np.median(thumbnail @ np.array([0.299, 0.587, 0.114])))


def _averaged(thumbnail: Pixels, lattice_shape: tuple[int, int]) -> Pixels:
    """Return the thumbnail, reduced by area means to four pixels per patch if it is larger."""
    height, width = thumbnail.shape[:2]
    scale = PIXELS_PER_PATCH * max(lattice_shape) / max(height, width)
    if scale >= 1:
        return thumbnail
    from PIL import Image  # noqa: PLC0415

    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(thumbnail).resize(size, Image.Resampling.BOX))


def _on_lattice(mask: Bools, lattice_shape: tuple[int, int], slide_size: tuple[int, int]) -> Bools:
    """Return whether any true pixel of the mask touches each patch, (rows, columns)."""
    spans = [
        _spans(count, full, small)
        for count, full, small in zip(lattice_shape, reversed(slide_size), mask.shape, strict=True)
    ]
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    sums[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)
    (top, bottom), (left, right) = spans
    inside = (
        sums[np.ix_(bottom, right)] - sums[np.ix_(top, right)] - sums[np.ix_(bottom, left)] + sums[np.ix_(top, left)]
    )
    touched: Bools = inside > 0
    return touched


def _spans(count: int, full: int, small: int) -> tuple[list[int], list[int]]:
    """Return the first thumbnail pixel of each patch along one side, and one past the last."""
    starts, ends = [], []
    for index in range(count):
        start = min(math.floor(index * PATCH * small / full), small - 1)
        end = min(math.ceil(min((index + 1) * PATCH, full) * small / full), small)
        starts.append(start)
        ends.append(max(end, start + 1))
    return starts, ends
