"""Synthetic textures, fine and periodic, in the colours of two random stains.

They are detail that a denoiser must not remove as noise.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def texture_crop(side: int, rng: np.random.Generator) -> Tensor:
    """Make a crop of one texture.

    A pattern t in [0, 1] (gratings, lattices of dots, weaves, or grains of one size, equally often) is the share of the
    first of two stains: ``x = w exp(-c (t d1 + (1 - t) d2))`` with d1, d2 random optical densities per channel, a
    contrast c and a white point w.

    Returns
    -------
    Tensor
        (3, side, side) float32 in [0, 1].
    """
    pattern = PATTERNS[int(rng.integers(len(PATTERNS)))](side, rng)
    low, high = float(pattern.min()), float(pattern.max())
    pattern = (pattern - low) / max(high - low, 1e-6)
    if rng.random() < 0.4:
        # Sharp borders, like those of stained granules.
        pattern = torch.sigmoid((pattern - float(rng.uniform(0.3, 0.7))) * float(rng.uniform(4.0, 16.0)))
    first = torch.from_numpy(rng.uniform(0.05, 1.2, 3)).float()[:, None, None]
    second = torch.from_numpy(rng.uniform(0.0, 0.5, 3)).float()[:, None, None]
    contrast = float(np.exp(rng.uniform(math.log(0.15), math.log(1.5))))
    density = second + contrast * pattern * (first - second)
    return (float(rng.uniform(0.85, 1.0)) * torch.exp(-density)).clamp(0.0, 1.0)


def grating(side: int, rng: np.random.Generator) -> Tensor:
    """Sum one to three waves of 2 to 10 px at any angle, (side, side)."""
    return sum((_wave(side, rng) for _ in range(int(rng.integers(1, 4)))), torch.zeros(side, side))


def _wave(side: int, rng: np.random.Generator) -> Tensor:
    rows, columns = _places(side)
    period, angle = float(rng.uniform(2.0, 10.0)), float(rng.uniform(0.0, math.pi))
    along = math.cos(angle) * columns + math.sin(angle) * rows
    return torch.sin(2.0 * math.pi * along / period + float(rng.uniform(0.0, 2.0 * math.pi)))


def dots(side: int, rng: np.random.Generator) -> Tensor:
    """Place round dots on a slightly rotated and distorted lattice of 3 to 9 px, (side, side)."""
    rows, columns = _places(side)
    period, angle = float(rng.uniform(3.0, 9.0)), float(rng.uniform(0.0, math.pi / 2.0))
    bend = _grains(side, 12.0, rng) * float(rng.uniform(0.0, 1.5))
    u = (math.cos(angle) * columns + math.sin(angle) * rows + bend) / period
    v = (math.cos(angle) * rows - math.sin(angle) * columns + bend) / period
    distance = (u - u.round()).square() + (v - v.round()).square()
    return torch.exp(-distance / (2.0 * float(rng.uniform(0.12, 0.3)) ** 2))


def weave(side: int, rng: np.random.Generator) -> Tensor:
    """Alternate whole blocks of 1 to 4 px, as a chequerboard or as lines, (side, side)."""
    rows, columns = _places(side)
    tall, wide = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    first, second = (rows // tall) % 2, (columns // wide) % 2
    return ((first + second) % 2) if rng.random() < 0.5 else first + 0.5 * second


def grains(side: int, rng: np.random.Generator) -> Tensor:
    """Draw grains of one size between 1 and 4 px, like chromatin, (side, side)."""
    return _grains(side, float(rng.uniform(1.0, 4.0)), rng)


def _grains(side: int, size: float, rng: np.random.Generator) -> Tensor:
    reach = math.ceil(3.0 * size)
    drawn = torch.from_numpy(rng.standard_normal((1, 1, side + 2 * reach, side + 2 * reach))).float()
    taps = torch.exp(-torch.arange(-reach, reach + 1, dtype=torch.float32).square() / (2.0 * size**2))
    found = functional.conv2d(functional.conv2d(drawn, taps[None, None, :, None]), taps[None, None, None, :])[0, 0]
    return found / found.std().clamp(min=1e-6)


def _places(side: int) -> tuple[Tensor, Tensor]:
    line = torch.arange(side, dtype=torch.float32)
    return line[:, None].expand(side, side), line[None, :].expand(side, side)


PATTERNS = (grating, dots, weave, grains)
