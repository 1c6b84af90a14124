"""Clean patches: their sources, and their augmentation before noise is added.

The clean truth must be free of noise and JPEG artefacts, and resemble any slide. Sources with visible compression are
reduced first. Smooth sources represent 40x scans, sharp ones undersampled 10x scans. All crops are rotated, flipped,
rescaled and recoloured. Evaluation images are listed in :mod:`training.sources` and are never used here.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import tifffile
import torch
from torch import Tensor
from torch.nn import functional

from training import textures

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


def shared_folder() -> Path:
    """Return the folder of ``data`` and ``reference``: ``WSI_DENOISE_SHARED``, or ``../shared``."""
    return Path(os.environ.get("WSI_DENOISE_SHARED", "../shared"))


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
    """Return the photographs from Debian's packages, which are reduced; see :mod:`training.photographs`."""
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


FLAT_SHARE = 0.05
"""Share of synthetic crops: glass, constant colours and soft ramps, in which the network must not invent structure."""


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


def digest(files: Iterable[Path]) -> str:
    """Return the SHA-256 of the files' names and bytes, in the given order."""
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 24):
                total.update(block)
    return total.hexdigest()


class Bank:
    """All training images in memory, from which crops are drawn.

    Parameters
    ----------
    flat : float
        Share of synthetic flat crops.
    texture : float
        Share of synthetic textures (:mod:`training.textures`) among the others.

    Notes
    -----
    A draw depends only on its generator, so that a resumed run has the same crops.
    """

    def __init__(self, sources: Sequence[Source], *, flat: float = FLAT_SHARE, texture: float = 0.0) -> None:
        if not any(source.files for source in sources):
            raise FileNotFoundError("there is nothing to train on: no source has a file")
        self.sources = [source for source in sources if source.files]
        self.flat = flat
        self.texture = texture
        weights = np.array([source.weight for source in self.sources])
        self._shares = weights / weights.sum()
        cache = {path: load_all(path) for source in self.sources for path in source.files}
        self._images = [[image for path in source.files for image in cache[path]] for source in self.sources]

    def draw(self, count: int, side: int, rng: np.random.Generator) -> Tensor:
        """Draw clean crops.

        Parameters
        ----------
        count, side : int
            Number of crops, and their width and height in pixels.

        Returns
        -------
        Tensor
            (count, 3, side, side) float32 in [0, 1], every value a multiple of 1/255.
        """
        crops = torch.empty(count, 3, side, side)
        recolour = np.zeros(count, dtype=bool)
        for index in range(count):
            if rng.random() < self.flat:
                crops[index] = flat_crop(side, rng)
                continue
            # Without textures no number is drawn, so that runs of older cards get the same crops as before.
            if self.texture and rng.random() < self.texture:
                crops[index] = textures.texture_crop(side, rng)
                continue
            which = int(rng.choice(len(self.sources), p=self._shares))
            source, images = self.sources[which], self._images[which]
            crops[index] = crop(images[int(rng.integers(len(images)))], side, source, rng)
            recolour[index] = rng.random() < source.recolour
        crops = turned(crops, rng)
        if recolour.any():
            chosen = torch.from_numpy(recolour)
            crops[chosen] = recoloured(crops[chosen], rng)
        return (crops.clamp_(0.0, 1.0) * 255.0).round_() / 255.0


def crop(image: Image, side: int, source: Source, rng: np.random.Generator) -> Tensor:
    """Cut one crop from an image and rescale it by its source's parameters.

    Returns
    -------
    Tensor
        (3, side, side) float32 in [0, 1].
    """
    shortest = min(image.shape[:2])
    if rng.random() < source.native and shortest >= side:
        return _cut(image, side, rng)
    low, high = np.log(source.scales)
    scale = float(np.exp(rng.uniform(low, high)))
    enlarge = float(rng.uniform(1.0, 3.0)) if rng.random() < source.again else 1.0
    middle = min(side, max(8, round(side / enlarge)))
    wanted = round(middle / scale)
    if wanted > shortest:
        # The image is too small for this scale: use all of it, and enlarge the crop to keep the source's maximum scale.
        wanted = shortest
        middle = min(middle, max(8, round(wanted * source.scales[1])))
    piece = resized(_cut(image, wanted, rng), middle, rng)
    return piece if middle == side else resized(piece, side, rng)


