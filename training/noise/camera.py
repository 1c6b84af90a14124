"""The training corruption ``camera``: what scanners and their compression do to an image, drawn again for every crop.

Of each batch a share (15 %) stays exactly clean, to within one crop. Half of these crops are drawn from the finest
third of the batch (:func:`fineness`), so that texture is not taken for noise. A share of them went through compression,
and the compressed crop is then the truth, as on a clean slide.

Every other crop takes these steps:

1. Noise of strength sigma, in grey levels: uniform in 0 to 50 for white noise, ``50 u^1.5`` with u uniform in 0 to 1
   for the rest. In a fifth of the white and correlated crops sigma varies over the crop (:func:`fields.strength_maps`).
   Kinds:

   ``white``
       ``y = x + sigma e``.
   ``correlated``
       ``y = x + sigma d A (e * k)``: A mixes the channels in 70 % (:func:`fields.mixing_matrices`); k is a Gaussian of
       0.3 to 1 px (45 %), a resampling of a grid coarser or finer by 0.5 to 1 (20 %), or nothing; d is a strength for
       each channel in a third of the crops.
   ``sensor``
       Shot and read noise in linear light (:mod:`sensor`): three chips (30 %), a mosaic that acts on the noise alone
       with one of the linear demosaicking methods (25 %), or a mosaic that the whole image passes with any (45 %).
   ``defects``
       Stripes, or salt and pepper up to 2 %, without other noise.
2. In 8 % of the crops stripes of up to 15 grey levels, in 6 % salt and pepper up to 2 %, on top. A tenth of the crops
   of whole mosaics have hot pixels, up to 0.5 % of the values.
3. Rounding to 8 bits.
4. In 60 % compression (:mod:`codecs`) at any phase of its grid: JPEG of quality 40 to 98, chroma 4:2:0 (half), 4:2:2
   or 4:4:4 (a quarter each); or in 12 % of these JPEG 2000 of 30 to 46 dB. It is 45 % of the white crops and 70 % of
   the others, so that noise which is white to the end is not rare.

The truth of a noisy crop is x. All of it is a function of the generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from training.noise import codecs, defects, fields, mosaic, sensor


class Corrupted(NamedTuple):
    """A batch of training pairs.

    Parameters
    ----------
    noisy, truth : Tensor
        (batch, 3, height, width) in [0, 1], every value a multiple of 1/255.
    sigma : Tensor
        (batch,) root mean square of their difference in grey levels.
    """

    noisy: Tensor
    truth: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class Camera:
    """How much of each kind ``camera`` draws.

    Parameters
    ----------
    highest : float
        Highest sigma, in grey levels.
    clean : float
        Share of crops that stay exactly clean.
    clean_compressed : float
        Share of the clean crops that went through compression; the truth did too.
    white, correlated, sensor : float
        Shares of the kinds of noise among noisy crops; the remainder has defects alone.
    varying : float
        Share of noisy crops whose strength varies.
    stripes, impulses : float
        Share of noisy crops with stripes, and with salt and pepper, besides other noise.
    compressed, compressed_white : float
        Share of noisy crops that are compressed: of those without white noise, and of those with it.
    jpeg2000 : float
        Share of JPEG 2000 among these.
    """

    highest: float = 50.0
    clean: float = 0.15
    clean_compressed: float = 0.4
    white: float = 0.40
    correlated: float = 0.29
    sensor: float = 0.25
    varying: float = 0.2
    stripes: float = 0.08
    impulses: float = 0.06
    compressed: float = 0.7
    compressed_white: float = 0.45
    jpeg2000: float = 0.12


QUALITY = (40, 98)
"""Lowest and highest JPEG quality."""
LEVEL = (30.0, 46.0)
"""Lowest and highest quality of JPEG 2000, in dB."""
STRIPES = 15.0
"""Highest root mean square of stripes, in grey levels."""
IMPULSES = 0.02
"""Highest share of salt and pepper."""


def camera(clean: Tensor, generator: torch.Generator, amount: Camera | None = None) -> Corrupted:
    """Corrupt a batch for training, whose values are multiples of 1/255."""
    amount = amount or Camera()
    truth = clean.clone()
    noisy = clean.clone()
    untouched = clean_ones(clean, generator, amount.clean)
    chosen = untouched & (torch.rand(len(clean), generator=generator) < amount.clean_compressed)
    noisy[chosen] = truth[chosen] = compressed(clean[chosen], generator, amount.jpeg2000)
    rest = ~untouched
    if bool(rest.any()):
        noisy[rest] = _photographed(clean[rest], generator, amount)
    sigma = 255.0 * (noisy - truth).square().mean(dim=(1, 2, 3)).sqrt()
    return Corrupted(noisy, truth, sigma)


def clean_ones(clean: Tensor, generator: torch.Generator, share: float) -> Tensor:
    """Choose the crops that stay clean: half of them among the finest third, half among all others.

    Returns
    -------
    Tensor
        (batch,) bool. The number of chosen crops is the share of the batch, rounded up or down at random so that its
        mean is exact.
    """
    count = len(clean)
    wanted = int(count * share + float(torch.rand((), generator=generator)))
    order = fineness(clean).argsort(descending=True)
    finest = order[: -(-count // 3)]
    fine = finest[torch.randperm(len(finest), generator=generator)[: -(-wanted // 2)]]
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[fine] = True
    others = torch.nonzero(~chosen).flatten()
    chosen[others[torch.randperm(len(others), generator=generator)[: wanted - len(fine)]]] = True
    return chosen


def fineness(images: Tensor) -> Tensor:
    """Return the mean absolute Laplacian of each crop's green channel, (batch,)."""
    green = images[:, 1]
    around = green[:, :-2, 1:-1] + green[:, 2:, 1:-1] + green[:, 1:-1, :-2] + green[:, 1:-1, 2:]
    return (4.0 * green[:, 1:-1, 1:-1] - around).abs().mean(dim=(1, 2))


