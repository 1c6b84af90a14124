"""Widening of a network without a change of its output, to continue its training.

Net2WiderNet (Chen, Goodfellow and Shlens, ICLR 2016): channels are duplicated, and the layers that read a channel get a
share of each copy. The shares are random, so that the copies do not stay equal.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Channels = npt.NDArray[np.intp]

_READS: Mapping[str, tuple[int, ...]] = {"r": (1, 2, 1)}
"""Layers that read a concatenation: its parts in order, as multiples of the filters."""
_GIVES: Mapping[str, int] = {"b": 2}
"""Layers with more outputs than the filters, as multiples of them."""


def widened(weights: Mapping[str, Tensor], filters: int, seed: int) -> dict[str, Tensor]:
    """Return the weights of an IRUNet with more filters and the same output.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Weights of an :class:`wsi_denoise.network.irunet.IRUNet`: per layer a weight, (out, in, height, width), or (in,
        out, height, width) for the transposed ones, and a bias, (out,).
    filters : int
        At least the present number.
    seed : int
        Determines each copy's share, and the channels with one more copy if `filters` is not a multiple.

    Raises
    ------
    ValueError
        If `filters` is less than before.
    """
    before = weights["head.bias"].numel()
    if filters < before:
        raise ValueError(f"a network of {before} filters cannot be widened to {filters}")
    rng = np.random.default_rng([seed, 2])
    copies, rest = divmod(filters, before)
    # The outputs of all layers are added somewhere, so the same channels must be duplicated in all of them.
    of = np.concatenate([np.tile(np.arange(before), copies), rng.permutation(before)[:rest]])
    return {name: _layer(name, value, of, before, rng) for name, value in weights.items()}


def _layer(name: str, value: Tensor, of: Channels, before: int, rng: np.random.Generator) -> Tensor:
    layer, kind = name.rsplit(".", 1)
    last = layer.rsplit(".", 1)[-1]
    gives = np.concatenate([of + before * part for part in range(_GIVES.get(last, 1))])
    if kind == "bias":
        return value.clone() if layer == "tail" else value[gives].clone()
    transposed = layer.startswith("up")
    reading, giving = (0, 1) if transposed else (1, 0)
    if layer != "tail":
        value = value.index_select(giving, torch.from_numpy(gives))
    if layer == "head":
        return value.contiguous()
    blocks = []
    sizes = [before * times for times in _READS.get(last, (1,))]
    for block, times in zip(torch.split(value, sizes, dim=reading), _READS.get(last, (1,)), strict=True):
        reads = np.concatenate([of + before * part for part in range(times)])
        share = _shares(reads, block.shape[giving], rng)
        turned = share.T if reading == 0 else share
        blocks.append(block.index_select(reading, torch.from_numpy(reads)) * turned.to(block)[:, :, None, None])
    return torch.cat(blocks, dim=reading).contiguous()


def _shares(reads: Channels, given: int, rng: np.random.Generator) -> Tensor:
    """Draw the share of each copy, (given, copies), so that those of one channel add up to 1."""
    drawn = rng.uniform(0.3, 0.7, (given, len(reads)))
    total = np.zeros((given, reads.max() + 1))
    np.add.at(total, (slice(None), reads), drawn)
    return torch.from_numpy(drawn / total[:, reads])
