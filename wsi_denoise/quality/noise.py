"""Two estimators of noise with different errors.

* ``wavelet``: Donoho's median of the diagonal Haar coefficients. It uses the finest diagonal detail only. It misses
  noise without fine detail (after JPEG, chroma subsampling or interpolation), and is too high on finely textured
  tissue.
* ``flat``: the residual of a cubic surface in the smoothest 8 x 8 px cells. It includes all but the lowest frequencies,
  and so measures more of correlated noise (white noise blurred by 0.6 px: 82 %, the wavelet 55 %). It is too high on a
  slide without smooth cells.

A slide counts as free of noise only if both estimates are low. Both are stored as histograms of integers, whose sum
over blocks is exact in any order.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

QUAD_STEP = 3
"""Step between Haar quads along both axes: a ninth of the work, and all phases of an 8-px JPEG grid."""

WAVELET_BINS = 511
"""Number of values of |a - b - c + d| for four 8-bit values: 0 to 510."""

FLAT_BINS = 1024
FLAT_STEP = 0.0625
"""Grey levels per bin of the histogram of cell deviations."""

FLAT_CELL = 8
"""Side of a cell in px; on the lattice, so that cells coincide with JPEG blocks if the source's tiles allow it."""

FLAT_QUANTILE = 0.05
"""Share of the cells, the flattest ones, that count as untextured."""

_FLAT_FACTOR = 0.9080
"""The 0.05 quantile of the deviation of normal values with deviation 1 (chi, 3 x 54 degrees of freedom)."""

_MAD = 0.67449
"""Median of the absolute value of a standard normal variable."""


