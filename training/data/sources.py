"""Sources of clean training images.

The clean truth must be free of noise and JPEG artefacts, and resemble any slide. Sources with visible compression are
reduced. Smooth sources represent 40x scans, sharp ones undersampled 10x scans. Evaluation images are listed in
:mod:`training.evaluate.split` and are never used here.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import tifffile

Image = npt.NDArray[np.uint8]
HDF5 = frozenset({".h5", ".hdf5"})
SUFFIXES = frozenset({".webp", ".tif", ".tiff", ".png", ".jpg", ".jpeg"})
SLIDES = ("OS-1-detail.ome.tif", "TCGA-CR-7395-01A-01-TS1.histolab.svs", "generic-CropBreastSlide.tiff")
"""Slides for training: small, almost only tissue, and compressed, so that their crops are reduced."""


@dataclass(frozen=True)
class Source:
    """A set of images for training.

    Parameters
    ----------
    name, licence : str
        As in the model card.
    weight : float
        Frequency of its crops, relative to other sources.
    native : float
        Share of crops that are not rescaled, if the image is large enough.
    scales : (float, float)
        Range of the scale, uniform on a logarithmic axis; below 1 reduces. A source with visible JPEG artefacts has at
        most 0.5.
    recolour : float
        Share of crops whose colours are changed.
    again : float
        Share of the rescaled crops that are then enlarged 1 to 3 times, as smooth as a 40x scan.
    """

    name: str
    licence: str
    files: tuple[Path, ...]
    weight: float
    native: float
    scales: tuple[float, float]
    recolour: float
    again: float = 0.0


def images_in(folder: Path) -> tuple[Path, ...]:
    """List the images directly in a folder, sorted by name."""
    return tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES))


def kather_split(files: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Split the Kather textures into (train, test).

    Odd positions by name (from 0) are for the test. Even ones are for training, except those from the same slide region
    as a test file (``..._CRC-Prim-HE-06_005.tif_Row_...``), which are not used.
    """
    files = sorted(files)
    region = {file: file.name.split("_", 1)[1].split(".tif")[0] for file in files}
    test = tuple(files[1::2])
    seen = {region[file] for file in test}
    return tuple(file for file in files[0::2] if region[file] not in seen), test


def default_sources(shared: Path) -> tuple[Source, ...]:
    """Return the sources for the training of the shipped presets.

    Raises
    ------
    FileNotFoundError
        If the shared data is missing.
    """
    patches = shared / "data" / "patches"
    pcam = (*images_in(patches / "pcam-kaggle" / "train"), *images_in(patches / "pcam-kaggle" / "extra"))
    kather, _ = kather_split(images_in(patches / "kather-crc-20x"))
    photographs = importlib.resources.files("skimage") / "data"
    photos = tuple(Path(str(photographs / name)) for name in ("astronaut.png", "chelsea.png", "coffee.png"))
    camelyon = images_in(patches / "camelyon16-fda-256")
    slides = tuple(shared / "data" / "slides" / name for name in SLIDES)
    return (
        Source("pcam-kaggle/train+extra, native", "CC0-1.0", pcam, 0.26, 1.0, (1.0, 1.0), 0.25),
        Source("pcam-kaggle/train+extra, rescaled", "CC0-1.0", pcam, 0.20, 0.0, (0.8, 3.0), 0.7),
        Source("kather-crc-20x, even positions", "CC-BY-4.0", kather, 0.13, 0.4, (0.6, 2.5), 0.75),
        Source("camelyon16-fda-256, made smaller", "CC0-1.0", camelyon, 0.14, 0.0, (0.25, 0.5), 0.6, again=0.5),
        Source("slides, made smaller", "open test data", slides, 0.13, 0.0, (0.25, 0.5), 0.7, again=0.4),
        Source("bbbc038-he", "CC0-1.0", images_in(patches / "bbbc038-he"), 0.04, 0.3, (0.25, 1.0), 0.8),
        Source("scikit-image photographs", "CC0-1.0 / public domain", photos, 0.04, 0.0, (0.2, 0.6), 0.5, again=0.3),
    )


def photographs_source(files: tuple[Path, ...]) -> Source:
    """Return the photographs from Debian's packages, which are reduced; see :mod:`training.data.photographs`."""
    name = "photographs of Debian's packages, made smaller"
    return Source(name, "GPL-2+ / CC-BY-4.0 / CC-BY-SA-4.0 / CC0-1.0", files, 0.18, 0.0, (0.2, 0.5), 0.5, again=0.2)


PAPERS = "pcam-kaggle/train+extra"
"""Name of the paper's own source."""


def paper_sources(shared: Path) -> tuple[Source, ...]:
    """Return the paper's training source: PCam patches, neither rescaled nor recoloured.

    Raises
    ------
    FileNotFoundError
        If the shared data is missing.
    """
    patches = shared / "data" / "patches" / "pcam-kaggle"
    files = (*images_in(patches / "train"), *images_in(patches / "extra"))
    return (Source(PAPERS, "CC0-1.0", files, 1.0, 1.0, (1.0, 1.0), 0.0),)


def own_source(place: Path) -> Source:
    """Return a source of the user's own clean images; half of the crops are rescaled by 0.5 to 2.

    Parameters
    ----------
    place : Path
        A folder of images (such as ``train`` of the Kaggle download), or an HDF5 file in the format of PCam.

    Raises
    ------
    FileNotFoundError
        If the folder itself contains no image.
    """
    files = (place,) if place.suffix.lower() in HDF5 else images_in(place)
    if not files:
        raise FileNotFoundError(f"no image in {place}")
    return Source(str(place), "not stated", files, 1.0, 0.5, (0.5, 2.0), 0.6)


def load(path: Path) -> Image:
    """Read an image as (height, width, 3) uint8 RGB."""
    with PIL.Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def load_all(path: Path, *, most: int = 20_000) -> list[Image]:
    """Read every image of a file: one, a slide's level 0, or PCam's HDF5 (dataset ``x``, (n, height, width, 3) uint8).

    Parameters
    ----------
    most : int
        Maximum number of images of an HDF5 file, at even distances, because all are kept in memory.

    Raises
    ------
    ValueError
        If the HDF5 file has no such dataset.
    """
    if path.name in SLIDES:
        return [np.ascontiguousarray(tifffile.imread(path, key=0))]
    if path.suffix.lower() not in HDF5:
        return [load(path)]
    import h5py  # noqa: PLC0415 - comes with the extra `train`

    with h5py.File(path) as file:
        images = file.get("x")
        if images is None or images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise ValueError(f"{path} has no images as PCam has them: a dataset x, (n, height, width, 3) uint8")
        step = -(-len(images) // most)
        return [np.asarray(images[at]) for at in range(0, len(images), step)]


def checksum(file: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(files: Iterable[Path]) -> str:
    """Return the SHA-256 of the files' names and bytes, in the given order."""
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 24):
                total.update(block)
    return total.hexdigest()
