"""Metrics of an image compared with its truth: PSNR, three kinds of SSIM, stains; and intervals over images.

All images are (batch, height, width, 3) uint8 RGB.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.color import rgb2gray, rgb2hed

Batch = npt.NDArray[np.uint8]
Image = npt.NDArray[np.uint8]
Figures = npt.NDArray[np.float64]

PERFECT = 80.0
"""PSNR in dB that replaces infinity, with which a mean would be infinite."""
_WINDOW, _SPREAD = 11, 1.5


def psnr(found: Batch, clean: Batch) -> Figures:
    """Return the PSNR in dB of each image over RGB, at most `PERFECT`."""
    square = ((found.astype(np.float64) - clean) ** 2).mean(axis=(1, 2, 3))
    return np.asarray(10.0 * np.log10(255.0**2 / np.maximum(square, 255.0**2 / 10 ** (PERFECT / 10.0))))


def ssim(found: Batch, clean: Batch) -> Figures:
    """Return the two-dimensional SSIM of each image, with a Gaussian window of 1.5 px, as the mean over R, G and B."""
    pairs = zip(found.astype(np.float64), clean.astype(np.float64), strict=True)
    return np.array([_ssim_map(a, b, (_WINDOW, _WINDOW))[5:-5, 5:-5].mean() for a, b in pairs])


def ssim_grey(found: Batch, clean: Batch) -> Figures:
    """Return the SSIM of each image's luminance (skimage's ``rgb2gray``), two-dimensional."""
    return np.array([_ssim_map(*pair, (_WINDOW, _WINDOW))[5:-5, 5:-5].mean() for pair in _grey(found, clean)])


def ssim_columns(found: Batch, clean: Batch) -> Figures:
    """Return the SSIM of the paper's script.

    The script calls scikit-image with channels for a grey image, so that each column counts as a channel and is
    compared separately, in one dimension. It serves only for a comparison with the paper's values.
    """
    return np.array([_ssim_map(*pair, (1, _WINDOW))[5:-5].mean() for pair in _grey(found, clean)])


def _grey(found: Batch, clean: Batch) -> list[tuple[Figures, Figures]]:
    return [(255.0 * rgb2gray(a), 255.0 * rgb2gray(b)) for a, b in zip(found, clean, strict=True)]


def _ssim_map(a: Figures, b: Figures, size: tuple[int, int]) -> Figures:
    """Return the map of SSIM; `size` is the window's (width, height), in OpenCV's order."""

    def mean(values: Figures) -> Figures:
        return np.asarray(cv2.GaussianBlur(values, size, _SPREAD, borderType=cv2.BORDER_REFLECT))

    first, second = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b, both = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2, mean(a * b) - mean_a * mean_b
    upper = (2 * mean_a * mean_b + first) * (2 * both + second)
    return np.asarray(upper / ((mean_a**2 + mean_b**2 + first) * (var_a + var_b + second)))


def interval(values: Figures, draws: int = 2000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean over images."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def stains(images: Batch) -> Figures:
    """Return the mean haematoxylin and eosin densities of each image (Ruifrok and Johnston), (batch, 2)."""
    return np.array([rgb2hed(image)[..., :2].mean(axis=(0, 1)) for image in images])


def largest_structure(image: Image, *, deviations: float = 4.0) -> tuple[float, int, int]:
    """Find the largest invented structure in an image that should have one colour.

    Returns
    -------
    deviation : float
        Standard deviation of the image in grey levels, the largest of the channels.
    size : int
        Pixels of the largest connected component that differs from its channel's mean by more than `deviations` times
        this deviation, and by more than one grey level.
    size_own : int
        The same with each channel's own deviation. In a white channel it is a fraction of a grey level, so that
        components with a difference of one or two grey levels are found.
    """
    values = image.astype(np.float64)
    spread = values.std(axis=(0, 1))
    off = np.abs(values - values.mean(axis=(0, 1)))
    sizes = [_largest_piece(off > np.maximum(deviations * each, 1.0)) for each in (spread.max(), spread)]
    return float(spread.max()), sizes[0], sizes[1]


def _largest_piece(far: npt.NDArray[np.bool_]) -> int:
    labels, count = ndimage.label(far.any(axis=2), structure=np.ones((3, 3)))
    return int(np.bincount(labels.ravel())[1:].max()) if count else 0
