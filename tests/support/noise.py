"""Noise of the training corruption on plain grey."""

import numpy as np
import torch


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey(count: int, side: int = 64) -> torch.Tensor:
    """Make (count, 3, side, side) of the value 128."""
    return torch.full((count, 3, side, side), 128 / 255)


def noise_of(noisy: torch.Tensor) -> np.ndarray:
    """Return what was added to :func:`grey`, in grey levels."""
    return ((noisy - 128 / 255) * 255).numpy()
