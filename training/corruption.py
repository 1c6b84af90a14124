"""Noise, by protocol.

``fresh``
    ``y = round(clip(x + sigma * n, 0, 255))`` with n standard normal, drawn anew for every pixel, channel and image.
    In training sigma is uniform in 0 to 50 per image, a share of the images stays exactly clean, and in a share sigma
    varies over the image (a ramp, stripes, blobs), between that and one uniform in 0 to 75.
``fixed-map``
    ``y = floor(clip(x + sigma * m, 0, 255))`` with one m for everything: the 96 x 96 x 3 pattern that NumPy's legacy
    generator gives with seed 0. This is what the paper's script does to training and test images alike; a network
    learns the pattern instead of denoising. Kept to reproduce the paper's table.
``scanner``
    ``y = J(round(255 clip(z, 0, 1)))``, for slides whose noise went through a camera and JPEG. Half of the images get
    ``fresh`` noise, so that ``z = x + sigma n / 255``. In the others noise is added in linear light,
    ``z = g(f(x) + k D sqrt(p f(x) + (1 - p) / 4) n)``: f takes sRGB to linear light and g back; p, the share of shot
    noise, is uniform in [0, 1]; D is, for 70 % of these, a colour mosaic (RGGB, any phase) and its demosaicking by the
    linear filters of Malvar, He and Cutler (ICASSP 2004), which correlates neighbours and channels, and otherwise
    nothing; k makes the root mean square of the noise sigma grey levels, to first order. J is JPEG, on 80 % of the
    noisy images: quality uniform in 30 to 95, chroma 4:4:4, 4:2:2 or 4:2:0 equally often, its grid at any phase of
    16 x 16. Clean images stay clean; the truth is x.

Torch functions take and give (batch, 3, height, width) float32 in [0, 1]; NumPy functions take and give
(height, width, 3) uint8. Sigma is in grey levels of 255 everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

Image = npt.NDArray[np.uint8]
Protocol = Literal["fresh", "fixed-map", "scanner"]
Sampling = Literal["4:4:4", "4:2:2", "4:2:0"]
SAMPLINGS: tuple[Sampling, ...] = ("4:4:4", "4:2:2", "4:2:0")

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
    peak : float
        The other end of a varying sigma is uniform in 0 to this. Beyond `highest`, so that the strongest noise that
        has to be removed is not the strongest ever seen: what was left of it doubled over the last ten grey levels.
    """

    highest: float = HIGHEST
    clean: float = 0.04
    varying: float = 0.2
    peak: float = 75.0


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
    other = torch.rand(count, generator=generator) * amount.peak
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


@dataclass(frozen=True)
class Scanner:
    """How much noise ``scanner`` draws in training.

    Parameters
    ----------
    fresh : Fresh
        Strengths, and the share of clean images.
    white : float
        Share of images whose noise is that of ``fresh``; the others' is a sensor's.
    mosaic : float
        Share of the sensor's images that come from a colour mosaic.
    compressed : float
        Share of noisy images that go through JPEG.
    lowest, highest : int
        JPEG quality, both included.
    """

    fresh: Fresh = Fresh(clean=0.12)
    white: float = 0.5
    mosaic: float = 0.7
    compressed: float = 0.8
    lowest: int = 30
    highest: int = 95


