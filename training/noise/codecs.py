"""Lossy compression: JPEG (libjpeg) and JPEG 2000 (OpenJPEG), with the block grid at any phase.

Images are (height, width, 3) uint8 RGB.
"""

from __future__ import annotations

from typing import Literal

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Sampling = Literal["4:4:4", "4:2:2", "4:2:0"]
SAMPLINGS: tuple[Sampling, ...] = ("4:4:4", "4:2:2", "4:2:0")

_FACTORS = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}


def jpeg(image: Image, quality: int, sampling: Sampling = "4:2:0", phase: tuple[int, int] = (0, 0)) -> Image:
    """Write an image as JPEG and read it again.

    Parameters
    ----------
    image : (height, width, 3) uint8
    quality : int
        Of libjpeg, 1 to 100.
    sampling : str
        Of the chroma.
    phase : (int, int)
        Rows and columns of mirrored pixels before the image in the file, at most its size less one: they move the
        block grid.

    Returns
    -------
    (height, width, 3) uint8

    Raises
    ------
    ValueError
        If the image cannot be written as JPEG.
    """
    top, left = phase
    whole = _shifted(image, phase)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _FACTORS[sampling]]
    done, stream = cv2.imencode(".jpg", np.ascontiguousarray(whole[:, :, ::-1]), options)
    if not done:
        raise ValueError(f"an image of {image.shape} cannot be written as JPEG")
    found = cv2.imdecode(stream, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(found[top:, left:, ::-1], dtype=np.uint8)


def jpeg2000(image: Image, level: float, phase: tuple[int, int] = (0, 0)) -> Image:
    """Write an image as JPEG 2000 (irreversible wavelets, multiple component transform) and read it again.

    Parameters
    ----------
    level : float
        Quality as OpenJPEG defines it: PSNR in dB to the image that is written.
    phase : (int, int)
        As in :func:`jpeg`; moves the grid of the wavelets.
    """
    top, left = phase
    stream = imagecodecs.jpeg2k_encode(_shifted(image, phase), level=level, reversible=False, mct=True)
    found = imagecodecs.jpeg2k_decode(stream)
    return np.ascontiguousarray(found[top:, left:], dtype=np.uint8)


def _shifted(image: Image, phase: tuple[int, int]) -> Image:
    top, left = phase
    return np.pad(image, ((top, 0), (left, 0), (0, 0)), mode="reflect")
