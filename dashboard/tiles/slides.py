"""A limited number of open slides, and one slide at any scale."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dashboard.tiles.deepzoom import Box
from dashboard.tiles.recent import Recent
from wsi_denoise.slide.base import Slide, stat_source

Pixels = NDArray[np.uint8]

OPEN_SLIDES = 6
"""Each keeps up to 32 MiB of decoded tiles."""

MOST_PIXELS = 24_000_000
"""Pixels that are read for one tile at most: a tile of 512 px from a level eight times as large is 17 million."""

EMPTY = (236, 236, 236)
"""Colour of what cannot be shown at a scale."""


class OpenSlides:
    """Opens slides, and keeps those used last. Safe to use from several threads."""

    def __init__(self, max_megapixels: float, limit: int = OPEN_SLIDES) -> None:
        self._max_megapixels = max_megapixels
        self._lock = threading.Lock()
        # Dropped, not closed: another thread may be reading.
        self._slides: Recent[tuple[str, int, int], Slide] = Recent(limit)
        self._opening: dict[tuple[str, int, int], threading.Lock] = {}

    def get(self, path: Path) -> Slide:
        """Return an open slide; it is closed when no caller holds it any more.

        Raises
        ------
        SlideError, SourceError
        """
        status = stat_source(path)
        key = (str(path), status.st_size, status.st_mtime_ns)
        with self._lock:
            turn = self._opening.setdefault(key, threading.Lock())
        try:
            with turn:
                return self._open(path, key)
        finally:
            with self._lock:
                # Also where it cannot be opened. Another one's turn may have begun.
                if self._opening.get(key) is turn:
                    del self._opening[key]

    def _open(self, path: Path, key: tuple[str, int, int]) -> Slide:
        # Not at import: the routes that need no slide must start quickly.
        from wsi_denoise.slide.reader import open_slide  # noqa: PLC0415

        found = self._slides.get(key)
        if found is None:
            found = open_slide(path, max_megapixels=self._max_megapixels)
            self._slides.drop(lambda other: other[0] == key[0])
            self._slides.put(key, found)
        return found

    def __len__(self) -> int:
        return len(self._slides)


class Plane(Protocol):
    """The slide at one size."""

    size: tuple[int, int]

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return (height, width, 3) uint8."""
        ...


@dataclass(frozen=True)
class LevelPlane:
    """A level of an open slide, or a part of its level 0 that starts at `origin` (x, y)."""

    slide: Slide
    level: int
    size: tuple[int, int]
    origin: tuple[int, int] = (0, 0)

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return (height, width, 3) uint8."""
        return self.slide.read_level(self.level, x + self.origin[0], y + self.origin[1], width, height)


@dataclass(frozen=True)
class PicturePlane:
    """A small picture of the whole slide."""

    pixels: Pixels

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return (height, width, 3) uint8."""
        return self.pixels[y : y + height, x : x + width]


@dataclass(frozen=True)
class View:
    """One slide at any scale.

    Parameters
    ----------
    width, height : int
        Pixels at level 0.
    planes : sequence of Plane
        The same slide at several sizes; the first is level 0 where there is one.
    """

    width: int
    height: int
    planes: Sequence[Plane]

    def read(self, box: Box) -> Pixels:
        """Return the pixels of a box, (box.height, box.width, 3) uint8, made smaller by area means.

        Raises
        ------
        SlideError, SourceError
        """
        plane = self.plane_for(box)
        if plane is None:
            return np.full((box.height, box.width, 3), EMPTY, np.uint8)
        left, right, x, x_stop = _along(box.left, box.right, self.width, plane.size[0])
        top, bottom, y, y_stop = _along(box.top, box.bottom, self.height, plane.size[1])
        pixels = plane.read(x, y, x_stop - x, y_stop - y)
        beyond = max(0, _ceil(bottom) - y_stop), max(0, _ceil(right) - x_stop)
        if any(beyond):
            pixels = np.pad(pixels, ((0, beyond[0]), (0, beyond[1]), (0, 0)), mode="edge")
        return _resized(pixels, (left - x, top - y, right - x, bottom - y), (box.width, box.height))

    def plane_for(self, box: Box) -> Plane | None:
        """Return the smallest plane that is fine enough; if that is too much to read, the largest that is coarser."""
        fine, coarse = [], []
        for plane in self.planes:
            step = self.width / plane.size[0]
            cost = (box.right - box.left) * (box.bottom - box.top) / step**2
            (fine if step <= box.scale * 1.02 and cost <= MOST_PIXELS else coarse).append((step, cost, plane))
        if fine:
            return max(fine, key=lambda each: each[0])[2]
        possible = [each for each in coarse if each[1] <= MOST_PIXELS]
        return min(possible, key=lambda each: each[0])[2] if possible else None


def _along(start: float, stop: float, full: int, size: int) -> tuple[float, float, int, int]:
    """Return the place of a part of level 0 along one side of a plane: exact start and stop, and the pixels to read."""
    ratio = full / size
    step = round(ratio)
    # Levels are made by whole steps and rounded up or down at the end; their sizes alone say 3.996 instead of 4.
    scale = step if step and size in {full // step, -(-full // step)} else ratio
    first, last = start / scale, stop / scale
    begin = min(int(first + 1e-6), size - 1)
    return first, last, begin, max(begin + 1, min(_ceil(last), size))


def _resized(pixels: Pixels, inner: tuple[float, float, float, float], size: tuple[int, int]) -> Pixels:
    """Return the inner part (left, top, right, bottom) of pixels in another size (width, height), by area means."""
    width, height = size
    step = pixels.shape[0] // height
    if pixels.shape[:2] == (height * step, width * step) and max(abs(inner[0]), abs(inner[1])) < 1e-6:
        # An eighth of the time that a general resize takes.
        return pixels if step == 1 else np.asarray(Image.fromarray(pixels).reduce(step))
    limits = max(0.0, inner[0]), max(0.0, inner[1]), min(inner[2], pixels.shape[1]), min(inner[3], pixels.shape[0])
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX, box=limits))


def _ceil(value: float) -> int:
    return int(-(-(value - 1e-6) // 1))


def level_planes(slide: Slide, levels: Sequence[int]) -> list[Plane]:
    """Return the planes of some of a slide's levels."""
    return [LevelPlane(slide, level, slide.info.levels[level]) for level in levels]
