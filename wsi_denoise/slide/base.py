"""The interface of an open slide: facts, pixels of a region, and a thumbnail.

This module imports no decoder, so that other modules can import :class:`SlideInfo` cheaply.
"""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import numpy as np
import numpy.typing as npt

from wsi_denoise.errors import (
    ContradictoryColours,
    NotARegularFile,
    SlideChanged,
    SlideVanished,
    SourceUnavailable,
    TooLarge,
    TruncatedSlide,
    UnreadableTile,
    WsiDenoiseError,
)

Pixels = npt.NDArray[np.uint8]

#: Source pixels in memory at a time while a thumbnail is made.
STRIP_PIXELS = 16_000_000

#: Minimum number of pixels of a smaller level that are averaged along each side of a thumbnail's pixel.
OVERSAMPLING = 3
#: Side in level-0 pixels of the boxes in which a smaller level is compared with level 0.
SPOT = 256
#: Tolerance in grey levels between the mean colours of a smaller level and of level 0.
LEVEL_TOLERANCE = 12.0

_GONE = {errno.ENOENT, errno.ENOTDIR}


@dataclass(frozen=True)
class SlideInfo:
    """Facts about a slide. They include no label text, and no vendor property outside this list.

    Parameters
    ----------
    path : Path
        The file, or the folder of a DICOM series or NGFF image.
    width, height : int
        Size of level 0 in pixels.
    mpp : (float, float) or None
        Micrometres per pixel in x and y; None if the file states no plausible value.
    levels : tuple of (int, int)
        (width, height) of each level of the source, largest first.
    vendor, model : str or None
        Maker and model of the scanner.
    serial_hash : str or None
        First 12 hexadecimal digits of the SHA-256 of the scanner's serial number.
    scan_week : str or None
        ISO week of the scan, such as ``2009-W53``.
    background : (int, int, int)
        RGB of empty glass: from the file, else an estimate, else white.
    compression : str or None
        Codec of the source's pixels, such as ``jpeg`` or ``jpeg2000``.
    reader : str
        Library that decodes the pixels: ``tifffile``, ``openslide``, ``zarr``, ``imagecodecs`` or ``glymur``.
    tile : (int, int)
        (width, height) of the source's tiles at level 0, or of the most efficient reads.
    notes : tuple of str
        Irregularities of the file and how they were handled.
    """

    path: Path
    width: int
    height: int
    mpp: tuple[float, float] | None = None
    objective_power: float | None = None
    levels: tuple[tuple[int, int], ...] = ()
    vendor: str | None = None
    model: str | None = None
    serial_hash: str | None = None
    scan_week: str | None = None
    icc_profile: bytes | None = None
    background: tuple[int, int, int] = (255, 255, 255)
    compression: str | None = None
    reader: str = ""
    tile: tuple[int, int] = (256, 256)
    notes: tuple[str, ...] = ()


