"""Per-patch maps for the viewer: as small pictures, and the places with the highest values."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from dashboard.responses import NotFound
from dashboard.tiles.colour import map_colours, map_pixels
from wsi_denoise.jobs.values import Job
from wsi_denoise.quality import patch_map, verdict
from wsi_denoise.slide.geometry import PATCH

NAMES = {
    "noise": ("Noise removed", "grey levels"),
    "structure": ("Structure found in what was removed", "deviations of noise"),
}
PLACES = 24
APART = 3
"""Patches between two places that are listed: one wound is one place."""

LEAST_STRUCTURE = 1.0
"""Less than what noise alone does is not listed."""

LEAST_NOISE = 2.0
_STEPS = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True)
class Maps:
    """The maps of one job, each (rows, columns) float32; not a number where nothing was measured."""

    noise: NDArray[np.float32]
    structure: NDArray[np.float32]

    def values(self, name: str) -> NDArray[np.float32]:
        """Return the shown values of a map: of structure, the amount without its sign."""
        return self.noise if name == "noise" else np.abs(self.structure)

    def high(self, name: str) -> float:
        """Return the value that has the last colour: a round number that one patch in a hundred exceeds.

        Of structure it is at least what calls for a review: a slide without any is dark, and not full of colours.
        """
        values = self.values(name)
        known = values[np.isfinite(values)]
        high = round_up(float(np.percentile(known, 99))) if known.size else 1.0
        return max(high, verdict.DEFAULT.structure if name == "structure" else LEAST_NOISE)

    def picture(self, name: str) -> bytes:
        """Return a PNG, RGBA, with a pixel for each patch."""
        return bytes(imagecodecs.png_encode(map_pixels(self.values(name), name, self.high(name)), level=6))

    def legend(self, name: str) -> dict[str, object]:
        """Return the legend that the viewer draws beside a map."""
        title, unit = NAMES[name]
        colours = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in map_colours(name)[::17]]
        return {"title": title, "unit": unit, "low": 0.0, "high": self.high(name), "colours": colours}

    def worst(self) -> list[dict[str, float]]:
        """Return the patches with most structure, the strongest first.

        Returns
        -------
        list of dict
            ``x`` and ``y``, the middle of the patch in pixels of level 0, and ``value``: negative where something
            stained is gone, positive where there is something new.
        """
        strength = np.where(np.isfinite(self.structure), np.abs(self.structure), -1.0)
        found: list[dict[str, float]] = []
        for _ in range(PLACES):
            row, column = (int(at) for at in np.unravel_index(int(np.argmax(strength)), strength.shape))
            if strength[row, column] < LEAST_STRUCTURE:
                break
            value = float(self.structure[row, column])
            found.append({"x": (column + 0.5) * PATCH, "y": (row + 0.5) * PATCH, "value": round(value, 2)})
            top, left = max(0, row - APART), max(0, column - APART)
            strength[top : row + APART + 1, left : column + APART + 1] = -1.0
        return found


def round_up(value: float) -> float:
    """Return the next round number that is not below a value: 1, 1.5, 2, 3, 4, 5, 6 or 8 times a power of ten."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in _STEPS if step * power >= value * (1 - 1e-9))


def load(job: Job) -> Maps:
    """Read a job's maps.

    Raises
    ------
    NotFound
        When it has none, or their file is gone or damaged.
    """
    if job.maps is None:
        raise NotFound(f"Job {job.id} has no maps.")
    try:
        stored = patch_map.load(Path(job.maps))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise NotFound(f"The maps of job {job.id} cannot be read.") from error
    if stored.sigma_removed.ndim != 2 or stored.sigma_removed.shape != stored.structure.shape:
        raise NotFound(f"The maps of job {job.id} cannot be read.")
    return Maps(stored.sigma_removed, stored.structure)
