"""Reduction of an image by half: each level of a pyramid from the next larger one."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def halve(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the 2 x 2 means, rounded half up; an odd last row or column is repeated.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3)

    Returns
    -------
    ndarray of uint8, shape ((height + 1) // 2, (width + 1) // 2, 3)
    """
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    # OpenCV's INTER_AREA gives exactly these means if both sides are halved, and is ten times faster than NumPy.
    size = (pixels.shape[1] // 2, pixels.shape[0] // 2)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
