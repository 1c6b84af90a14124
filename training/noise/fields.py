"""Noise fields of zero mean and unit variance, and maps of their strength.

White noise ``e`` is standard normal and independent between pixels and channels. Two linear models correlate it:

- between channels, ``n = A e`` with a 3 x 3 matrix A whose rows have unit length. The correlation of channels i and j
  is the product of rows i and j (:func:`mixing_matrices`);
- between neighbours, ``n = e * k`` with a Gaussian k whose squares sum to one (:func:`softened`), or interpolation of a
  coarser or finer grid (:func:`rescaled`), as a scanner's own resampling does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

REACH = 4
"""Radius in pixels of the Gaussian kernel, four times the largest spread."""


def mixing_matrices(count: int, generator: torch.Generator, *, luminance: float = 0.25) -> Tensor:
    """Draw matrices between independent channels (the identity) and pure luminance (three equal rows).

    ``A = (1 - t) I + t 1 g' + 0.3 t (1 - t) G``, rows scaled to unit length; t is uniform in [0, 1], g a unit vector of
    absolute normal values, G standard normal.

    Parameters
    ----------
    luminance : float
        Share with t = 1: all channels carry the same noise.

    Returns
    -------
    Tensor
        (count, 3, 3) float32.
    """
    share = torch.rand((count, 1, 1), generator=generator)
    share[torch.rand(count, generator=generator) < luminance] = 1.0
    common = torch.randn((count, 1, 3), generator=generator).abs() + 1e-3
    common = common / common.norm(dim=2, keepdim=True)
    free = 0.3 * share * (1.0 - share) * torch.randn((count, 3, 3), generator=generator)
    matrix = (1.0 - share) * torch.eye(3) + share * common + free
    return matrix / matrix.norm(dim=2, keepdim=True)


def mixed(field: Tensor, matrices: Tensor) -> Tensor:
    """Multiply the three channels of each pixel by the matrix of its crop, (batch, 3, 3)."""
    return torch.einsum("nij,njhw->nihw", matrices, field)


def softened(field: Tensor, spread: Tensor) -> Tensor:
    """Blur each crop by a Gaussian and keep the variance of white noise.

    Parameters
    ----------
    field : Tensor
        (batch, 3, height + 2 REACH, width + 2 REACH).
    spread : Tensor
        (batch,) standard deviation of the Gaussian in pixels, above 0 and at most 1.
    """
    distance = torch.arange(-REACH, REACH + 1, dtype=torch.float32)
    taps = torch.exp(-distance.square()[None] / (2.0 * spread.square()[:, None]))
    taps = taps / taps.square().sum(dim=1, keepdim=True).sqrt()
    for axis in (2, 3):
        length = field.shape[axis] - 2 * REACH
        weights = taps[:, :, None, None, None]
        field = sum(weights[:, k] * field.narrow(axis, k, length) for k in range(2 * REACH + 1))  # type: ignore[assignment]
    return field


def rescaled(height: int, width: int, scale: float, generator: torch.Generator) -> Tensor:
    """Draw white noise on another grid and resample it, as an image that was resized carries it.

    Parameters
    ----------
    scale : float
        Above 1: the noise was drawn on a grid finer by this factor and reduced. Below 1: drawn on a coarser grid and
        enlarged.

    Returns
    -------
    Tensor
        (3, height, width), scaled to a root mean square of one.
    """
    grid = (max(4, math.ceil(height * scale)), max(4, math.ceil(width * scale)))
    drawn = torch.randn((1, 3, *grid), generator=generator)
    mode = "bicubic" if float(torch.rand((), generator=generator)) < 0.5 else "bilinear"
    found = functional.interpolate(drawn, size=(height, width), mode=mode, antialias=scale > 1.0, align_corners=False)
    return found[0] / found.square().mean().sqrt()


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


def strength_maps(level: Tensor, height: int, width: int, generator: torch.Generator, *, varying: float) -> Tensor:
    """Return the strength of the noise at every pixel.

    Parameters
    ----------
    level : Tensor
        (batch,) in grey levels.
    varying : float
        Share of crops whose strength runs between `level` and one uniform in 0 to 1.5 `level`
        (:func:`varying_share`); it is constant in the others.

    Returns
    -------
    Tensor
        (batch, 1, height, width) in grey levels.
    """
    count = len(level)
    maps = level[:, None, None, None].expand(count, 1, height, width).clone()
    chosen = torch.rand(count, generator=generator) < varying
    other = 1.5 * torch.rand(count, generator=generator) * level
    for index in torch.nonzero(chosen).flatten().tolist():
        share = varying_share(height, width, generator)
        maps[index, 0] = level[index] + (other[index] - level[index]) * share
    return maps
