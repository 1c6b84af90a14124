"""Noise, by protocol.

``fresh``
    ``y = round(clip(x + sigma * n, 0, 255))`` with n standard normal, independent for every pixel, channel and image.
    In training sigma is uniform in 0 to 50 per image, a share of the images stays exactly clean, and in a share sigma
    varies over the image (a ramp, stripes, blobs) between this value and a second one that is uniform in 0 to 75.
``fixed-map``
    ``y = floor(clip(x + sigma * m, 0, 255))`` with one m for everything: the 96 x 96 x 3 pattern that NumPy's legacy
    generator returns for seed 0. The paper's script adds it to training and test images, and a network learns the
    pattern instead of denoising. It is used only to reproduce the paper's table.
``scanner``
    ``y = J(round(255 clip(z, 0, 1)))``, for slides whose noise went through a camera and JPEG. Half of the images get
    ``fresh`` noise, so that ``z = x + sigma n / 255``. In the others noise is added in linear light,
    ``z = g(f(x) + k D sqrt(p f(x) + (1 - p) / 4) n)``: f takes sRGB to linear light and g back; p, the share of shot
    noise, is uniform in [0, 1]; D is, for 70 % of these, a colour mosaic (RGGB, any phase) and its demosaicking by the
    linear filters of Malvar, He and Cutler (ICASSP 2004), which correlates neighbours and channels, and otherwise
    nothing; k makes the root mean square of the noise sigma grey levels, to first order. J is JPEG, on 80 % of the
    noisy images: quality uniform in 30 to 95, chroma 4:4:4, 4:2:2 or 4:2:0 equally often, its grid at any phase of
    16 x 16. Clean images stay clean; the truth is x.
``camera``
    All degradations by a scanner, with parameters drawn per crop: see :mod:`training.noise.camera`.

Torch functions take and return (batch, 3, height, width) float32 in [0, 1]; NumPy functions take and return
(height, width, 3) uint8. Sigma is in grey levels of 255 everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.noise import camera
from training.noise.codecs import SAMPLINGS, jpeg
from training.noise.fields import varying_share
from training.noise.sensor import sensor

Image = npt.NDArray[np.uint8]
Protocol = Literal["fresh", "fixed-map", "scanner", "camera"]

Corruption = Callable[[Tensor, torch.Generator], camera.Corrupted]
"""Takes a clean batch and the only source of randomness, returns the training pairs."""

HIGHEST = 50.0
"""Highest sigma of training, in grey levels."""
FIXED_SIDE = 96
"""Side in pixels of the paper's pattern."""


@dataclass(frozen=True)
class Fresh:
    """Parameters of ``fresh`` noise in training.

    Parameters
    ----------
    highest : float
        Sigma is uniform in 0 to this, in grey levels.
    clean : float
        Share of images that stay exactly as they are.
    varying : float
        Share of images whose sigma varies over the image.
    peak : float
        The second value of a varying sigma is uniform in 0 to this. It is above `highest`, because the remaining noise
        doubled over the last ten grey levels when the strongest noise to remove was the strongest in training.
    """

    highest: float = HIGHEST
    clean: float = 0.04
    varying: float = 0.2
    peak: float = 75.0


def fresh(clean: Tensor, generator: torch.Generator, amount: Fresh | None = None) -> tuple[Tensor, Tensor]:
    """Corrupt a batch for training.

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
    other = torch.rand(count, generator=generator) * amount.peak
    for index in torch.nonzero(varies).flatten().tolist():
        share = varying_share(height, width, generator)
        sigma[index, 0] = level[index] + (other[index] - level[index]) * share
    noisy = clean + sigma / 255.0 * torch.randn(clean.shape, generator=generator)
    # The noisy image is rounded to steps of 1/255 like a camera's. Pixels with sigma 0 must stay unchanged.
    noisy = torch.where(sigma > 0, (noisy.clamp(0.0, 1.0) * 255.0).round() / 255.0, clean)
    return noisy, sigma.square().mean(dim=(1, 2, 3)).sqrt()


def corrupt(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add fresh noise of one strength to an image, as the evaluation does; sigma 0 returns it unchanged."""
    noisy = image + sigma * rng.standard_normal(image.shape)
    return np.asarray(np.rint(np.clip(noisy, 0, 255)), dtype=np.uint8)