def _cut(image: Image, side: int, rng: np.random.Generator) -> Tensor:
    top = int(rng.integers(image.shape[0] - side + 1))
    left = int(rng.integers(image.shape[1] - side + 1))
    piece = np.ascontiguousarray(image[top : top + side, left : left + side].transpose(2, 0, 1))
    return torch.from_numpy(piece).float() / 255.0


def resized(piece: Tensor, side: int, rng: np.random.Generator) -> Tensor:
    """Resize a square (3, n, n) piece to (3, side, side); mostly bicubic, sometimes softer."""
    if piece.shape[-1] == side:
        return piece
    mode = "bicubic" if rng.random() < 0.75 else "bilinear"
    smaller = side < piece.shape[-1]
    resized_piece = functional.interpolate(piece[None], size=(side, side), mode=mode, antialias=smaller)
    return resized_piece[0].clamp_(0.0, 1.0)


def turned(crops: Tensor, rng: np.random.Generator) -> Tensor:
    """Flip and rotate by right angles, each quarter of the batch differently."""
    parts = []
    for part in crops.chunk(4):
        flips = [axis for axis in (2, 3) if rng.random() < 0.5]
        parts.append(torch.rot90(part.flip(flips) if flips else part, int(rng.integers(4)), (2, 3)))
    return torch.cat(parts).contiguous()


def recoloured(crops: Tensor, rng: np.random.Generator) -> Tensor:
    """Change the colours to those of other stains, scanners and lamps.

    In optical density, a 3 x 3 matrix near the identity (stain mixing) and a factor per channel (stain strength) are
    applied. Sometimes the channels are shuffled, so that the network does not learn one hue. A white point and a gamma
    follow.

    Parameters
    ----------
    crops : Tensor
        (batch, 3, height, width) in [0, 1].
    """
    count = crops.shape[0]
    mixing = np.eye(3)[None] + rng.normal(0.0, 0.12, (count, 3, 3))
    for index in range(count):
        if rng.random() < 0.3:
            mixing[index] = mixing[index][rng.permutation(3)]
    mixing *= np.exp(rng.uniform(-0.6, 0.4, (count, 1, 1)) + rng.normal(0.0, 0.15, (count, 3, 1)))
    density = -torch.log(crops.clamp(min=2.0 / 255.0))
    mixed = torch.einsum("nij,njhw->nihw", torch.from_numpy(mixing).float(), density)
    white = torch.from_numpy(rng.uniform(0.82, 1.03, (count, 1, 1, 1)) * rng.normal(1.0, 0.02, (count, 3, 1, 1)))
    gamma = torch.from_numpy(np.exp(rng.normal(0.0, 0.12, (count, 1, 1, 1))))
    changed: Tensor = (torch.exp(-mixed).clamp(0.0, 1.0) ** gamma) * white
    return changed.float().clamp_(0.0, 1.0)


def flat_crop(side: int, rng: np.random.Generator) -> Tensor:
    """Make a crop without structure: one colour, or a soft ramp between two similar ones.

    Half of the crops have the near-white of glass. In half of all crops, each channel is rounded to black or white with
    probability 0.5.
    """
    colour = rng.uniform(0.8, 1.0, 3) if rng.random() < 0.5 else rng.uniform(0.0, 1.0, 3)
    if rng.random() < 0.3:
        colour[:] = colour.mean()
    if rng.random() < 0.5:
        # For a black or white truth, clipping removes half of the noise and shifts the mean.
        colour = np.where(rng.random(3) < 0.5, np.round(colour), colour)
    flat = torch.from_numpy(colour).float()[:, None, None].expand(3, side, side)
    if rng.random() < 0.5:
        return flat.clone()
    change = torch.from_numpy(rng.normal(0.0, 0.06, 3)).float()[:, None, None]
    angle = float(rng.uniform(0.0, 2.0 * math.pi))
    axis = torch.linspace(-1.0, 1.0, side)
    ramp = math.cos(angle) * axis[None, :] + math.sin(angle) * axis[:, None]
    return (flat + change * ramp).clamp(0.0, 1.0)