class DecodeFailure(Exception):
    """A region could not be decoded; internal to the readers.

    Parameters
    ----------
    reason : str
        Message of the library.
    place : (int, int, int), optional
        Level, x and y (in that level's pixels) of the tile, if the reader knows it.
    """

    def __init__(self, reason: str, place: tuple[int, int, int] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason.strip().rstrip(".") or "no reason given"
        self.place = place


class ColourFailure(DecodeFailure):
    """A tile has an uncertain colour model."""


class Slide(ABC):
    """An open slide; a context manager. Threads may share it. Processes may not: send the path instead."""

    info: SlideInfo

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return pixels of level 0.

        Parameters
        ----------
        x, y : int
            Upper left corner in pixels of level 0.
        width, height : int
            Size in pixels; the region lies within the slide.

        Returns
        -------
        uint8 array, (height, width, 3), RGB
            Transparent areas are composited on the slide's background colour.

        Raises
        ------
        UnreadableTile, TruncatedSlide
            If a second try fails too; names level, x and y of the tile.
        ContradictoryColours
            If a tile has an uncertain colour model.
        SlideVanished, SlideChanged, SourceUnavailable
            If the file disappeared or changed, or its place cannot be read.
        ValueError
            For a region that is empty or not within the slide.
        """
        self._inside(0, x, y, width, height)
        return self._read_safely(0, x, y, width, height)

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Return pixels of a level, as :meth:`read` for level 0; coordinates and sizes are in that level's pixels.

        A smaller level may differ from level 0: see :meth:`level_is_true`.
        """
        self._inside(level, x, y, width, height)
        return self._read_safely(level, x, y, width, height)

    def thumbnail(self, max_side: int) -> Pixels:
        """Return the whole slide, reduced by area means to at most `max_side` pixels along its longer side.

        It is read in strips, so that memory is bounded even for a slide of one level. The source is the smallest level
        with at least three times the size: some files have subsampled levels, whose noise needs averaging.

        Returns
        -------
        uint8 array, (height, width, 3), RGB
        """
        if max_side < 1:
            raise ValueError("max_side must be at least 1")
        width, height = self.info.width, self.info.height
        scale = min(1.0, max_side / max(width, height))
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        wanted = (OVERSAMPLING * small[0], OVERSAMPLING * small[1])
        adequate = [
            index for index, size in enumerate(self.info.levels) if size[0] >= wanted[0] and size[1] >= wanted[1]
        ]
        for level in reversed(adequate[1:]):
            if not self.level_is_true(level):
                continue
            try:
                return self._shrunk(level, small)
            except (UnreadableTile, ContradictoryColours):
                # Outputs are made from level 0 only, so a smaller level that cannot be decoded does not matter.
                continue
        return self._shrunk(0, small)

    def level_is_true(self, level: int) -> bool:
        """Return whether a smaller level can be read and agrees with level 0, on nine spots.

        Some files have smaller levels with wrong colours or undecodable tiles, which level 0 does not show.
        """
        if level == 0:
            return True
        full = self.info.levels[0]
        differences = []
        for step in range(9):
            centre = (1 + 2 * (step % 3)) / 6, (1 + 2 * (step // 3)) / 6
            try:
                means = [self._mean_at(index, centre, (SPOT / full[0], SPOT / full[1])) for index in (0, level)]
            except (DecodeFailure, OSError):
                return False
            differences.append(means[0] - means[1])
        return bool(np.abs(np.mean(differences, axis=0)).max() <= LEVEL_TOLERANCE)

    def _mean_at(self, level: int, centre: tuple[float, float], share: tuple[float, float]) -> npt.NDArray[np.float64]:
        """Return the mean colour of a box at a level; `centre` and `share` are fractions of the slide."""
        starts, sizes = [], []
        for middle, part, full in zip(centre, share, self.info.levels[level], strict=True):
            size = min(full, max(1, round(part * full)))
            starts.append(min(max(0, round(middle * full - size / 2)), full - size))
            sizes.append(size)
        pixels = self._read(level, starts[0], starts[1], sizes[0], sizes[1])
        mean: npt.NDArray[np.float64] = pixels.mean(axis=(0, 1), dtype=np.float64)
        return mean

    def is_empty(self, level: int, x: int, y: int, width: int, height: int) -> bool:  # noqa: ARG002
        """Return whether the file stores no pixels of a region; reading it then returns a filling.

        False if the reader does not know. In formats with transparency the filling is the background.
        """
        return False

    def set_background(self, colour: tuple[int, int, int]) -> None:
        """Change the colour behind transparent areas. Call it before other threads use the slide."""
        self.info = replace(self.info, background=colour)

    def trim(self) -> None:  # noqa: B027 - most keep nothing
        """Free decoded pixels that are cached for the next read."""

    @abstractmethod
    def close(self) -> None:
        """Close the slide. It must not be read afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("an open slide is never pickled: send its path and use open_cached")

    @abstractmethod
    def _read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Decode a region of a level, in that level's pixels. It can be called again after DecodeFailure."""

    def _inside(self, level: int, x: int, y: int, width: int, height: int) -> None:
        size = self.info.levels[level]
        if width < 1 or height < 1 or x < 0 or y < 0 or x + width > size[0] or y + height > size[1]:
            raise ValueError(
                f"region x {x}, y {y}, {width} x {height} is not within level {level}, {size[0]} x {size[1]}"
            )

    def _read_safely(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Read a region, retry once after a failure, and raise the error that names the cause."""
        for last in (False, True):
            try:
                return self._read(level, x, y, width, height)
            except ColourFailure as failure:
                self._still_there()
                raise ContradictoryColours(f"level {level}: {failure.reason}") from failure
            except DecodeFailure as failure:
                self._still_there()
                if last:
                    error = self._unreadable(failure, level, x, y, width, height)
                    # libdicom's message for a truncated file.
                    raise (TruncatedSlide(error.detail) if "end of filehandle" in error.detail else error) from failure
            except OSError as trouble:
                raise from_os_error(trouble, self.info.path) from trouble
        raise AssertionError  # the loop returns or raises

    def _unreadable(
        self, failure: DecodeFailure, level: int, x: int, y: int, width: int, height: int
    ) -> UnreadableTile:
        """Return the error for the first tile of a failed region that cannot be read."""
        if failure.place is not None:
            return unreadable(failure.place, failure.reason)
        step_x, step_y = self.info.tile
        for top, left in self._tiles(x, y, width, height, step_x, step_y):
            x0, y0 = max(left, x), max(top, y)
            x1, y1 = min(left + step_x, x + width), min(top + step_y, y + height)
            try:
                self._read(level, x0, y0, x1 - x0, y1 - y0)
            except DecodeFailure as found:
                return unreadable(found.place or (level, left, top), found.reason)
        return unreadable((level, x, y), failure.reason)

    @staticmethod
    def _tiles(x: int, y: int, width: int, height: int, step_x: int, step_y: int) -> Iterator[tuple[int, int]]:
        for top in range(y - y % step_y, y + height, step_y):
            for left in range(x - x % step_x, x + width, step_x):
                yield top, left

    def _still_there(self) -> None:
        """Raise the error of a missing or unreadable file, if that is the cause of a failure."""
        stat_source(self.info.path)

    def _shrunk(self, level: int, size: tuple[int, int]) -> Pixels:
        """Return a level reduced to `size` (width, height) by area means, read in strips."""
        from PIL import Image  # noqa: PLC0415

        width, height = self.info.levels[level]
        if size == (width, height):
            return self._read_safely(level, 0, 0, width, height)
        result = np.empty((size[1], size[0], 3), np.uint8)
        per_row, per_column = height / size[1], width / size[0]
        rows = max(1, int(STRIP_PIXELS / (width * per_row)))
        # A single row of the result can need more than STRIP_PIXELS: then the strip is split into columns too.
        columns = size[0] if rows > 1 else max(1, int(STRIP_PIXELS / (per_column * (per_row + 1))))
        for top in range(0, size[1], rows):
            bottom = min(top + rows, size[1])
            for left in range(0, size[0], columns):
                right = min(left + columns, size[0])
                x0, y0 = int(left * per_column), int(top * per_row)
                x1, y1 = min(width, _ceil(right * per_column)), min(height, _ceil(bottom * per_row))
                strip = self._read_safely(level, x0, y0, x1 - x0, y1 - y0)
                box = (
                    left * per_column - x0,
                    top * per_row - y0,
                    min(right * per_column - x0, x1 - x0),
                    min(bottom * per_row - y0, y1 - y0),
                )
                small = Image.fromarray(strip).resize((right - left, bottom - top), Image.Resampling.BOX, box=box)
                result[top:bottom, left:right] = np.asarray(small)
        return result


def _ceil(value: float) -> int:
    # Floating-point products may be slightly above the exact integer.
    return int(-(-(value - 1e-9) // 1))


def unreadable(place: tuple[int, int, int], reason: str) -> UnreadableTile:
    """Return the error for a tile at `place` (level, x, y)."""
    return UnreadableTile(f"level {place[0]}, x {place[1]}, y {place[2]} ({reason})")


def from_os_error(error: OSError, path: Path) -> WsiDenoiseError:
    """Return the error for an OSError on a slide: the file is missing, or its place cannot be read."""
    if error.errno in _GONE:
        return SlideVanished(path.name)
    return SourceUnavailable(f"{path.name}: {error.strerror or error}")


def stat_source(path: Path) -> os.stat_result:
    """Return the stat of a slide's file or folder.

    Raises
    ------
    SlideVanished, SourceUnavailable
    NotARegularFile
        For a pipe, socket or device. It must not be opened, because that can block or have side effects.
    """
    try:
        found = path.stat()
    except ValueError as error:  # an embedded null byte
        raise SlideVanished(repr(path.name)) from error
    except OSError as error:
        raise from_os_error(error, path) from error
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise NotARegularFile(path.name)
    return found


def check_size(info: SlideInfo, max_megapixels: float) -> None:
    """Raise TooLarge if level 0 has more than `max_megapixels` million pixels."""
    if info.width * info.height > max_megapixels * 1e6:
        raise TooLarge(f"{info.width:,} x {info.height:,} px; limits.megapixels is {max_megapixels:g}")


def check_unchanged(path: Path, size: int, mtime_ns: int, *, tolerance_ns: int = 0) -> None:
    """Raise SlideChanged if a file's size or modification time has changed."""
    found = stat_source(path)
    if found.st_size != size or abs(found.st_mtime_ns - mtime_ns) > tolerance_ns:
        raise SlideChanged(path.name)


@dataclass(frozen=True)
class SourceFile:
    """A file of a slide at the time of its fingerprint.

    Parameters
    ----------
    size : int
        Bytes.
    mtime_ns : int
        Modification time, nanoseconds since 1970.
    """

    path: Path
    size: int
    mtime_ns: int


def as_found(path: Path) -> SourceFile:
    """Return a file's present size and modification time.

    Raises
    ------
    SlideVanished, SourceUnavailable, NotARegularFile
    """
    status = stat_source(path)
    return SourceFile(path, status.st_size, status.st_mtime_ns)


MTIME_TOLERANCE = 2_000_000_000
"""Nanoseconds. Hosts may see the modification times of a share rounded to up to two seconds."""


def check_files(files: Iterable[SourceFile]) -> None:
    """Check that no file has changed since the fingerprint.

    Raises
    ------
    SlideVanished, SlideChanged, SourceUnavailable
    """
    for file in files:
        check_unchanged(file.path, file.size, file.mtime_ns, tolerance_ns=MTIME_TOLERANCE)


def composite(rgb: Pixels, alpha: Pixels, background: tuple[int, int, int], *, premultiplied: bool = False) -> Pixels:
    """Composite RGB pixels with transparency on a background colour.

    Parameters
    ----------
    rgb : uint8 array, (height, width, 3)
    alpha : uint8 array, (height, width)
        255 is opaque.
    background : (int, int, int)
        RGB.
    premultiplied : bool
        `rgb` is already multiplied by alpha.

    Returns
    -------
    uint8 array, (height, width, 3)
    """
    if alpha.size == 0 or int(alpha.min()) == 255:
        return np.ascontiguousarray(rgb)
    weight = alpha[..., None].astype(np.uint16)
    front = rgb.astype(np.uint32) * (255 if premultiplied else weight)
    behind = np.array(background, np.uint16) * (255 - weight)
    mixed: Pixels = np.minimum((front + behind + 127) // 255, 255).astype(np.uint8)
    return mixed
