"""Sample a slide's tissue, run the candidate presets on it, and decide; see :mod:`wsi_denoise.quality.triage`."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from wsi_denoise.network import candidates
from wsi_denoise.network.candidates import AUTO, CANDIDATES
from wsi_denoise.processing.block import Read
from wsi_denoise.processing.values import Mask
from wsi_denoise.quality.triage import Triage, choose
from wsi_denoise.slide.base import Pixels
from wsi_denoise.slide.geometry import PATCH, STRIDE

PATCHES = 64
"""Maximum number of sampled patches. The time does not depend on the size of the slide."""

MARGIN = STRIDE
"""Pixels around a sampled patch that the network also sees."""

Denoise = Callable[[Pixels], Pixels]
"""Denoises (n, height, width, 3) uint8; height and width are multiples of 16."""


def sample(tissue: Mask, seed: str, most: int = PATCHES) -> list[tuple[int, int]]:
    """Return the (row, column) of up to `most` patches, spread evenly over the tissue.

    The tissue's patches in reading order are divided into `most` equal parts, and one is drawn from each.

    Parameters
    ----------
    tissue : ndarray of bool
        (rows, columns) of patches.
    seed : str
        Equal seeds give equal samples: the slide's fingerprint.
    """
    places = np.argwhere(tissue)
    parts = min(most, len(places))
    draw = random.Random(seed)
    bounds = [len(places) * part // parts for part in range(parts + 1)] if parts else [0]
    return [
        (int(row), int(column))
        for first, end in pairwise(bounds)
        for row, column in [places[draw.randrange(first, end)]]
    ]


def window(row: int, column: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Return (x, y, width, height) of a patch with its margin, moved into a slide of (width, height) px.

    Sides are multiples of the network's stride, and smaller only on a slide that is smaller.
    """
    side = PATCH + 2 * MARGIN
    across, down = (min(side, size - size % STRIDE) for size in (width, height))
    x = max(0, min(column * PATCH - MARGIN, width - across))
    y = max(0, min(row * PATCH - MARGIN, height - down))
    return x, y, across, down


def removed(windows: Sequence[Pixels], presets: Mapping[str, Denoise]) -> dict[str, float]:
    """Return the root mean square in grey levels of what each preset changes in a window; the median over windows."""
    changes: dict[str, list[float]] = {name: [] for name in presets}
    for pixels in windows:
        for name, denoise in presets.items():
            changes[name].append(_change(pixels, denoise(pixels[None])[0]))
    return {name: float(np.median(found)) for name, found in changes.items()}


def _change(before: Pixels, after: Pixels) -> float:
    return math.sqrt(np.square(after.astype(np.float32) - before).mean(dtype=np.float64))


def triage(
    read: Read,
    size: tuple[int, int],
    tissue: Mask,
    seed: str,
    preset: str,
    denoiser: Callable[[str], Denoise],
) -> Triage:
    """Decide whether a slide is denoised, and with which preset.

    Parameters
    ----------
    read : callable
        See :data:`wsi_denoise.processing.block.Read`; with places inside the slide or region.
    size : (int, int)
        (width, height) px of the slide or region.
    tissue : ndarray of bool
        (rows, columns) of its patches.
    preset : str
        The preset that the settings name; ``auto`` uses the best one.
    denoiser : callable
        Returns the denoiser of a preset.
    """
    begun = time.perf_counter()
    areas = [window(row, column, *size) for row, column in sample(tissue, seed)]
    windows = [read(*area) for area in areas if min(area[2:]) > 0]
    found: dict[str, float] = {}
    best = None
    if windows:
        names = dict.fromkeys((*CANDIDATES, *candidates.names(preset)))
        found = removed(windows, {name: denoiser(name) for name in names})
        best = choose(found)
    return Triage(best, best if preset == AUTO else preset, found, len(windows), time.perf_counter() - begun)
