"""A network made wider that gives the same output, as a start for training it on.

Net2WiderNet (Chen, Goodfellow and Shlens, ICLR 2016): each channel stands twice, and what read it reads a share of each
copy. The shares are drawn, so that the two copies do not stay alike.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_PARTS: Mapping[str, tuple[int, ...]] = {"r": (1, 2, 1)}
"""Layers that read several others side by side: how many times the filters each of them has, in order."""


def widened(weights: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return the weights of an IRUNet with twice as many filters and the same output.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Of an :class:`wsi_denoise.network.irunet.IRUNet`: per layer a weight, (out, in, height, width), or (in, out,
        height, width) for the transposed ones, and a bias, (out,).
    seed : int
        Draws the shares, uniform in 0.3 to 0.7.
    """
    rng = np.random.default_rng([seed, 2])
    filters = weights["head.bias"].numel()
    return {name: _layer(name, value, filters, rng) for name, value in weights.items()}


def _layer(name: str, value: Tensor, filters: int, rng: np.random.Generator) -> Tensor:
    layer, kind = name.rsplit(".", 1)
    if kind == "bias":
        return value.clone() if layer == "tail" else torch.cat([value, value])
    transposed = layer.startswith("up")
    reads, gives = (0, 1) if transposed else (1, 0)
    if layer != "tail":
        value = torch.cat([value, value], dim=gives)
    if layer == "head":
        return value
    # Each block of the channels that are read stands twice, one copy after the other within its block.
    blocks = []
    sizes = [filters * times for times in _PARTS.get(layer.rsplit(".", 1)[-1], (1,))]
    for block in torch.split(value, sizes, dim=reads):
        share = torch.from_numpy(rng.uniform(0.3, 0.7, tuple(block.shape[:2]))).to(block)[:, :, None, None]
        blocks += [block * share, block * (1.0 - share)]
    return torch.cat(blocks, dim=reads).contiguous()