def _photographed(clean: Tensor, generator: torch.Generator, amount: Camera) -> Tensor:
    count = len(clean)
    drawn = torch.rand(count, generator=generator)
    white = drawn < amount.white
    correlated = ~white & (drawn < amount.white + amount.correlated)
    sensed = ~white & ~correlated & (drawn < amount.white + amount.correlated + amount.sensor)
    alone = ~white & ~correlated & ~sensed
    uniform = torch.rand(count, generator=generator)
    sigma = amount.highest * torch.where(white, uniform, uniform**1.5)
    noisy = clean.clone()
    if bool(white.any()):
        field = torch.randn(clean[white].shape, generator=generator)
        noisy[white] += _strength(sigma[white], clean, generator, amount.varying) * field
    if bool(correlated.any()):
        field = correlated_field(clean[correlated].shape, generator)
        noisy[correlated] += _strength(sigma[correlated], clean, generator, amount.varying) * field
    if bool(sensed.any()):
        noisy[sensed] = _sensed(clean[sensed], sigma[sensed], generator)
    noisy = _with_defects(noisy, alone, generator, amount)
    noisy = (noisy.clamp(0.0, 1.0) * 255.0).round() / 255.0
    share = torch.where(white, amount.compressed_white, amount.compressed)
    chosen = torch.rand(count, generator=generator) < share
    noisy[chosen] = compressed(noisy[chosen], generator, amount.jpeg2000)
    return noisy


def _strength(sigma: Tensor, clean: Tensor, generator: torch.Generator, varying: float) -> Tensor:
    return fields.strength_maps(sigma, clean.shape[2], clean.shape[3], generator, varying=varying) / 255.0


