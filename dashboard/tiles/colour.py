"""Colours: conversion of a slide's pixels to sRGB, and the colours of maps."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Pixels = NDArray[np.uint8]

#: Sixteen colours of matplotlib's viridis and inferno (CC0): even steps in lightness, for every kind of eye.
_VIRIDIS = (
    "440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e 1f988b 22a884 35b779 54c568 7ad151 a5db36 d2e21b fde725"
)
_INFERNO = (
    "000004 0c0826 240c4f 420a68 5d126e 781c6d 932667 ae305c c73e4c dd513a ed6925 f8850f fca50a fac62d f2e661 fcffa4"
)
COLOURS = {"noise": _VIRIDIS, "structure": _INFERNO}


class ToSrgb:
    """Converts pixels to sRGB; without a usable colour profile, pixels stay as they are.

    Parameters
    ----------
    profile : bytes or None
        An ICC profile of RGB pixels.
    """

    def __init__(self, profile: bytes | None) -> None:
        self._transform: Any = None
        self.note = "as stored: the slide has no colour profile"
        if profile is None:
            return
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            self._transform = ImageCms.buildTransform(
                source,
                ImageCms.createProfile("sRGB"),
                "RGB",
                "RGB",
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            self.note = "sRGB, from the slide's colour profile"
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            self.note = "as stored: the slide's colour profile cannot be used"

    def __call__(self, pixels: Pixels) -> Pixels:
        """Return (height, width, 3) uint8 in sRGB."""
        if self._transform is None:
            return pixels
        picture = ImageCms.applyTransform(Image.fromarray(pixels), self._transform)
        return np.asarray(picture)


def map_colours(name: str) -> NDArray[np.uint8]:
    """Return the (256, 3) uint8 colours of a map, from its lowest to its highest value."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in COLOURS[name].split()], np.float64)
    at = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(at, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def map_pixels(values: NDArray[np.float32], name: str, high: float) -> NDArray[np.uint8]:
    """Return (rows, columns, 4) uint8 of values from 0 to `high`; what is not a number is transparent."""
    known = np.isfinite(values)
    steps = np.rint(np.clip(np.where(known, values, 0) / high, 0, 1) * 255).astype(np.uint8)
    result = np.zeros((*values.shape, 4), np.uint8)
    result[..., :3] = map_colours(name)[steps]
    result[..., 3] = np.where(known, 255, 0)
    return result
