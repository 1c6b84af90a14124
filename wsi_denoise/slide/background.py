"""Estimate of the colour of empty glass from pixels. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Bounds of bright, nearly colourless pixels. On real slides the channels of glass are 222 to 251 and differ by at most
#: 11; those of the palest stroma differ by 23.
LEAST_CHANNEL = 190
MOST_CHROMA = 20
#: Pixels this bright in all channels are a scanner's filling of areas that it did not scan.
FILLING = 254
#: Smallest share of bright pixels, of all pixels, for an estimate.
LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Glass:
    """Empty glass.

    Parameters
    ----------
    colour : (int, int, int)
        RGB.
    sigma : float
        Standard deviation of its brightness from pixel to pixel, in grey levels.
    """

    colour: tuple[int, int, int]
    sigma: float


def find_glass(pixels: npt.NDArray[np.uint8]) -> Glass | None:
    """Return the glass among RGB pixels of shape (..., 3), or None if too few pixels are bright and colourless.

    The colour is that of the most frequent brightness among such pixels. White filling counts only without other
    candidates. Sigma is estimated from brighter pixels only, because the darker ones may be tissue.
    """
    flat = pixels.reshape(-1, 3)
    least, most = flat.min(axis=1), flat.max(axis=1)
    bright = (least >= LEAST_CHANNEL) & (most - least <= MOST_CHROMA)
    filling = bright & (least >= FILLING)
    looked_at = bright & ~filling
    needed = max(1, int(LEAST_SHARE * len(flat)))
    if looked_at.sum() < needed:
        return Glass((255, 255, 255), 0.0) if filling.sum() >= needed else None
    candidates = flat[looked_at]
    brightness = candidates.astype(np.float32).mean(axis=1)
    counts = np.convolve(np.bincount(brightness.astype(np.int64), minlength=256), np.ones(3), "same")
    peak = int(counts.argmax())
    red, green, blue = (round(float(value)) for value in np.median(candidates[np.abs(brightness - peak) <= 3], axis=0))
    middle = (red + green + blue) / 3
    above = brightness[(brightness > middle) & (brightness < middle + 12)] - middle
    sigma = 1.4826 * float(np.median(above)) if len(above) else 0.0
    return Glass((red, green, blue), sigma)
