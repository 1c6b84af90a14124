"""Shot and read noise of a sensor in linear light, with or without a colour mosaic.

``z = g(f(x) + k D n sqrt(p f(x) + (1 - p) / 4))``: f takes sRGB to linear light (IEC 61966-2-1) and g back; n is
standard normal; p, the share of shot noise, is uniform in [0, 1]; D is a colour mosaic and its demosaicking
(:mod:`training.noise.mosaic`), or nothing; k makes the root mean square of the noise sigma grey levels, to first order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.noise import mosaic


def to_linear(image: Tensor) -> Tensor:
    """Convert sRGB values in [0, 1] to linear light."""
    return torch.where(image <= 0.04045, image / 12.92, ((image.clamp(min=0.0) + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Tensor) -> Tensor:
    """Convert linear light in [0, 1] to sRGB values."""
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=1e-9) ** (1 / 2.4) - 0.055)


def slope(image: Tensor) -> Tensor:
    """Return the derivative of sRGB by linear light at sRGB values in [0, 1]."""
    return 1.0 / torch.where(image <= 0.04045, torch.tensor(1 / 12.92), 2.4 / 1.055 * ((image + 0.055) / 1.055) ** 1.4)


def shot_and_read(light: Tensor, generator: torch.Generator) -> Tensor:
    """Draw shot and read noise for an image in linear light, of no particular strength."""
    shot = torch.rand((light.shape[0], 1, 1, 1), generator=generator)
    return torch.randn(light.shape, generator=generator) * (shot * light + (1.0 - shot) / 4.0).sqrt()


def scaled(noise: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
    """Scale noise in linear light so that it is sigma grey levels in sRGB, (batch,), to first order."""
    strength = (slope(clean) * noise).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return noise * (sigma[:, None, None, None] / 255.0 / strength.clamp(min=1e-9))


def sensor(clean: Tensor, sigma: Tensor, with_mosaic: Tensor, generator: torch.Generator) -> Tensor:
    """Add a sensor's noise; a mosaic acts on the noise alone, by the filters of Malvar, He and Cutler.

    Parameters
    ----------
    sigma : Tensor
        (batch,) root mean square of the noise in grey levels of sRGB, to first order and before clipping.
    with_mosaic : Tensor
        (batch,) bool: which images come from a colour mosaic.
    """
    light = to_linear(clean)
    noise = shot_and_read(light, generator)
    for index in torch.nonzero(with_mosaic).flatten().tolist():
        phase = torch.randint(2, (1, 2), generator=generator)
        noise[index] = mosaic.demosaicked(noise[index : index + 1], phase, "malvar")[0]
    noise = scaled(noise, clean, sigma)
    return (to_srgb((light + noise).clamp(0.0, 1.0)) * 255.0).round() / 255.0


def through_mosaic(clean: Tensor, sigma: Tensor, hot: Tensor, generator: torch.Generator) -> Tensor:
    """Photograph crops through a colour mosaic: noise and hot pixels at the sampled pixels, then demosaicking.

    The whole image passes the mosaic, so that its aliasing is part of the result. Each method of
    :data:`training.noise.mosaic.METHODS` and each phase is drawn equally often; half of the crops are demosaicked in
    linear light, half in sRGB.

    Parameters
    ----------
    sigma : Tensor
        (batch,) root mean square of the noise before demosaicking, in grey levels of sRGB, to first order.
    hot : Tensor
        Same shape as `clean`, in linear light: what hot pixels add.
    """
    count = len(clean)
    light = to_linear(clean)
    noisy = (light + scaled(shot_and_read(light, generator), clean, sigma) + hot).clamp(0.0, 1.0)
    phase = torch.randint(2, (count, 2), generator=generator)
    which = torch.randint(len(mosaic.METHODS), (count,), generator=generator)
    in_light = torch.rand((count, 1, 1, 1), generator=generator) < 0.5
    before = torch.where(in_light, noisy, to_srgb(noisy))
    found = torch.empty_like(before)
    for number, method in enumerate(mosaic.METHODS):
        chosen = which == number
        if bool(chosen.any()):
            found[chosen] = mosaic.demosaicked(before[chosen], phase[chosen], method)
    found = found.clamp(0.0, 1.0)
    return torch.where(in_light, to_srgb(found), found)