def diagonal(image: NDArray[np.uint8] | NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the diagonal Haar coefficients, not normalised, at every :data:`QUAD_STEP` pixels.

    Parameters
    ----------
    image : ndarray
        (height, width, 3), uint8 or int16.

    Returns
    -------
    ndarray
        (rows, cols, 3) int16, with one row or column for every complete quad. White noise of standard deviation sigma
        gives values of standard deviation 2 sigma.
    """
    height, width = max(image.shape[0] - 1, 0), max(image.shape[1] - 1, 0)
    rows, cols = -(-height // QUAD_STEP), -(-width // QUAD_STEP)
    if not (rows and cols):
        return np.zeros((rows, cols, 3), np.int16)
    down = cv2.subtract(image[0:height:QUAD_STEP], image[1 : height + 1 : QUAD_STEP], dtype=cv2.CV_16S)
    result = np.empty((rows, cols, 3), np.int16)
    for channel, plane in enumerate(cv2.split(down)):
        np.subtract(plane[:, 0:width:QUAD_STEP], plane[:, 1 : width + 1 : QUAD_STEP], out=result[..., channel])
    return result


def wavelet_histogram(coefficients: NDArray[np.int16]) -> NDArray[np.int64]:
    """Count the absolute values per channel: (3, :data:`WAVELET_BINS`) int64, from (..., 3) int16."""
    flat = np.minimum(np.abs(coefficients.reshape(-1, 3)), WAVELET_BINS - 1)
    return np.stack([np.bincount(flat[:, channel], minlength=WAVELET_BINS) for channel in range(3)]).astype(np.int64)


def wavelet_sigma(histogram: NDArray[np.int64]) -> tuple[float, float, float] | None:
    """Return sigma per channel in grey levels, or None without samples.

    The median is interpolated between integers: a count at v represents v - 0.5 to v + 0.5. If most values are 0, sigma
    follows from the share of values between -0.5 and 0.5, so that noise below one grey level is measured too.
    """
    sigmas = []
    for counts in histogram:
        total = int(counts.sum())
        if total == 0:
            return None
        below = np.cumsum(counts)
        index = int(np.searchsorted(below, total / 2))
        if index == 0:
            reach = ndtri((1 + counts[0] / total) / 2)
            sigmas.append(0.5 / reach / 2 if np.isfinite(reach) else 0.0)
        else:
            start = below[index] - counts[index]
            sigmas.append((index - 0.5 + (total / 2 - start) / counts[index]) / (2 * _MAD))
    return (float(sigmas[0]), float(sigmas[1]), float(sigmas[2]))


def flat_histogram(image: NDArray[np.uint8], chosen: NDArray[np.bool_], sigma: float) -> NDArray[np.int64]:
    """Count the residuals of cubic surfaces in every second chosen cell along both axes, without clipped cells.

    Parameters
    ----------
    image : ndarray
        (height, width, 3) uint8.
    chosen : ndarray
        (height // 8, width // 8) bool: tissue, or glass.
    sigma : float
        Rough sigma. Cells closer than 1.5 sigma to 0 or 255 lose part of their noise by clipping and would appear flat.

    Returns
    -------
    ndarray
        (:data:`FLAT_BINS`,) int64.
    """
    rows, cols = chosen.shape
    counts = np.zeros(FLAT_BINS, np.int64)
    if rows == 0 or cols == 0:
        return counts
    split = image[: rows * FLAT_CELL, : cols * FLAT_CELL].reshape(rows, FLAT_CELL, cols, FLAT_CELL, 3)
    picked = chosen[::2, ::2]
    margin = min(1.5 * sigma + 1.0, 100.0)
    for values in _rows_of_cells(split[::2, :, ::2], picked):
        explained = values @ _SURFACES
        # The first polynomial is constant: its coefficient is (mean - 128) times the side of a cell.
        red, green, blue = explained[..., 0] / FLAT_CELL + 128
        lightest, darkest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
        inside = (darkest > margin) & (lightest < 255.0 - margin)
        left = np.einsum("cnk,cnk->n", values, values) - np.einsum("cnk,cnk->n", explained, explained)
        deviation = np.sqrt(np.maximum(left[inside], 0.0) / (3 * (FLAT_CELL**2 - _SURFACES.shape[1])))
        bins = np.minimum(deviation / FLAT_STEP, FLAT_BINS - 1).astype(np.int64)
        counts += np.bincount(bins, minlength=FLAT_BINS)
    return counts


def _rows_of_cells(split: NDArray[np.uint8], picked: NDArray[np.bool_]) -> Iterator[NDArray[np.float32]]:
    """Yield (3, cells, 64) float32 of grey levels minus 128, for six rows of cells, which fit into the cache."""
    for top in range(0, split.shape[0], 6):
        part, mask = split[top : top + 6], picked[top : top + 6]
        if mask.any():
            values = part.transpose(4, 0, 2, 1, 3)[:, mask]
            yield (values.reshape(3, -1, FLAT_CELL**2) ^ 128).view(np.int8).astype(np.float32)


def _surfaces() -> NDArray[np.float32]:
    """Return orthonormal polynomials of degree 0 to 3 over a cell, by rising degree in x and y: (64, 10) float32."""
    grid = np.linspace(-1, 1, FLAT_CELL)
    y, x = (axis.ravel() for axis in np.meshgrid(grid, grid, indexing="ij"))
    powers = [x**i * y**j for i in range(4) for j in range(4 - i)]
    basis, _ = np.linalg.qr(np.stack(powers, axis=1))
    return np.asarray(basis * np.sign(basis[:1]), np.float32)


_SURFACES = _surfaces()


def flat_sigma(histogram: NDArray[np.int64]) -> float | None:
    """Return sigma in grey levels from the flattest cells, or None without cells."""
    total = int(histogram.sum())
    if total == 0:
        return None
    below = np.cumsum(histogram)
    index = int(np.searchsorted(below, total * FLAT_QUANTILE))
    return float((index + 0.5) * FLAT_STEP / _FLAT_FACTOR) if index else 0.0


_CLIP_STEPS = 16
"""Steps per grey level in the table of biases."""


def clip_bias(level: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Return the shift of the mean of noisy values by clipping to 0..255.

    Glass at 245 with noise of sigma 25 has a mean of 239. A denoiser that returns 245 has not shifted a colour.

    Parameters
    ----------
    level : ndarray
        Noise-free grey levels, any shape, float32.
    sigma : float
        Standard deviation of the noise before clipping.

    Returns
    -------
    ndarray
        E[clip(level + noise)] - level, like `level`.
    """
    if sigma < 0.5:
        return np.zeros_like(level)
    grid = np.arange(255 * _CLIP_STEPS + 1) / _CLIP_STEPS
    high, low = (grid - 255) / sigma, -grid / sigma
    table = (sigma * (_overshoot(low) - _overshoot(high))).astype(np.float32)
    nearest = np.clip(level * _CLIP_STEPS + 0.5, 0, len(table) - 1).astype(np.intp)
    return np.asarray(np.take(table, nearest))


def _overshoot(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return E[max(noise + z, 0)] for standard normal noise."""
    return np.asarray(np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi) + z * ndtr(z))
