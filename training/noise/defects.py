"""Defects that are not Gaussian: stripes of line sensors, salt and pepper, hot pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def stripes(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw the fixed pattern of line sensors: an offset for each row or column.

    ``s(row, column, c) = g(c) r(row)`` or ``g(c) r(column)``: r is standard normal, repeated over 1 to 4 lines; g is
    one for all channels in half of the crops and standard normal for each in the others.

    Returns
    -------
    Tensor
        (count, 3, height, width), scaled to a root mean square of one.
    """
    fields = []
    for _ in range(count):
        down, together, thick = torch.rand(3, generator=generator).tolist()
        length, repeat = (height if down < 0.5 else width), 1 + int(4.0 * thick**3)
        lines = torch.randn(-(-length // repeat), generator=generator).repeat_interleave(repeat)[:length]
        gains = torch.ones(3) if together < 0.5 else torch.randn(3, generator=generator)
        field = gains[:, None, None] * (lines[None, :, None] if down < 0.5 else lines[None, None, :])
        field = field.expand(3, height, width)
        fields.append(field / field.square().mean().sqrt().clamp(min=1e-6))
    return torch.stack(fields)


def salt_and_pepper(images: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
    """Set a share of the pixels to black or white, equally often.

    In half of the crops a pixel changes in all channels at once, in the others each channel has pixels of its own.
    `share` is the probability that a value changes.
    """
    together = torch.rand((len(images), 1, 1, 1), generator=generator) < 0.5
    drawn = torch.rand(images.shape, generator=generator)
    drawn = torch.where(together, drawn[:, :1], drawn)
    limit = share[:, None, None, None]
    return torch.where(drawn < limit, torch.where(drawn < limit / 2.0, 0.0, 1.0), images)


def hot_pixels(shape: tuple[int, ...], share: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the signal that hot pixels add to a share of the values: positive, exponential, with a mean of 0.4."""
    hot = torch.rand(shape, generator=generator) < share[:, None, None, None]
    height = -0.4 * torch.log(torch.rand(shape, generator=generator).clamp(min=1e-6))
    return torch.where(hot, height, 0.0)
