"""Colour filter arrays: one channel per pixel (RGGB), and three ways to interpolate the other two.

``bilinear``
    The mean of the two or four nearest pixels of a channel.
``malvar``
    The linear 5 x 5 filters of Malvar, He and Cutler (ICASSP 2004).
``adaptive``
    Hamilton and Adams (US patent 5629734, 1997): green along the direction of the smaller gradient, corrected by the
    second difference of the channel that was sampled; then red and blue by bilinear interpolation of their difference
    to green. Not linear, so it takes the whole image, not its noise alone.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Method = Literal["bilinear", "malvar", "adaptive"]
METHODS: tuple[Method, ...] = ("bilinear", "malvar", "adaptive")
LINEAR: tuple[Method, ...] = ("bilinear", "malvar")

_REACH = 2


def _stack(green: list[list[int]], along: list[list[int]], diagonal: list[list[int]], whole: float) -> Tensor:
    across = [list(line) for line in zip(*along, strict=True)]
    return torch.tensor([green, along, across, diagonal])[:, None] / whole


# Filters by name: green at red and blue pixels, a channel beside a green pixel, above a green pixel, and diagonally.
_FILTERS: dict[str, Tensor] = {
    "malvar": _stack(
        [[0, 0, -2, 0, 0], [0, 0, 4, 0, 0], [-2, 4, 8, 4, -2], [0, 0, 4, 0, 0], [0, 0, -2, 0, 0]],
        [[0, 0, 1, 0, 0], [0, -2, 0, -2, 0], [-2, 8, 10, 8, -2], [0, -2, 0, -2, 0], [0, 0, 1, 0, 0]],
        [[0, 0, -3, 0, 0], [0, 4, 0, 4, 0], [-3, 0, 12, 0, -3], [0, 4, 0, 4, 0], [0, 0, -3, 0, 0]],
        16.0,
    ),
    "bilinear": _stack(
        [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 0, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]],
        [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 2, 0, 2, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
        [[0, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]],
        4.0,
    ),
}


def sites(height: int, width: int, phase: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return where a mosaic samples red, where blue, and which green pixels are in red rows.

    Parameters
    ----------
    phase : Tensor
        (batch, 2) row and column, 0 or 1, of the first red pixel.

    Returns
    -------
    red, blue, in_red_row : Tensor
        (batch, height, width) bool.
    """
    row = ((torch.arange(height)[None, :] + phase[:, :1]) % 2)[:, :, None]
    column = ((torch.arange(width)[None, :] + phase[:, 1:]) % 2)[:, None, :]
    return (row == 0) & (column == 0), (row == 1) & (column == 1), (row == 0) & (column == 1)


def sampled(images: Tensor, phase: Tensor) -> Tensor:
    """Keep one channel per pixel, (batch, height, width)."""
    red, blue, _ = sites(images.shape[2], images.shape[3], phase)
    return torch.where(red, images[:, 0], torch.where(blue, images[:, 2], images[:, 1]))


def demosaicked(images: Tensor, phase: Tensor, method: Method) -> Tensor:
    """Keep one channel per pixel and interpolate the others.

    Parameters
    ----------
    images : Tensor
        (batch, 3, height, width); for the methods in `LINEAR` this may be noise alone.
    phase : Tensor
        (batch, 2) row and column, 0 or 1, of the first red pixel.
    """
    height, width = images.shape[2:]
    kept = sampled(images, phase)
    # Mirroring without repeating the border pixel keeps the parity of rows and columns.
    padded = functional.pad(kept[:, None], (_REACH,) * 4, mode="reflect")
    red, blue, in_red_row = sites(height, width, phase)
    if method == "adaptive":
        return _adaptive(padded, red, blue)
    green, along, across, diagonal = functional.conv2d(padded, _FILTERS[method]).unbind(1)
    # Red is beside a green pixel in red rows and above it in blue rows; blue the other way round.
    red_there = torch.where(red, kept, torch.where(blue, diagonal, torch.where(in_red_row, along, across)))
    blue_there = torch.where(blue, kept, torch.where(red, diagonal, torch.where(in_red_row, across, along)))
    return torch.stack([red_there, torch.where(red | blue, green, kept), blue_there], dim=1)


def _adaptive(padded: Tensor, red: Tensor, blue: Tensor) -> Tensor:
    values = padded[:, 0]
    height, width = red.shape[1:]

    def at(rows: int, columns: int) -> Tensor:
        return values[:, _REACH + rows : _REACH + rows + height, _REACH + columns : _REACH + columns + width]

    centre = at(0, 0)
    second = [2.0 * centre - at(0, -2) - at(0, 2), 2.0 * centre - at(-2, 0) - at(2, 0)]
    pairs = [(at(0, -1), at(0, 1)), (at(-1, 0), at(1, 0))]
    gradients = [(a - b).abs() + each.abs() for (a, b), each in zip(pairs, second, strict=True)]
    guesses = [(a + b) / 2.0 + each / 4.0 for (a, b), each in zip(pairs, second, strict=True)]
    level = torch.where(
        gradients[0] < gradients[1],
        guesses[0],
        torch.where(gradients[0] > gradients[1], guesses[1], (guesses[0] + guesses[1]) / 2.0),
    )
    green = torch.where(red | blue, level, centre)
    differences = [_spread((centre - green) * where, where) for where in (red, blue)]
    return torch.stack([green + differences[0], green, green + differences[1]], dim=1)


_TENT = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])[None, None] / 4.0


def _spread(values: Tensor, where: Tensor) -> Tensor:
    """Interpolate a quarter of the pixels bilinearly to all; the weights are renormalised at the border."""
    weights = functional.conv2d(where[:, None].float(), _TENT, padding=1)
    return (functional.conv2d(values[:, None], _TENT, padding=1) / weights)[:, 0]
