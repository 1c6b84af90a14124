"""Kinds of noise that scanners leave, for measurements.

They are made apart from the training corruption: demosaicking, blur and interpolation are OpenCV's, and strengths are
fixed. The noise of an image depends only on its source, its position, the kind and the seed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import cv2
import numpy as np

from training.evaluate.conditions import Condition, Image, phase, rounded, then_jpeg
from training.noise import codecs
from training.noise.corruption import corrupt as white

CLEAN = "clean"


@dataclass(frozen=True)
class Kind:
    """A kind of noise.

    Parameters
    ----------
    sigma : float
        Strength in grey levels, for the name and for methods that need it.
    make : callable
        Takes a clean image, sigma and a generator, and returns the noisy image.
    """

    name: str
    sigma: float
    make: Condition


def then_jpeg2000(level: float) -> Condition:
    """Return white noise followed by JPEG 2000."""

    def make(image: Image, sigma: float, rng: np.random.Generator) -> Image:
        return codecs.jpeg2000(white(image, sigma, rng), level, phase(rng))

    return make


def between_channels(correlation: float) -> Condition:
    """Return noise with one correlation between any two channels: 1 is luminance grain."""

    def make(image: Image, sigma: float, rng: np.random.Generator) -> Image:
        own, common = rng.standard_normal(image.shape), rng.standard_normal((*image.shape[:2], 1))
        return rounded(image + sigma * (np.sqrt(1.0 - correlation) * own + np.sqrt(correlation) * common))

    return make


def blurred(spread: float) -> Condition:
    """Return white noise, blurred by a Gaussian of `spread` pixels and rescaled to sigma."""

    def make(image: Image, sigma: float, rng: np.random.Generator) -> Image:
        soft = cv2.GaussianBlur(rng.standard_normal(image.shape), (0, 0), spread)
        return rounded(image + sigma * soft / soft.std())

    return make


_BAYER = (
    (cv2.COLOR_BayerRGGB2RGB, cv2.COLOR_BayerRGGB2RGB_EA, cv2.COLOR_BayerRGGB2RGB_VNG),
    (cv2.COLOR_BayerGRBG2RGB, cv2.COLOR_BayerGRBG2RGB_EA, cv2.COLOR_BayerGRBG2RGB_VNG),
    (cv2.COLOR_BayerGBRG2RGB, cv2.COLOR_BayerGBRG2RGB_EA, cv2.COLOR_BayerGBRG2RGB_VNG),
    (cv2.COLOR_BayerBGGR2RGB, cv2.COLOR_BayerBGGR2RGB_EA, cv2.COLOR_BayerBGGR2RGB_VNG),
)
"""OpenCV's codes by phase; within a phase bilinear, edge-aware and variable number of gradients."""
_CHANNELS = (((0, 1), (1, 2)), ((1, 0), (2, 1)), ((1, 2), (0, 1)), ((2, 1), (1, 0)))
"""Channel sampled at [row % 2][column % 2], by phase."""


