"""Images for measurements; none of them is used for training.

Only ``pcam-kaggle/val`` may be used for choices; the other sources are for the test.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data import sources

Batch = npt.NDArray[np.uint8]
SIDE = 96
VALIDATION = "pcam-kaggle/val"


def _pcam(split: str) -> Callable[[Path], Batch]:
    return lambda patches: np.stack([sources.load(file) for file in sources.images_in(patches / "pcam-kaggle" / split)])


def _authors(patches: Path) -> Batch:
    files = sources.images_in(patches / "irunet-author-pairs" / "noise25")
    return np.stack([sources.load(file) for file in files if "clean" in file.name])


def _kather(patches: Path) -> Batch:
    _, test = sources.kather_split(sources.images_in(patches / "kather-crc-20x"))
    return np.stack([sources.load(file)[20 : 20 + SIDE, 20 : 20 + SIDE] for file in test])


def _monuseg(patches: Path) -> Batch:
    return np.ascontiguousarray(_monuseg_fields(patches)[:, 200 : 200 + SIDE, 200 : 200 + SIDE])


def _ihc(patches: Path) -> Batch:
    image = _ihc_field(patches)[0]
    tiles = range(0, 512 - SIDE + 1, SIDE)
    return np.stack([image[top : top + SIDE, left : left + SIDE] for top in tiles for left in tiles])


def _monuseg_fields(patches: Path) -> Batch:
    return np.stack([sources.load(file) for file in sources.images_in(patches / "monuseg" / "test")])


def _ihc_field(_patches: Path) -> Batch:
    return sources.load(Path(str(importlib.resources.files("skimage") / "data" / "ihc.png")))[None]


SOURCES: dict[str, Callable[[Path], Batch]] = {
    VALIDATION: _pcam("val"),
    "pcam-kaggle/test": _pcam("test"),
    "irunet-author-pairs": _authors,
    "kather-crc-20x, odd positions": _kather,
    "monuseg/test": _monuseg,
    "scikit-image ihc": _ihc,
}
"""Functions by name that take the folder of patches and return (images, 96, 96, 3) uint8."""

TEST = tuple(name for name in SOURCES if name != VALIDATION)

COMPARED = tuple(name for name in TEST if name != "irunet-author-pairs")
MANY = 60
"""Number of images of each source for the measurement of slow methods."""

FIELDS: dict[str, Callable[[Path], Batch]] = {"monuseg/test": _monuseg_fields, "scikit-image ihc": _ihc_field}
"""The test sources with larger images, (images, 512, 512, 3) uint8."""
