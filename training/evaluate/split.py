"""Images for measurements, and what each may be used for.

========== =====================================================================================================
use        meaning
========== =====================================================================================================
choice     may choose presets, settings and stopping times. The even Kather images and recoloured patches resemble
           training images (nine of the twelve are trained on); ``pcam-kaggle/val`` is never trained on
threshold  may set thresholds of triage and verdict, and nothing else. Other stains, whose own noise is unknown
training   trained on by every preset. A gain here shows only that training worked
held out   for the final measurement. Nothing is chosen by it
========== =====================================================================================================
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch

from training.data import bank, sources, textures

Batch = npt.NDArray[np.uint8]
Loader = Callable[[Path], Batch]
"""Takes the folder of patches and returns (images, height, width, 3) uint8."""
Use = Literal["choice", "threshold", "training", "held out"]

SIDE = 96
LARGE = 384
VALIDATION = "pcam-kaggle/val"


def _pcam(split: str) -> Loader:
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
    return tiles(_ihc_field(patches), SIDE)


def _monuseg_fields(patches: Path) -> Batch:
    return np.stack([sources.load(file) for file in sources.images_in(patches / "monuseg" / "test")])


def _ihc_field(_patches: Path) -> Batch:
    return _of_scikit_image("ihc")


SOURCES: dict[str, Loader] = {
    VALIDATION: _pcam("val"),
    "pcam-kaggle/test": _pcam("test"),
    "irunet-author-pairs": _authors,
    "kather-crc-20x, odd positions": _kather,
    "monuseg/test": _monuseg,
    "scikit-image ihc": _ihc,
}
"""The sources of the tables by sigma, as images of 96 px."""

TEST = tuple(name for name in SOURCES if name != VALIDATION)

COMPARED = tuple(name for name in TEST if name != "irunet-author-pairs")
MANY = 60
"""Number of images of each source for the measurement of slow methods."""

FIELDS: dict[str, Loader] = {"monuseg/test": _monuseg_fields, "scikit-image ihc": _ihc_field}
"""The test sources with larger images, (images, 512, 512, 3) uint8."""


def _of_scikit_image(*names: str) -> Batch:
    folder = Path(str(importlib.resources.files("skimage") / "data"))
    return np.stack([sources.load(folder / f"{name}.png") for name in names])


def tiles(images: Batch, side: int) -> Batch:
    """Cut images into adjacent squares from the top left corner; what is narrower than a square is omitted."""
    rows, columns = (range(0, size - side + 1, side) for size in images.shape[1:3])
    return np.stack([image[y : y + side, x : x + side] for image in images for y in rows for x in columns])


def halved(images: Batch) -> Batch:
    """Reduce images by half, as means of 2 x 2 pixels: tissue becomes finer, and blocks of JPEG disappear."""
    height, width = (size // 2 for size in images.shape[1:3])
    return np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images])


def recoloured(images: Batch, seed: int) -> Batch:
    """Change the colours as in training (:func:`training.data.bank.recoloured`)."""
    changed = bank.recoloured(_tensor(images), np.random.default_rng(seed))
    return np.asarray((changed * 255.0).round().byte().permute(0, 2, 3, 1).contiguous().numpy())


def _tensor(images: Batch) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0


def _kather_even(patches: Path) -> Batch:
    files = sorted(sources.images_in(patches / "kather-crc-20x"))[0::2]
    return np.stack([sources.load(file)[3:147, 3:147] for file in files])


def _kather_odd(patches: Path) -> Batch:
    _, test = sources.kather_split(sources.images_in(patches / "kather-crc-20x"))
    return np.stack([sources.load(file)[3:147, 3:147] for file in test])


def _textures(_patches: Path) -> Batch:
    rng = np.random.default_rng(21)
    crops = torch.stack([textures.texture_crop(144, rng) for _ in range(24)])
    return np.asarray((crops * 255.0).round().byte().permute(0, 2, 3, 1).contiguous().numpy())


def _other_stains(*names: str, reduce: bool = False) -> Loader:
    def load(patches: Path) -> Batch:
        images = np.stack([sources.load(patches / "other-stains" / name) for name in names])
        return halved(images) if reduce else tiles(images, LARGE)

    return load


def _nuclear_images(patches: Path) -> Batch:
    return np.stack([sources.load(file) for file in sources.images_in(patches / "bbbc038-he")])


@dataclass(frozen=True)
class Tissue:
    """A source of the tables by kind of noise."""

    use: Use
    load: Loader


TISSUES: dict[str, Tissue] = {
    VALIDATION: Tissue("choice", SOURCES[VALIDATION]),
    "kather-crc-20x, even positions": Tissue("choice", _kather_even),
    "pcam-kaggle/val, recoloured": Tissue("choice", lambda patches: recoloured(SOURCES[VALIDATION](patches)[200:], 20)),
    "textures, made up": Tissue("choice", _textures),
    # Blood smears are JPEG files, so they are reduced.
    "other-stains/blood, halved": Tissue(
        "threshold", _other_stains(*(f"blood_0000{n}.jpg" for n in (0, 4, 8)), reduce=True)
    ),
    "other-stains/ihc_6_2": Tissue("threshold", _other_stains("ihc_6_2.png")),
    "other-stains/ihc_22_2": Tissue("threshold", _other_stains("ihc_22_2.png")),
    "other-stains/hen2": Tissue("threshold", _other_stains("hen2.png")),
    "bbbc038-he": Tissue("training", _nuclear_images),
    "pcam-kaggle/test": Tissue("held out", SOURCES["pcam-kaggle/test"]),
    "irunet-author-pairs": Tissue("held out", _authors),
    "kather-crc-20x, odd positions": Tissue("held out", _kather_odd),
    "monuseg/test": Tissue("held out", lambda patches: tiles(_monuseg_fields(patches), LARGE)),
    "monuseg/test, halved": Tissue("held out", lambda patches: halved(_monuseg_fields(patches))),
    "monuseg/test, recoloured": Tissue(
        "held out", lambda patches: recoloured(tiles(_monuseg_fields(patches), LARGE), 22)
    ),
    "scikit-image ihc": Tissue("held out", lambda patches: tiles(_ihc_field(patches), LARGE)),
    # Photographs of fine structure without tissue.
    "scikit-image textures": Tissue("held out", lambda _: tiles(_of_scikit_image("brick", "grass", "gravel"), LARGE)),
}
"""The sources of the tables by kind of noise, at the size of a slide's crop where the images are large enough."""


def tissues(*uses: Use) -> tuple[str, ...]:
    """Return the names of the sources with these uses."""
    return tuple(name for name, tissue in TISSUES.items() if tissue.use in uses)
