"""Crops of clean images for training, and their augmentation before noise is added.

All crops are rotated, flipped, rescaled and recoloured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.data import textures
from training.data.sources import Image, Source, load_all

FLAT_SHARE = 0.05
"""Share of synthetic crops: glass, constant colours and soft ramps, in which the network must not invent structure."""


class Bank:
    """All training images in memory, from which crops are drawn.

    Parameters
    ----------
    flat : float
        Share of synthetic flat crops.
    texture : float
        Share of synthetic textures (:mod:`training.data.textures`) among the others.

    Notes
    -----
    A draw depends only on its generator, so that a resumed run has the same crops.
    """

    def __init__(self, sources: Sequence[Source], *, flat: float = FLAT_SHARE, texture: float = 0.0) -> None:
        if not any(source.files for source in sources):
            raise FileNotFoundError("there is nothing to train on: no source has a file")
        self.sources = [source for source in sources if source.files]
        self.flat = flat
        self.texture = texture
        weights = np.array([source.weight for source in self.sources])
        self._shares = weights / weights.sum()
        read = cache(load_all)  # several sources have the same files
        self._images = [[image for path in source.files for image in read(path)] for source in self.sources]

    def draw(self, count: int, side: int, rng: np.random.Generator) -> Tensor:
        """Draw clean crops.

        Parameters
        ----------
        count, side : int
            Number of crops, and their width and height in pixels.

        Returns
        -------
        Tensor
            (count, 3, side, side) float32 in [0, 1], every value a multiple of 1/255.
        """
        crops = torch.empty(count, 3, side, side)
        recolour = np.zeros(count, dtype=bool)
        for index in range(count):
            if rng.random() < self.flat:
                crops[index] = flat_crop(side, rng)
                continue
            # Without textures no number is drawn, so that runs of older cards get the same crops as before.
            if self.texture and rng.random() < self.texture:
                crops[index] = textures.texture_crop(side, rng)
                continue
            which = int(rng.choice(len(self.sources), p=self._shares))
            source, images = self.sources[which], self._images[which]
            crops[index] = crop(images[int(rng.integers(len(images)))], side, source, rng)
            recolour[index] = rng.random() < source.recolour
        crops = turned(crops, rng)
        if recolour.any():
            chosen = torch.from_numpy(recolour)
            crops[chosen] = recoloured(crops[chosen], rng)
        return (crops.clamp_(0.0, 1.0) * 255.0).round_() / 255.0


def crop(image: Image, side: int, source: Source, rng: np.random.Generator) -> Tensor:
    """Cut one crop from an image and rescale it by its source's parameters.

    Returns
    -------
    Tensor
        (3, side, side) float32 in [0, 1].
    """
    shortest = min(image.shape[:2])
    if rng.random() < source.native and shortest >= side:
        return _cut(image, side, rng)
    low, high = np.log(source.scales)
    scale = float(np.exp(rng.uniform(low, high)))
    enlarge = float(rng.uniform(1.0, 3.0)) if rng.random() < source.again else 1.0
    middle = min(side, max(8, round(side / enlarge)))
    wanted = round(middle / scale)
    if wanted > shortest:
        # The image is too small for this scale: use all of it, and enlarge the crop to keep the source's maximum scale.
        wanted = shortest
        middle = min(middle, max(8, round(wanted * source.scales[1])))
    piece = resized(_cut(image, wanted, rng), middle, rng)
    return piece if middle == side else resized(piece, side, rng)


def _cut(image: Image, side: int, rng: np.random.Generator) -> Tensor:
    top = int(rng.integers(image.shape[0] - side + 1))
    left = int(rng.integers(image.shape[1] - side + 1))
    piece = np.ascontiguousarray(image[top : top + side, left : left + side].transpose(2, 0, 1))
    return torch.from_numpy(piece).float() / 255.0


def resized(piece: Tensor, side: int, rng: np.random.Generator) -> Tensor:
    """Resize a square (3, n, n) piece to (3, side, side); mostly bicubic, sometimes softer."""
    if piece.shape[-1] == side:
        return piece
    mode = "bicubic" if rng.random() < 0.75 else "bilinear"
    smaller = side < piece.shape[-1]
    resized_piece = functional.interpolate(piece[None], size=(side, side), mode=mode, antialias=smaller)
    return resized_piece[0].clamp_(0.0, 1.0)


def turned(crops: Tensor, rng: np.random.Generator) -> Tensor:
    """Flip and rotate by right angles, each quarter of the batch differently."""
    parts = []
    for part in crops.chunk(4):
        flips = [axis for axis in (2, 3) if rng.random() < 0.5]
        parts.append(torch.rot90(part.flip(flips) if flips else part, int(rng.integers(4)), (2, 3)))
    return torch.cat(parts).contiguous()


def recoloured(crops: Tensor, rng: np.random.Generator) -> Tensor:
    """Change the colours to those of other stains, scanners and lamps.

    In optical density, a 3 x 3 matrix near the identity (stain mixing) and a factor per channel (stain strength) are
    applied. Sometimes the channels are shuffled, so that the network does not learn one hue. A white point and a gamma
    follow.
    """
    count = crops.shape[0]
    mixing = np.eye(3)[None] + rng.normal(0.0, 0.12, (count, 3, 3))
    for index in range(count):
        if rng.random() < 0.3:
            mixing[index] = mixing[index][rng.permutation(3)]
    mixing *= np.exp(rng.uniform(-0.6, 0.4, (count, 1, 1)) + rng.normal(0.0, 0.15, (count, 3, 1)))
    density = -torch.log(crops.clamp(min=2.0 / 255.0))
    mixed = torch.einsum("nij,njhw->nihw", torch.from_numpy(mixing).float(), density)
    white = torch.from_numpy(rng.uniform(0.82, 1.03, (count, 1, 1, 1)) * rng.normal(1.0, 0.02, (count, 3, 1, 1)))
    gamma = torch.from_numpy(np.exp(rng.normal(0.0, 0.12, (count, 1, 1, 1))))
    changed: Tensor = (torch.exp(-mixed).clamp(0.0, 1.0) ** gamma) * white
    return changed.float().clamp_(0.0, 1.0)


def flat_crop(side: int, rng: np.random.Generator) -> Tensor:
    """Make a crop without structure: one colour, or a soft ramp between two similar ones.

    Half of the crops have the near-white of glass. In half of all crops, each channel is rounded to black or white with
    probability 0.5.
    """
    colour = rng.uniform(0.8, 1.0, 3) if rng.random() < 0.5 else rng.uniform(0.0, 1.0, 3)
    if rng.random() < 0.3:
        colour[:] = colour.mean()
    if rng.random() < 0.5:
        # For a black or white truth, clipping removes half of the noise and shifts the mean.
        colour = np.where(rng.random(3) < 0.5, np.round(colour), colour)
    flat = torch.from_numpy(colour).float()[:, None, None].expand(3, side, side)
    if rng.random() < 0.5:
        return flat.clone()
    change = torch.from_numpy(rng.normal(0.0, 0.06, 3)).float()[:, None, None]
    angle = float(rng.uniform(0.0, 2.0 * math.pi))
    axis = torch.linspace(-1.0, 1.0, side)
    ramp = math.cos(angle) * axis[None, :] + math.sin(angle) * axis[:, None]
    return (flat + change * ramp).clamp(0.0, 1.0)