def scanner(clean: Tensor, generator: torch.Generator, amount: Scanner | None = None) -> tuple[Tensor, Tensor]:
    """Corrupt a batch as scanners and their JPEG do.

    Parameters and returns are those of :func:`fresh`; where an image went through JPEG, sigma is the root mean square
    of all that was done to it.
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


def sensor(clean: Tensor, sigma: Tensor, mosaic: Tensor, generator: torch.Generator) -> Tensor:
    """Add a sensor's noise in linear light.

    Parameters
    ----------
    clean : Tensor
        (batch, 3, height, width) in [0, 1], sRGB.
    sigma : Tensor
        (batch,) root mean square of the noise in grey levels of sRGB, to first order and before clipping.
    mosaic : Tensor
        (batch,) bool: which images come from a colour mosaic.

    Returns
    -------
    Tensor
        Same shape, every value a multiple of 1/255.
    """
    count = clean.shape[0]
    light = to_linear(clean)
    shot = torch.rand((count, 1, 1, 1), generator=generator)
    noise = torch.randn(clean.shape, generator=generator) * (shot * light + (1.0 - shot) / 4.0).sqrt()
    for index in torch.nonzero(mosaic).flatten().tolist():
        row, column = torch.randint(2, (2,), generator=generator).tolist()
        noise[index] = demosaicked(noise[index], (row, column))
    # The slope of g, so that the strength is one of grey levels as they are stored.
    slope = 1.0 / torch.where(clean <= 0.04045, torch.tensor(1 / 12.92), 2.4 / 1.055 * ((clean + 0.055) / 1.055) ** 1.4)
    strength = (slope * noise).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    noise = noise * (sigma[:, None, None, None] / 255.0 / strength.clamp(min=1e-9))
    return (to_srgb((light + noise).clamp(0.0, 1.0)) * 255.0).round() / 255.0


def to_linear(image: Tensor) -> Tensor:
    """Take sRGB values in [0, 1] to linear light."""
    return torch.where(image <= 0.04045, image / 12.92, ((image.clamp(min=0.0) + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Tensor) -> Tensor:
    """Take linear light in [0, 1] to sRGB values."""
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=1e-9) ** (1 / 2.4) - 0.055)


_GREEN = [[0, 0, -2, 0, 0], [0, 0, 4, 0, 0], [-2, 4, 8, 4, -2], [0, 0, 4, 0, 0], [0, 0, -2, 0, 0]]
_ALONG = [[0, 0, 1, 0, 0], [0, -2, 0, -2, 0], [-2, 8, 10, 8, -2], [0, -2, 0, -2, 0], [0, 0, 1, 0, 0]]
_ACROSS = [[0, 0, -3, 0, 0], [0, 4, 0, 4, 0], [-3, 0, 12, 0, -3], [0, 4, 0, 4, 0], [0, 0, -3, 0, 0]]
_FILTERS = torch.tensor([_GREEN, _ALONG, [list(line) for line in zip(*_ALONG, strict=True)], _ACROSS])[:, None] / 16.0


def demosaicked(image: Tensor, phase: tuple[int, int]) -> Tensor:
    """Keep one channel per pixel as a colour mosaic (RGGB) does, and interpolate the others (Malvar, He and Cutler).

    Parameters
    ----------
    image : Tensor
        (3, height, width) float32; may be noise alone, since all of it is linear.
    phase : (int, int)
        Row and column, 0 or 1, of the first red pixel.
    """
    _, height, width = image.shape
    row = ((torch.arange(height) + phase[0]) % 2)[:, None]
    column = ((torch.arange(width) + phase[1]) % 2)[None, :]
    red, blue = (row == 0) & (column == 0), (row == 1) & (column == 1)
    in_red_row = (row == 0) & (column == 1)
    kept = torch.where(red, image[0], torch.where(blue, image[2], image[1]))
    padded = functional.pad(kept[None, None], (2, 2, 2, 2), mode="reflect")
    green, along, across_rows, diagonal = functional.conv2d(padded, _FILTERS)[0]
    # At a green pixel red stands beside it in red rows and above it in blue ones; blue the other way round.
    red_there = torch.where(red, kept, torch.where(blue, diagonal, torch.where(in_red_row, along, across_rows)))
    blue_there = torch.where(blue, kept, torch.where(red, diagonal, torch.where(in_red_row, across_rows, along)))
    return torch.stack([red_there, torch.where(red | blue, green, kept), blue_there])


_FACTORS = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}


def jpeg(image: Image, quality: int, sampling: Sampling = "4:2:0", phase: tuple[int, int] = (0, 0)) -> Image:
    """Write an image as JPEG and read it again.

    Parameters
    ----------
    image : (height, width, 3) uint8
    quality : int
        Of libjpeg, 1 to 100.
    sampling : str
        Of the chroma.
    phase : (int, int)
        Rows and columns of mirrored pixels that stand before the image in the file, at most its size less one: they
        move the grid of blocks.

    Returns
    -------
    (height, width, 3) uint8
    """
    top, left = phase
    whole = np.pad(image, ((top, 0), (left, 0), (0, 0)), mode="reflect")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _FACTORS[sampling]]
    done, stream = cv2.imencode(".jpg", np.ascontiguousarray(whole[:, :, ::-1]), options)
    if not done:
        raise ValueError(f"an image of {image.shape} cannot be written as JPEG")
    found = cv2.imdecode(stream, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(found[top:, left:, ::-1], dtype=np.uint8)


CORRUPT = {"fresh": fresh, "fixed-map": fixed_map, "scanner": scanner}
"""The functions that corrupt a batch for training, by protocol."""
