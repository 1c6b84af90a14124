"""The loss of a training run."""

from __future__ import annotations

import torch
from torch import Tensor


def loss_of(output: Tensor, clean: Tensor, sigma: Tensor, polish: float) -> Tensor:
    """Return the loss of a batch.

    Parameters
    ----------
    output, clean : Tensor
        (batch, 3, height, width) in [0, 1].
    sigma : Tensor
        (batch,) in grey levels.
    polish : float
        0: mean absolute error, each image weighted by 30 / (sigma + 10), so that weak noise, whose errors are small,
        counts as much as strong noise. 1: mean over the images of log(mean square error + one grey level squared),
        scaled to the same size. Between: a weighted mean of both.

    Notes
    -----
    For a black or white truth, values beyond black or white are not errors, because the output is clamped in use.

    In an image without structure (:func:`is_smooth`) the square root of the mean fourth power replaces the mean square.
    A few pixels with large errors, which look like structure, then count more than many small errors.
    """
    error = output - clean
    beyond = ((clean >= 1.0) & (error > 0.0)) | ((clean <= 0.0) & (error < 0.0))
    error = error.masked_fill(beyond, 0.0)
    weight = 30.0 / (sigma + 10.0)
    absolute = (error.abs().mean(dim=(1, 2, 3)) * weight).mean()
    if polish <= 0:
        return absolute
    square = error.square()
    fourth = (square.square().mean(dim=(1, 2, 3)) + 1e-12).sqrt()
    square = torch.where(is_smooth(clean), fourth, square.mean(dim=(1, 2, 3)))
    logarithm = 0.01 * torch.log(square + (1.0 / 255.0) ** 2).mean()
    return (1.0 - polish) * absolute + polish * logarithm


def is_smooth(clean: Tensor) -> Tensor:
    """Return for each image whether all neighbours differ by at most two grey levels: flat fields and soft ramps.

    Parameters
    ----------
    clean : Tensor
        (batch, 3, height, width) in [0, 1].
    """
    steps = [clean.diff(dim=axis).abs().amax(dim=(1, 2, 3)) for axis in (2, 3)]
    return torch.maximum(*steps) < 2.5 / 255.0
