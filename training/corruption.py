"""Noise, by protocol.

``fresh``
    ``y = round(clip(x + sigma * n, 0, 255))`` with n standard normal, drawn anew for every pixel, channel and image.
    In training sigma is uniform in 0 to 50 per image, a share of the images stays exactly clean, and in a share sigma
    varies over the image (a ramp, stripes, blobs).
``fixed-map``
    ``y = floor(clip(x + sigma * m, 0, 255))`` with one m for everything: the 96 x 96 x 3 pattern that NumPy's legacy
    generator gives with seed 0. This is what the paper's script does to training and test images alike; a network
    learns the pattern instead of denoising. Kept to reproduce the paper's table.

Torch functions take and give (batch, 3, height, width) float32 in [0, 1]; NumPy functions take and give
(height, width, 3) uint8. Sigma is in grey levels of 255 everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

Image = npt.NDArray[np.uint8]
Protocol = Literal["fresh", "fixed-map"]

HIGHEST = 50.0
"""Highest sigma of training, in grey levels."""
FIXED_SIDE = 96
"""Side in pixels of the paper's pattern."""


@dataclass(frozen=True)
class Fresh:
    """How much noise ``fresh`` draws in training.

    Parameters
    ----------
    highest : float
        Sigma is uniform in 0 to this, in grey levels.
    clean : float
        Share of images that stay exactly as they are.
    varying : float
        Share of images whose sigma varies over the image.
    """

    highest: float = HIGHEST
    clean: float = 0.04
    varying: float = 0.2


def fresh(clean: Tensor, generator: torch.Generator, amount: Fresh | None = None) -> tuple[Tensor, Tensor]:
    """Corrupt a batch for training.

    Parameters
    ----------
    clean : Tensor
        (batch, 3, height, width) float32 in [0, 1].
    generator : torch.Generator
        The only source of randomness.
    amount : Fresh, optional

    Returns
    -------
    noisy : Tensor
        Same shape, in [0, 1], every value a multiple of 1/255.
    sigma : Tensor
        (batch,) root mean square of the sigma that was used in each image, in grey levels.
    """
    amount = amount or Fresh()
    count, _, height, width = clean.shape
    level = torch.rand(count, generator=generator) * amount.highest
    level[torch.rand(count, generator=generator) < amount.clean] = 0.0
    sigma = level[:, None, None, None].expand(count, 1, height, width).clone()
    varies = (torch.rand(count, generator=generator) < amount.varying) & (level > 0)
    other = torch.rand(count, generator=generator) * amount.highest
    for index in torch.nonzero(varies).flatten().tolist():
        share = varying_share(height, width, generator)
        sigma[index, 0] = level[index] + (other[index] - level[index]) * share
    noisy = clean + sigma / 255.0 * torch.randn(clean.shape, generator=generator)
    # The input is in steps of 1/255 like a camera's; where sigma is 0 it must stay what it was.
    noisy = torch.where(sigma > 0, (noisy.clamp(0.0, 1.0) * 255.0).round() / 255.0, clean)
    return noisy, sigma.square().mean(dim=(1, 2, 3)).sqrt()


def varying_share(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw a field in [0, 1] that varies over the image: a ramp, stripes or blobs, equally often.

    Returns
    -------
    Tensor
        (height, width) float32.
    """
    kind = int(torch.randint(3, (1,), generator=generator))
    angle, phase, length = torch.rand(3, generator=generator).tolist()
    if kind == 2:
        coarse = torch.randn((1, 1, 4 + height // 32, 4 + width // 32), generator=generator)
        smooth = functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)[0, 0]
        blobs: Tensor = torch.sigmoid(3.0 * smooth)
        return blobs
    rows = torch.arange(height, dtype=torch.float32)[:, None] / height - 0.5
    columns = torch.arange(width, dtype=torch.float32)[None, :] / width - 0.5
    if kind == 0:
        turn = 2.0 * math.pi * angle
        return (0.5 + math.cos(turn) * columns + math.sin(turn) * rows).clamp(0.0, 1.0)
    # Stripes of a line scanner: along rows or along columns, 6 to 48 pixels long, with sharp or soft edges.
    along = rows * height if angle < 0.5 else columns * width
    wave = torch.sin(2.0 * math.pi * (along / (6.0 + 42.0 * length) + phase)).expand(height, width)
    return torch.sigmoid(wave * (20.0 if angle % 0.5 < 0.25 else 2.0))


def corrupt(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add fresh noise of one strength to an image, as the evaluation does.

    Parameters
    ----------
    image : (height, width, 3) uint8
    sigma : float
        Grey levels; 0 gives the image back.
    rng : numpy.random.Generator

    Returns
    -------
    (height, width, 3) uint8
    """
    noisy = image + sigma * rng.standard_normal(image.shape)
    return np.asarray(np.rint(np.clip(noisy, 0, 255)), dtype=np.uint8)


@cache
def fixed_pattern() -> npt.NDArray[np.float64]:
    """Return the paper's one pattern, (96, 96, 3) float64 of unit strength; do not write to it."""
    pattern = np.random.RandomState(0).normal(0.0, 1.0, (FIXED_SIDE, FIXED_SIDE, 3))
    pattern.flags.writeable = False
    return pattern


def corrupt_fixed(image: Image, sigma: float) -> Image:
    """Add the paper's pattern to a 96 x 96 image; fractions are cut off as in the authors' pairs.

    Parameters
    ----------
    image : (96, 96, 3) uint8
    sigma : float
        Grey levels.

    Raises
    ------
    ValueError
        For another size: the pattern has one.
    """
    if image.shape != (FIXED_SIDE, FIXED_SIDE, 3):
        raise ValueError(f"the fixed map is 96 x 96 RGB, the image is {image.shape}")
    return np.asarray(np.clip(image + sigma * fixed_pattern(), 0, 255), dtype=np.uint8)


def fixed_map(clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Corrupt a batch as the paper does: one of 51 whole sigmas per image, the same pattern for all.

    Parameters and returns are those of :func:`fresh`; images are 96 x 96.
    """
    sigma = torch.randint(0, int(HIGHEST) + 1, (clean.shape[0],), generator=generator).float()
    pattern = torch.from_numpy(fixed_pattern().astype(np.float32)).permute(2, 0, 1)[None]
    noisy = clean * 255.0 + sigma[:, None, None, None] * pattern
    # A hair's breadth keeps clean values, which are whole numbers, from being cut to the one below.
    return (noisy.clamp(0.0, 255.0) + 1e-3).floor() / 255.0, sigma
