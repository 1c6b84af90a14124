"""Maps with one value per 96-px patch of the slide, for the viewer's overlay."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_denoise.system.files import atomic_file


@dataclass(frozen=True)
class PatchMap:
    """Maps of the removed noise, and of removed or added structure.

    Parameters
    ----------
    sigma_removed : ndarray
        (rows, cols) float32, grey levels: root mean square of input minus output. NaN where there is no tissue.
    structure : ndarray
        (rows, cols) float32, no unit: largest local change, in standard deviations of the change due to noise.
        Negative: the output is lighter (stained structure is missing); positive: darker (new). NaN as above.
    """

    sigma_removed: NDArray[np.float32]
    structure: NDArray[np.float32]


def save(path: Path, patch_map: PatchMap) -> None:
    """Write a map as npz, atomically."""
    with atomic_file(path) as file:
        np.savez_compressed(file, sigma_removed=patch_map.sigma_removed, structure=patch_map.structure)


def load(path: Path) -> PatchMap:
    """Read a map of :func:`save`, without pickle, so that no code in the file is executed."""
    with np.load(path, allow_pickle=False) as arrays:
        return PatchMap(arrays["sigma_removed"], arrays["structure"])
