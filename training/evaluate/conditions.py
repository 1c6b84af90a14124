"""Noise of the evaluation, by name. The truth is always the clean image.

A condition takes a clean image, (height, width, 3) uint8, sigma in grey levels and a generator. Its noise depends only
on these. The tables have its name in the column ``protocol``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import torch

from training.noise import codecs, corruption, sensor

Image = npt.NDArray[np.uint8]
Condition = Callable[[Image, float, np.random.Generator], Image]


def rounded(values: npt.NDArray[np.floating]) -> Image:
    """Return values as 8-bit grey levels."""
    return np.asarray(np.rint(np.clip(values, 0, 255)), dtype=np.uint8)


def correlated(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add white noise, blurred by a Gaussian of 0.7 px and rescaled to sigma, like noise after interpolation."""
    soft = cv2.GaussianBlur(rng.standard_normal(image.shape), (0, 0), 0.7)
    return rounded(image + sigma * soft / soft.std())


def varying(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add noise that increases from 0 at the left to 1.73 sigma at the right; its root mean square is sigma."""
    width = image.shape[1]
    share = np.sqrt(3.0) * (np.arange(width) + 0.5)[None, :, None] / width
    return rounded(image + sigma * share * rng.standard_normal(image.shape))


def sensed(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add a sensor's noise with its colour mosaic (:func:`training.noise.sensor.sensor`), without JPEG."""
    clean = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float() / 255.0
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    noisy = sensor.sensor(clean, torch.tensor([float(sigma)]), torch.tensor([True]), generator)
    return rounded((noisy[0] * 255.0).permute(1, 2, 0).numpy())


def phase(rng: np.random.Generator) -> tuple[int, int]:
    """Draw the phase of a JPEG grid."""
    row, column = rng.integers(16, size=2).tolist()
    return row, column


def then_jpeg(quality: int, before: Condition = corruption.corrupt, sampling: codecs.Sampling = "4:2:0") -> Condition:
    """Return noise followed by JPEG, with the JPEG grid at any phase."""

    def condition(image: Image, sigma: float, rng: np.random.Generator) -> Image:
        return codecs.jpeg(before(image, sigma, rng), quality, sampling, phase(rng))

    return condition


def after_jpeg(quality: int) -> Condition:
    """Return fresh noise on an image after JPEG compression (4:2:0)."""

    def condition(image: Image, sigma: float, rng: np.random.Generator) -> Image:
        return corruption.corrupt(codecs.jpeg(image, quality, "4:2:0", phase(rng)), sigma, rng)

    return condition


CONDITIONS: dict[str, Condition] = {
    "fresh": corruption.corrupt,
    "fixed-map": lambda image, sigma, _rng: corruption.corrupt_fixed(image, sigma),
    "correlated": correlated,
    "varying": varying,
    "sensor": sensed,
    "noise, then JPEG 50": then_jpeg(50),
    "noise, then JPEG 70": then_jpeg(70),
    "noise, then JPEG 90": then_jpeg(90),
    "noise, then JPEG 70 4:4:4": then_jpeg(70, sampling="4:4:4"),
    "JPEG 50, then noise": after_jpeg(50),
    "JPEG 90, then noise": after_jpeg(90),
}
COMPRESSED = tuple(name for name in CONDITIONS if name.startswith("noise, then JPEG"))
OTHERS = tuple(name for name in CONDITIONS if name not in {"fresh", "fixed-map", *COMPRESSED})


def noisy_images(clean: Image, source: str, condition: str, sigma: float, seed: int) -> Image:
    """Corrupt a source's images. The noise depends only on source, position, condition, sigma and seed."""
    key = [seed, round(10 * sigma), zlib.crc32(source.encode())]
    if condition not in {"fresh", "fixed-map"}:
        key.append(zlib.crc32(condition.encode()))
    make = CONDITIONS[condition]
    return np.stack([make(image, sigma, np.random.default_rng([*key, n])) for n, image in enumerate(clean)])
