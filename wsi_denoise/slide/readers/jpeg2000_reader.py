"""JPEG 2000 files: JP2 and bare codestreams.

imagecodecs, which includes OpenJPEG, decodes whole pictures. glymur reads regions of larger pictures with the system's
OpenJPEG.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wsi_denoise.errors import ContradictoryColours, SlideError, TooLarge, UnsupportedSlide, WsiDenoiseError
from wsi_denoise.slide import metadata
from wsi_denoise.slide.base import DecodeFailure, Pixels, Slide, SlideInfo, check_unchanged, composite, stat_source
from wsi_denoise.slide.readers import jpeg2000_check
from wsi_denoise.slide.readers.colours import Space, pixel_evidence
from wsi_denoise.slide.readers.jpeg2000_check import Jpeg2000Facts

#: Maximum pixels of a picture that is decoded as a whole. OpenJPEG needs 4 bytes per sample during decoding.
MAX_WHOLE = 50_000_000
#: Side in pixels of the nine spots on which the colour model is checked.
SPOT = 128


def open_jpeg2000(path: Path, max_megapixels: float) -> Slide:
    """Open a JPEG 2000 file.

    Raises
    ------
    TruncatedSlide, NotASlide, NotRGB, TooLarge, UnsupportedSlide, ContradictoryColours
    """
    facts = jpeg2000_check.check_jpeg2000(path)
    if facts.width * facts.height > max_megapixels * 1e6:
        raise TooLarge(f"{facts.width:,} x {facts.height:,} px; limits.megapixels is {max_megapixels:g}")
    jpeg2000_check.check_rgb(facts)
    if set(facts.steps) != {(1, 1)}:
        raise UnsupportedSlide("it is a JPEG 2000 picture whose components have different resolutions")
    mpp, notes = metadata.first_believed(facts.resolution)
    if facts.colour is None and facts.icc_profile is None and not facts.colour_transform:
        notes = (*notes, "the file does not state its colour model; its components are taken for red, green and blue")
    info = SlideInfo(
        path=path,
        width=facts.width,
        height=facts.height,
        mpp=mpp,
        objective_power=facts.objective,
        levels=((facts.width, facts.height),),
        icc_profile=facts.icc_profile,
        compression="jpeg2000",
        reader="imagecodecs",
        tile=facts.tiles if max(facts.tiles) <= 4096 else (256, 256),
        notes=notes,
    )
    if facts.width * facts.height <= MAX_WHOLE:
        slide = Jpeg2000Slide(info, facts)
    else:
        slide = Jpeg2000Slide(replace(info, reader="glymur"), facts, _glymur(path, facts))
    try:
        _check_colours(slide, facts)
    except WsiDenoiseError:
        slide.close()
        raise
    return slide


def _check_colours(slide: Slide, facts: Jpeg2000Facts) -> None:
    """Raise ContradictoryColours for two different statements, or for YCbCr pixels without a statement.

    A colour box of sRGB is ignored: encoders write it without knowing the colour model of the samples.
    """
    ycbcr = facts.colour == jpeg2000_check.SYCC
    if ycbcr and facts.colour_transform:
        raise ContradictoryColours("the colour box says YCbCr, the component transform of the codestream says RGB")
    if ycbcr or facts.colour_transform:
        return
    side_x, side_y = min(SPOT, facts.width), min(SPOT, facts.height)
    spots = []
    for step in range(9):
        x, y = (facts.width - side_x) * (step % 3) // 2, (facts.height - side_y) * (step // 3) // 2
        with contextlib.suppress(SlideError):  # damage is reported when the region is read for processing
            spots.append(slide.read(x, y, side_x, side_y).reshape(-1, 3))
    if spots and pixel_evidence(np.concatenate(spots)) is Space.YCBCR:
        raise ContradictoryColours(
            "the codestream has no component transform, no colour box says YCbCr, and the pixels fit YCbCr only"
        )


def _glymur(path: Path, facts: Jpeg2000Facts) -> Any:
    """Return glymur's reader of a picture that is too large to be decoded whole."""
    with warnings.catch_warnings():
        # glymur warns about unusual boxes, which do not matter here.
        warnings.simplefilter("ignore")
        import glymur  # noqa: PLC0415

        if tuple(int(part) for part in glymur.version.openjpeg_version.split(".")[:2]) < (2, 4):
            raise UnsupportedSlide(
                f"a JPEG 2000 picture of {facts.width:,} x {facts.height:,} px is read with the system's OpenJPEG, and "
                "version 2.4 or later is not installed (package libopenjp2-7)"
            )
        if facts.colour == jpeg2000_check.SYCC:
            raise UnsupportedSlide("a JPEG 2000 picture of this size is read in RGB only, and it is YCbCr")
        try:
            return glymur.Jp2k(path)
        except Exception as error:  # glymur raises any exception for damage
            raise UnsupportedSlide(f"glymur cannot open it ({error})") from error


class Jpeg2000Slide(Slide):
    """A JPEG 2000 picture, decoded as a whole at the first read, or by regions.

    Parameters
    ----------
    regions : glymur.Jp2k, optional
        Reader of regions; without it the picture is decoded as a whole.
    """

    def __init__(self, info: SlideInfo, facts: Jpeg2000Facts, regions: Any = None) -> None:
        self.info = info
        self._facts = facts
        self._regions = regions
        self._pixels: Pixels | None = None
        self._closed = False
        self._lock = threading.Lock()
        status = stat_source(info.path)
        self._status = (status.st_size, status.st_mtime_ns)

    def close(self) -> None:
        """Free the decoded picture."""
        self._closed = True
        self._regions = None
        self.trim()

    def trim(self) -> None:
        """Free the decoded picture until the next read."""
        with self._lock:
            self._pixels = None

    def _still_there(self) -> None:
        check_unchanged(self.info.path, *self._status)

    def _read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:  # noqa: ARG002 - there is one level
        if self._closed:
            raise ValueError("the slide is closed")
        with self._lock:
            if self._regions is not None:
                region = self._region(x, y, width, height)
            else:
                if self._pixels is None:
                    self._pixels = self._whole()
                region = self._pixels[y : y + height, x : x + width]
        if self._facts.alpha:
            return composite(
                region[..., :3], region[..., 3], self.info.background, premultiplied=self._facts.alpha == 2
            )
        return np.ascontiguousarray(region[..., :3])

    def _whole(self) -> Pixels:
        import imagecodecs  # noqa: PLC0415

        data = self.info.path.read_bytes()
        try:
            pixels: Pixels = np.asarray(imagecodecs.jpeg2k_decode(data))
        except MemoryError:
            raise
        except Exception as error:  # the codec has its own exception class
            raise DecodeFailure(str(error) or type(error).__name__) from error
        return self._checked(pixels, self.info.width, self.info.height)

    def _region(self, x: int, y: int, width: int, height: int) -> Pixels:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pixels: Pixels = np.asarray(self._regions[y : y + height, x : x + width])
        except OSError:
            raise
        except Exception as error:  # glymur raises any exception for damage
            raise DecodeFailure(str(error) or type(error).__name__) from error
        return self._checked(pixels, width, height)

    def _checked(self, pixels: Pixels, width: int, height: int) -> Pixels:
        count = len(self._facts.bits)
        if pixels.shape != (height, width, count) or pixels.dtype != np.uint8:
            raise DecodeFailure(
                f"{pixels.dtype} pixels of shape {pixels.shape} were decoded, not {height, width, count}"
            )
        return pixels
