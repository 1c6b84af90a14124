"""Amount of change: PSNR, SSIM, and properties of the residual (input minus output)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

CELL = 8
"""Side in px of the cells whose means are used for low-frequency measurements. 96 px are 12 cells."""


def psnr(sse: float, count: float) -> float | None:
    """Return PSNR in dB from a sum of squared errors over `count` 8-bit samples.

    It is None without samples, and at most 100 dB, so that it is a finite number in JSON even without an error.
    """
    if count <= 0:
        return None
    mse = sse / count
    return 100.0 if mse < 255.0**2 * 1e-10 else min(100.0, 10 * math.log10(255.0**2 / mse))


def squared_error(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> tuple[float, int]:
    """Return (sum of squared differences, number of samples) of two uint8 arrays of one shape.

    Used for :meth:`Evidence.with_codec`, with the pixels of a tile before and after compression.
    """
    return float(cv2.norm(first, second, cv2.NORM_L2SQR)), first.size


@dataclass(frozen=True)
class Cells:
    """Moments of cells of 8 x 8 px, each (rows, cols, 3) float32, rounded once from exact integer sums.

    Parameters
    ----------
    before, after : ndarray
        Means of input and output, grey levels.
    before_variance, after_variance, covariance : ndarray
        Variances and covariance of input and output inside each cell, grey levels squared.
    residual_square : ndarray
        Mean of the squared residual, grey levels squared.
    """

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    before_variance: NDArray[np.float32]
    after_variance: NDArray[np.float32]
    covariance: NDArray[np.float32]
    residual_square: NDArray[np.float32]

    def ssim(self) -> NDArray[np.float32]:
        """Return the SSIM of each cell, mean of the channels, (rows, cols): the 8 x 8 windows do not overlap."""
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        light = (2 * self.before * self.after + c1) / (self.before**2 + self.after**2 + c1)
        shape = (2 * self.covariance + c2) / (self.before_variance + self.after_variance + c2)
        return channel_mean(light * shape)


def channel_mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of the three channels, (rows, cols) float32, of (rows, cols, 3)."""
    # NumPy's own mean takes three times as long along an axis of length three.
    return np.asarray((values[..., 0] + values[..., 1] + values[..., 2]) / np.float32(3))


_STRIP = 12
"""Number of rows of cells whose sums fit into the processor's cache."""


def cells(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Cells:
    """Compute the :class:`Cells` of a block, without incomplete cells at its edges.

    Parameters
    ----------
    before, after : ndarray
        (height, width, 3) uint8.
    """
    rows, cols = before.shape[0] // CELL, before.shape[1] // CELL
    sums = np.zeros((5, rows, cols, 3), np.float32)
    if rows and cols:
        strip = np.empty((5, _STRIP, cols * CELL, 3), np.float32)
        for top in range(0, rows, _STRIP):
            height = min(_STRIP, rows - top)
            down = strip[:, :height]
            down[...] = 0
            for row in range(top * CELL, top * CELL + CELL):
                at = (slice(row, row + (height - 1) * CELL + 1, CELL), slice(0, cols * CELL))
                _add_products(before[at], after[at], down)
            for total, part in zip(sums, down, strict=True):
                # Sums of 8 or 64 products of bytes are below 2 ** 24, so single precision is exact.
                cv2.resize(part, (cols, height), dst=total[top : top + height], interpolation=cv2.INTER_AREA)
    return _moments(sums)


def _add_products(before: NDArray[np.uint8], after: NDArray[np.uint8], sums: NDArray[np.float32]) -> None:
    """Add input, output, their squares and their product to five sums of the same shape."""
    cv2.accumulate(before, sums[0])
    cv2.accumulate(after, sums[1])
    cv2.accumulateSquare(before, sums[2])
    cv2.accumulateSquare(after, sums[3])
    cv2.accumulateProduct(before, after, sums[4])


def _moments(sums: NDArray[np.float32]) -> Cells:
    """Return the moments from sums over rows and means over columns of each cell, (5, rows, cols, 3) float32."""
    mean_b, mean_a, square_b, square_a, product = sums / np.float64(CELL)
    return Cells(
        mean_b.astype(np.float32),
        mean_a.astype(np.float32),
        (square_b - mean_b * mean_b).astype(np.float32),
        (square_a - mean_a * mean_a).astype(np.float32),
        (product - mean_b * mean_a).astype(np.float32),
        (square_b + square_a - 2 * product).astype(np.float32),
    )


def lag_one(
    before: NDArray[np.uint8], after: NDArray[np.uint8], chosen: NDArray[np.bool_]
) -> tuple[float, float, float, float]:
    """Return sums for the residual's autocorrelation at a lag of one pixel, from every fourth row of green.

    Parameters
    ----------
    before, after : ndarray
        (height, width, 3) uint8; the residual is before minus after.
    chosen : ndarray
        (height // 8, width // 8) bool: the cells to use.

    Returns
    -------
    tuple of float
        Sum of r(x, y) r(x + 1, y); of r(x, y) r(x, y + 1); of r squared; number of samples. Low frequencies are
        included on purpose: a shift or structure makes the residual less white.
    """
    rows, cols = chosen.shape
    if rows == 0 or cols == 0 or not chosen.any():
        return (0.0, 0.0, 0.0, 0.0)

    def residual(row: int) -> NDArray[np.float32]:
        at = (slice(row, rows * CELL, CELL), slice(0, cols * CELL))
        green_before, green_after = cv2.extractChannel(before[at], 1), cv2.extractChannel(after[at], 1)
        return np.asarray(cv2.subtract(green_before, green_after, dtype=cv2.CV_32F), np.float32)

    sums = np.zeros(3)
    weight = np.repeat(chosen, CELL, axis=1)[:, :-1].astype(np.float32)
    for phase in (1, 5):
        here, below = residual(phase), residual(phase + 1)
        used = here[:, :-1] * weight
        sums += (np.vdot(used, here[:, 1:]), np.vdot(used, below[:, :-1]), np.vdot(used, here[:, :-1]))
    return (float(sums[0]), float(sums[1]), float(sums[2]), float(2 * weight.sum()))
