"""Reader of DICOM frames by a colour rule, for files whose PhotometricInterpretation would mislead OpenSlide."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

import numpy as np

from wsi_denoise.slide.base import DecodeFailure, Pixels, Slide, SlideInfo, check_unchanged, from_os_error
from wsi_denoise.slide.readers.colours import ColourRule
from wsi_denoise.slide.readers.dicom_frames import Instance
from wsi_denoise.slide.readers.tile_decoder import coded_fault, coloured_pixels

#: Bytes of decoded frames kept per slide.
CACHE_BYTES = 32 << 20


class DicomSlide(Slide):
    """Level 0 of a DICOM series whose frames are in one file.

    Parameters
    ----------
    info : SlideInfo
        Its only level is that of `instance`.
    instance : Instance
        An instance with ``full`` set.
    """

    def __init__(self, info: SlideInfo, instance: Instance, rule: ColourRule) -> None:
        self.info = info
        self._instance = instance
        self._rule = rule
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, Pixels] = OrderedDict()
        try:
            self._file: int | None = os.open(instance.file, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise from_os_error(error, instance.file) from error
        status = os.fstat(self._file)
        self._status = (status.st_size, status.st_mtime_ns)

    def trim(self) -> None:
        """Free decoded frames."""
        with self._lock:
            self._cache.clear()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            file, self._file = self._file, None
            self._cache.clear()
        if file is not None:
            os.close(file)

    def __del__(self) -> None:
        # The cache of open slides drops a slide while another thread may read it, so the last reference closes it.
        if getattr(self, "_file", None) is not None:
            self.close()

    def _still_there(self) -> None:
        check_unchanged(self._instance.file, *self._status)

    def _read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        result = np.empty((height, width, 3), np.uint8)
        step_x, step_y = self._instance.tile
        for top, left in self._tiles(x, y, width, height, step_x, step_y):
            frame = self._frame(top // step_y * self._instance.columns + left // step_x, (level, left, top))
            x0, y0 = max(left, x), max(top, y)
            x1, y1 = min(left + step_x, x + width), min(top + step_y, y + height)
            result[y0 - y : y1 - y, x0 - x : x1 - x] = frame[y0 - top : y1 - top, x0 - left : x1 - left]
        return result

    def _frame(self, number: int, place: tuple[int, int, int]) -> Pixels:
        with self._lock:
            found = self._cache.get(number)
            if found is not None:
                self._cache.move_to_end(number)
                return found
        try:
            pixels = self._decode(number)
        except DecodeFailure as failure:
            failure.place = place
            raise
        with self._lock:
            self._cache[number] = pixels
            while len(self._cache) > max(1, CACHE_BYTES // pixels.nbytes):
                self._cache.popitem(last=False)
        return pixels

    def _decode(self, number: int) -> Pixels:
        """Return a frame, (height, width, 3)."""
        if self._file is None:
            raise ValueError("the slide is closed")
        try:
            data = self._instance.read(self._file, number)
        except ValueError as error:
            raise DecodeFailure(str(error)) from error
        reason = coded_fault(data, self._instance.codec, self._instance.tile)
        if reason:
            raise DecodeFailure(reason)
        try:
            pixels = coloured_pixels(data, self._instance.codec, None, self._rule)
        except (MemoryError, DecodeFailure):
            raise
        except Exception as error:  # each codec library has its own exceptions
            raise DecodeFailure(str(error) or type(error).__name__) from error
        width, height = self._instance.tile
        if pixels.dtype != np.uint8 or pixels.shape != (height, width, 3):
            raise DecodeFailure(
                f"the frame has shape {pixels.shape} of {pixels.dtype}, not {width} x {height} px of RGB"
            )
        return pixels
