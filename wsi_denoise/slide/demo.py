"""A small demo slide: the H&E picture that ships with tiatoolbox, with noise of known sigma."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from wsi_denoise import NOTICE
from wsi_denoise.errors import NoSuchPath, OutputUnwritable
from wsi_denoise.system.files import atomic_path

NAME = "demo-noise-25.tiff"
SIDE = 3000
SIGMA = 25.0
#: Micrometres per pixel. The picture states none; the value of a 40x scan makes viewers show a scale bar.
MPP = 0.25
SEED = 20_210_501
_TILE = 256

Pixels = npt.NDArray[np.uint8]


def tissue() -> Pixels:
    """Return tiatoolbox's H&E picture, (height, width, 3) uint8 RGB, without importing tiatoolbox.

    Raises
    ------
    NoSuchPath
        If tiatoolbox is not installed, or lacks the picture.
    """
    found = importlib.util.find_spec("tiatoolbox")
    file = Path(found.origin).parent / "data" / "target_image.png" if found and found.origin else None
    if file is None or not file.is_file():
        raise NoSuchPath("tiatoolbox/data/target_image.png, which comes with tiatoolbox")
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def mirrored(picture: Pixels, side: int) -> Pixels:
    """Return `side` x `side` pixels of a picture and its mirror images, without visible seams."""
    rows, columns = (_folded(side, length) for length in picture.shape[:2])
    return picture[rows[:, None], columns[None, :]]


def _folded(side: int, length: int) -> npt.NDArray[np.intp]:
    place = np.arange(side) % (2 * length)
    return np.where(place < length, place, 2 * length - 1 - place)


def noisy(picture: Pixels, sigma: float, seed: int) -> Pixels:
    """Return a picture with white Gaussian noise, clipped and rounded to 8 bits as by a camera.

    The noise is drawn in bands of rows to save memory.
    """
    draws = np.random.default_rng(seed)
    result = np.empty_like(picture)
    for top in range(0, len(picture), _TILE):
        band = picture[top : top + _TILE]
        noise = draws.standard_normal(band.shape, dtype=np.float32) * np.float32(sigma)
        result[top : top + _TILE] = np.clip(np.rint(band + noise), 0, 255)
    return result


def write(folder: Path, *, side: int = SIDE) -> Path:
    """Write the demo slide into a folder atomically and return its path. An existing one is kept.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    side : int
        Width and height in pixels.

    Raises
    ------
    NoSuchPath
        If tiatoolbox's picture is missing.
    OutputUnwritable
    """
    goal = folder / NAME
    if os.path.lexists(goal):
        return goal
    level = noisy(mirrored(tissue(), side), SIGMA, SEED)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(goal) as part:
            _write_pyramid(part, level)
    except OSError as error:
        raise OutputUnwritable(f"{folder} ({error.strerror})") from error
    return goal


def _write_pyramid(file: Path, level: Pixels) -> None:
    mpp, first = MPP, True
    with tifffile.TiffWriter(file) as tiff:
        while first or min(level.shape[:2]) >= _TILE:
            tiff.write(
                level,
                photometric="rgb",
                tile=(_TILE, _TILE),
                compression="deflate",
                subfiletype=0 if first else 1,
                resolution=(1e4 / mpp, 1e4 / mpp),
                resolutionunit="CENTIMETER",
                description=_description() if first else None,
                metadata=None,
            )
            level, mpp, first = _halved(level), 2 * mpp, False


def _description() -> str:
    return (
        f"Demo slide: H&E picture that ships with tiatoolbox, mirrored, with white Gaussian noise of sigma {SIGMA:g}"
        f" (seed {SEED}). Resolution made up. {NOTICE.capitalize()}."
    )


def _halved(level: Pixels) -> Pixels:
    height, width = (length // 2 * 2 for length in level.shape[:2])
    quads = level[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
    halved: Pixels = np.rint(quads.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
    return halved