def mosaic(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add noise to the samples of a colour mosaic, and demosaic by any of OpenCV's methods."""
    border = 4
    whole = np.pad(image, ((border, border), (border, border), (0, 0)), mode="reflect")
    phase, method = int(rng.integers(4)), int(rng.integers(3))
    channels = np.array(_CHANNELS[phase])
    rows, columns = np.indices(whole.shape[:2])
    kept = whole[rows, columns, channels[rows % 2, columns % 2]]
    noisy = rounded(kept + sigma * rng.standard_normal(kept.shape))
    found = cv2.cvtColor(noisy, _BAYER[phase][method])
    return np.ascontiguousarray(found[border:-border, border:-border], dtype=np.uint8)


def shot(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add shot noise in linear light (gamma 2.2), about sigma grey levels at mid-grey, three chips."""
    light = (image / 255.0) ** 2.2
    middle = (128 / 255.0) ** 2.2
    slope = 2.2 * (128 / 255.0) ** 1.2
    noise = sigma / 255.0 * slope * np.sqrt(np.maximum(light, 0.002) / middle) * rng.standard_normal(image.shape)
    return rounded(255.0 * np.clip(light + noise, 0.0, 1.0) ** (1 / 2.2))


def salt_and_pepper(image: Image, _sigma: float, rng: np.random.Generator) -> Image:
    """Set 2 % of the pixels to black or white."""
    drawn = rng.random(image.shape[:2])
    noisy = image.copy()
    noisy[drawn < 0.01] = 0
    noisy[drawn > 0.99] = 255
    return noisy


def hot_pixels(image: Image, _sigma: float, rng: np.random.Generator) -> Image:
    """Brighten one channel of 0.5 % of the pixels by 40 to 255 grey levels."""
    hot = rng.random(image.shape[:2]) < 0.005
    height = rng.uniform(40, 255, image.shape[:2]) * hot
    return rounded(image + height[..., None] * np.eye(3)[rng.integers(3, size=image.shape[:2])])


def enlarged(scale: float) -> Condition:
    """Return white noise that was drawn on a coarser grid and enlarged, rescaled to sigma."""

    def make(image: Image, sigma: float, rng: np.random.Generator) -> Image:
        height, width = image.shape[:2]
        drawn = rng.standard_normal((round(height * scale), round(width * scale), 3))
        field = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_CUBIC)
        return rounded(image + sigma * field / field.std())

    return make


def ramp(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add white noise that increases from 0 at the left to twice sigma at the right."""
    share = np.linspace(0.0, 2.0, image.shape[1])[None, :, None]
    return rounded(image + sigma * share * rng.standard_normal(image.shape))


def rows(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add one normal offset to each row and channel."""
    return rounded(image + sigma * rng.standard_normal((image.shape[0], 1, 3)))


def columns(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add one normal offset to each column, equal in all channels."""
    return rounded(image + sigma * rng.standard_normal((1, image.shape[1], 1)))


def unchanged(image: Image, _sigma: float, _rng: np.random.Generator) -> Image:
    """Return the image."""
    return image


KINDS = (
    Kind(CLEAN, 0, unchanged),
    Kind("white 5", 5, white),
    Kind("white 6", 6, white),
    Kind("white 10", 10, white),
    Kind("white 25", 25, white),
    Kind("white 50", 50, white),
    Kind("white 10, JPEG 80 4:2:0", 10, then_jpeg(80)),
    Kind("white 20, JPEG 80 4:2:0", 20, then_jpeg(80)),
    Kind("white 15, JPEG 98 4:2:0", 15, then_jpeg(98)),
    Kind("white 15, JPEG 50 4:2:2", 15, then_jpeg(50, sampling="4:2:2")),
    Kind("white 15, JPEG 90 4:4:4", 15, then_jpeg(90, sampling="4:4:4")),
    Kind("white 15, JPEG 2000 36 dB", 15, then_jpeg2000(36.0)),
    Kind("luminance grain 15", 15, between_channels(1.0)),
    Kind("channel correlation 0.4, 15", 15, between_channels(0.4)),
    Kind("channel correlation 0.8, 15", 15, between_channels(0.8)),
    Kind("white 15 blurred 0.4 px", 15, blurred(0.4)),
    Kind("white 15 blurred 0.6 px", 15, blurred(0.6)),
    Kind("white 15 blurred 0.8 px", 15, blurred(0.8)),
    Kind("white 10 blurred 1.5 px", 10, blurred(1.5)),
    Kind("white 15 enlarged by 1.6", 15, enlarged(1 / 1.6)),
    Kind("white 0 to 30 across the image", 15, ramp),
    Kind("shot noise 15", 15, shot),
    Kind("shot noise 15, JPEG 80 4:2:0", 15, then_jpeg(80, shot)),
    Kind("colour mosaic 10", 10, mosaic),
    Kind("colour mosaic 10, JPEG 80 4:2:0", 10, then_jpeg(80, mosaic)),
    Kind("salt and pepper 2 %", 25, salt_and_pepper),
    Kind("hot pixels 0.5 %", 10, hot_pixels),
    Kind("column stripes 8", 8, columns),
    Kind("row stripes 5 per channel", 5, rows),
)
"""The measured kinds, in the order of the table."""


def noisy_images(clean: Image, source: str, kind: Kind, seed: int) -> Image:
    """Corrupt a source's images."""
    key = [seed, zlib.crc32(source.encode()), zlib.crc32(kind.name.encode())]
    return np.stack([kind.make(image, kind.sigma, np.random.default_rng([*key, n])) for n, image in enumerate(clean)])