@cache
def fixed_pattern() -> npt.NDArray[np.float64]:
    """Return the paper's one pattern, (96, 96, 3) float64 of unit strength; do not write to it."""
    pattern = np.random.RandomState(0).normal(0.0, 1.0, (FIXED_SIDE, FIXED_SIDE, 3))
    pattern.flags.writeable = False
    return pattern


def corrupt_fixed(image: Image, sigma: float) -> Image:
    """Add the paper's pattern to a 96 x 96 image; fractions are truncated as in the authors' pairs.

    Raises
    ------
    ValueError
        For another size than that of the pattern.
    """
    if image.shape != (FIXED_SIDE, FIXED_SIDE, 3):
        raise ValueError(f"the fixed map is 96 x 96 RGB, the image is {image.shape}")
    return np.asarray(np.clip(image + sigma * fixed_pattern(), 0, 255), dtype=np.uint8)


def fixed_map(clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Corrupt a batch as the paper does: one of 51 whole sigmas per image, the same pattern for all.

    Returns as :func:`fresh`; images are 96 x 96.
    """
    sigma = torch.randint(0, int(HIGHEST) + 1, (clean.shape[0],), generator=generator).float()
    pattern = torch.from_numpy(fixed_pattern().astype(np.float32)).permute(2, 0, 1)[None]
    noisy = clean * 255.0 + sigma[:, None, None, None] * pattern
    # The small offset prevents rounding errors from truncating clean values, which are integers, to the next lower one.
    return (noisy.clamp(0.0, 255.0) + 1e-3).floor() / 255.0, sigma


@dataclass(frozen=True)
class Scanner:
    """Parameters of ``scanner`` noise in training.

    Parameters
    ----------
    fresh : Fresh
        Strengths, and the share of clean images.
    white : float
        Share of images with ``fresh`` noise; the others have sensor noise.
    mosaic : float
        Share of images with a colour mosaic among those with sensor noise.
    compressed : float
        Share of noisy images with JPEG compression.
    lowest, highest : int
        Range of the JPEG quality, inclusive.
    """

    fresh: Fresh = Fresh(clean=0.12)
    white: float = 0.5
    mosaic: float = 0.7
    compressed: float = 0.8
    lowest: int = 30
    highest: int = 95


def scanner(clean: Tensor, generator: torch.Generator, amount: Scanner | None = None) -> tuple[Tensor, Tensor]:
    """Corrupt a batch with the noise and JPEG compression of scanners.

    Returns as :func:`fresh`. For an image with JPEG, sigma is the root mean square of the whole change.
    """
    amount = amount or Scanner()
    noisy, sigma = fresh(clean, generator, amount.fresh)
    count = clean.shape[0]
    white, mosaic, compressed = torch.rand(3, count, generator=generator)
    sensed = (white >= amount.white) & (sigma > 0)
    if bool(sensed.any()):
        noisy[sensed] = sensor(clean[sensed], sigma[sensed], mosaic[sensed] < amount.mosaic, generator)
    quality = torch.randint(amount.lowest, amount.highest + 1, (count,), generator=generator).tolist()
    sampling = torch.randint(len(SAMPLINGS), (count,), generator=generator).tolist()
    phase = torch.randint(16, (count, 2), generator=generator).tolist()
    for index in torch.nonzero((compressed < amount.compressed) & (sigma > 0)).flatten().tolist():
        image = (noisy[index] * 255.0).round().to(torch.uint8).permute(1, 2, 0).numpy()
        top, left = phase[index]
        found = jpeg(image, quality[index], SAMPLINGS[sampling[index]], (top, left))
        noisy[index] = torch.from_numpy(found).permute(2, 0, 1).float() / 255.0
        sigma[index] = 255.0 * (noisy[index] - clean[index]).square().mean().sqrt()
    return noisy, sigma


def _truthful(corrupt_batch: Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]) -> Corruption:
    """Return a corruption whose truth is the clean batch."""

    def corruption(clean: Tensor, generator: torch.Generator) -> camera.Corrupted:
        noisy, sigma = corrupt_batch(clean, generator)
        return camera.Corrupted(noisy, clean, sigma)

    return corruption


CORRUPT: dict[Protocol, Corruption] = {
    "fresh": _truthful(fresh),
    "fixed-map": _truthful(fixed_map),
    "scanner": _truthful(scanner),
    "camera": camera.camera,
}
"""Training corruption by protocol."""