def correlated_field(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw noise that is correlated between channels, between neighbours, or both.

    Returns
    -------
    Tensor
        `shape`, (batch, 3, height, width), of unit variance in the mean over channels.
    """
    count, _, height, width = shape
    reach = fields.REACH
    field = torch.randn((count, 3, height + 2 * reach, width + 2 * reach), generator=generator)
    how = torch.rand(count, generator=generator)
    spread = 0.3 + 0.7 * torch.rand(count, generator=generator)
    blurred, resampled = how < 0.45, (how >= 0.45) & (how < 0.65)
    found = field[:, :, reach:-reach, reach:-reach].clone()
    found[blurred] = fields.softened(field[blurred], spread[blurred])
    for index in torch.nonzero(resampled).flatten().tolist():
        scale = 0.5 + 0.5 * float(torch.rand((), generator=generator))
        finer = float(torch.rand((), generator=generator)) < 0.5
        found[index] = fields.rescaled(height, width, 1.0 / scale if finer else scale, generator)
    mixes = torch.rand(count, generator=generator) < 0.7
    # Noise of which neither holds would be white.
    mixes |= ~blurred & ~resampled
    found[mixes] = fields.mixed(found[mixes], fields.mixing_matrices(int(mixes.sum()), generator))
    gains = torch.exp(0.3 * torch.randn((count, 3, 1, 1), generator=generator))
    gains = gains / gains.square().mean(dim=1, keepdim=True).sqrt()
    uneven = torch.rand((count, 1, 1, 1), generator=generator) < 1.0 / 3.0
    return found * torch.where(uneven, gains, torch.ones(()))


def _sensed(clean: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """Add shot and read noise, of three chips or through a mosaic."""
    count = len(clean)
    how = torch.rand(count, generator=generator)
    whole = how >= 0.55
    noisy = torch.empty_like(clean)
    apart = ~whole
    if bool(apart.any()):
        light = sensor.to_linear(clean[apart])
        noise = sensor.shot_and_read(light, generator)
        through = how[apart] >= 0.30
        phase = torch.randint(2, (len(noise), 2), generator=generator)
        which = torch.randint(len(mosaic.LINEAR), (len(noise),), generator=generator)
        for number, method in enumerate(mosaic.LINEAR):
            chosen = through & (which == number)
            if bool(chosen.any()):
                noise[chosen] = mosaic.demosaicked(noise[chosen], phase[chosen], method)
        noise = sensor.scaled(noise, clean[apart], sigma[apart])
        noisy[apart] = sensor.to_srgb((light + noise).clamp(0.0, 1.0))
    if bool(whole.any()):
        share = 0.005 * torch.rand(int(whole.sum()), generator=generator)
        share[torch.rand(len(share), generator=generator) >= 0.1] = 0.0
        hot = defects.hot_pixels(tuple(clean[whole].shape), share, generator)
        noisy[whole] = sensor.through_mosaic(clean[whole], sigma[whole], hot, generator)
    return noisy


def _with_defects(noisy: Tensor, alone: Tensor, generator: torch.Generator, amount: Camera) -> Tensor:
    """Add stripes, and salt and pepper; crops with nothing else (`alone`) get one of the two."""
    count, _, height, width = noisy.shape
    drawn, kind = torch.rand((2, count), generator=generator)
    striped = torch.where(alone, kind < 0.5, drawn < amount.stripes)
    speckled = torch.where(alone, kind >= 0.5, kind < amount.impulses)
    if bool(striped.any()):
        field = defects.stripes(int(striped.sum()), height, width, generator)
        strength = STRIPES / 255.0 * torch.rand((len(field), 1, 1, 1), generator=generator)
        noisy[striped] += strength * field
    if bool(speckled.any()):
        share = IMPULSES * torch.rand(int(speckled.sum()), generator=generator)
        noisy[speckled] = defects.salt_and_pepper(noisy[speckled], share, generator)
    return noisy


def compressed(images: Tensor, generator: torch.Generator, jpeg2000: float) -> Tensor:
    """Write crops, multiples of 1/255, as JPEG or a share of them as JPEG 2000, and read them again."""
    count = len(images)
    other, level, sampling = torch.rand((3, count), generator=generator).tolist()
    quality = torch.randint(QUALITY[0], QUALITY[1] + 1, (count,), generator=generator).tolist()
    phase = torch.randint(16, (count, 2), generator=generator).tolist()
    pixels = (images * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    found = torch.empty_like(images)
    for index in range(count):
        at = (phase[index][0], phase[index][1])
        if other[index] < jpeg2000:
            image = codecs.jpeg2000(pixels[index], LEVEL[0] + (LEVEL[1] - LEVEL[0]) * level[index], at)
        else:
            chroma: codecs.Sampling = "4:2:0" if sampling[index] < 0.5 else codecs.SAMPLINGS[sampling[index] < 0.75]
            image = codecs.jpeg(pixels[index], quality[index], chroma, at)
        found[index] = torch.from_numpy(image).permute(2, 0, 1).float() / 255.0
    return found
