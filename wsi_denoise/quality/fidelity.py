"""How much was changed: PSNR, SSIM, and what the residual (input minus output) looks like."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

CELL = 8
"""Side of a cell in px: low-frequency measurements are made on means of 8 x 8 px. 96 px are 12 cells."""


def psnr(sse: float, count: float) -> float | None:
    """Return PSNR in dB from a sum of squared errors over `count` 8-bit samples.

    None without samples; 100 dB, so that it stays a number in JSON, where there is no error or next to none.
    """
    if count <= 0:
        return None
    mse = sse / count
    return 100.0 if mse < 255.0**2 * 1e-10 else min(100.0, 10 * math.log10(255.0**2 / mse))


def squared_error(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> tuple[float, int]:
    """Return (sum of squared differences, number of samples) of two uint8 arrays of one shape.

    What the writer hands to :meth:`Evidence.with_codec` for each tile: what was meant, and what the codec gave back.
    """
    return float(cv2.norm(first, second, cv2.NORM_L2SQR)), first.size


def cell_mean(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return means of 8 x 8 px: (height // 8, width // 8[, channels]) float32; what fills no cell is left out."""
    rows, cols = image.shape[0] // CELL, image.shape[1] // CELL
    if rows == 0 or cols == 0:
        return np.zeros((rows, cols, *image.shape[2:]), np.float32)
    full = image[: rows * CELL, : cols * CELL]
    return np.asarray(cv2.resize(full, (cols, rows), interpolation=cv2.INTER_AREA), np.float32)


@dataclass(frozen=True)
class Cells:
    """Moments of a block by cells of 8 x 8 px.

    Parameters
    ----------
    before, after : ndarray
        Means, (rows, cols, 3) float32, grey levels.
    before_square, after_square, residual_square : ndarray
        Means of squares, (rows, cols, 3) float32; residual is before minus after. The first two are of values minus
        128, which keeps single precision exact enough.
    """

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    before_square: NDArray[np.float32]
    after_square: NDArray[np.float32]
    residual_square: NDArray[np.float32]

    @property
    def before_variance(self) -> NDArray[np.float32]:
        """Variance inside each cell of the input, (rows, cols, 3)."""
        return np.asarray(self.before_square - (self.before - 128) ** 2)

    @property
    def after_variance(self) -> NDArray[np.float32]:
        """Variance inside each cell of the output, (rows, cols, 3)."""
        return np.asarray(self.after_square - (self.after - 128) ** 2)

    def ssim(self) -> NDArray[np.float32]:
        """Return SSIM per cell, mean of the channels, (rows, cols): 8 x 8 windows that do not overlap."""
        mean_product = (self.before - 128) * (self.after - 128)
        covariance = (self.before_square + self.after_square - self.residual_square) / 2 - mean_product
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        light = (2 * self.before * self.after + c1) / (self.before**2 + self.after**2 + c1)
        shape = (2 * covariance + c2) / (self.before_variance + self.after_variance + c2)
        return np.asarray((light * shape).mean(axis=2))


def cells(before: NDArray[np.uint8], after: NDArray[np.uint8], *, strip: int = 96) -> Cells:
    """Compute :class:`Cells` of a block, in strips of rows that stay in the processor's cache.

    Parameters
    ----------
    before, after : ndarray
        (height, width, 3) uint8.
    strip : int
        Rows at a time, a multiple of 8.
    """
    parts: list[list[NDArray[np.float32]]] = [[], [], [], [], []]
    for top in range(0, max(before.shape[0], 1), strip):
        b = before[top : top + strip].astype(np.float32)
        a = after[top : top + strip].astype(np.float32)
        parts[0].append(cell_mean(b))
        parts[1].append(cell_mean(a))
        residual = cv2.subtract(b, a)
        b -= 128
        a -= 128
        for index, values in ((2, b), (3, a), (4, residual)):
            parts[index].append(cell_mean(cv2.multiply(values, values, values)))
    return Cells(*(np.concatenate(part) for part in parts))


def green_residual(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Return green of the input minus green of the output, (height, width) int16, of (height, width, 3) uint8."""
    if not before.size:
        return np.zeros(before.shape[:2], np.int16)
    return np.asarray(cv2.subtract(cv2.extractChannel(before, 1), cv2.extractChannel(after, 1), dtype=cv2.CV_16S))


def lag_one(residual: NDArray[np.int16], chosen: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Return sums for the residual's autocorrelation at a distance of one pixel, from every fourth row of its green.

    Parameters
    ----------
    residual : ndarray
        (height, width) int16.
    chosen : ndarray
        (height // 8, width // 8) bool: the cells to use.

    Returns
    -------
    tuple of float
        Sum of r(x, y) r(x + 1, y); of r(x, y) r(x, y + 1); of r squared; number of samples. Low frequencies are left
        in: a shift or structure makes the residual less white, and should.
    """
    rows, cols = chosen.shape
    if rows == 0 or cols == 0 or not chosen.any():
        return (0.0, 0.0, 0.0, 0.0)
    sums = np.zeros(3)
    weight = np.repeat(chosen, CELL, axis=1)[:, :-1].astype(np.float32)
    for phase in (1, 5):
        here = residual[phase : rows * CELL : CELL, : cols * CELL].astype(np.float32)
        below = residual[phase + 1 : rows * CELL : CELL, : cols * CELL].astype(np.float32)
        used = here[:, :-1] * weight
        sums += (np.vdot(used, here[:, 1:]), np.vdot(used, below[:, :-1]), np.vdot(used, here[:, :-1]))
    return (float(sums[0]), float(sums[1]), float(sums[2]), float(2 * weight.sum()))
