"""Reader of TIFFs, tile by tile or strip by strip, with tifffile and imagecodecs.

It is six times as fast as OpenSlide on a JPEG SVS. It also reads files that OpenSlide rejects: strips, and OME-TIFF
with its levels in sub-directories. If OpenSlide can open a file too, tiff_opening.py compares both readers.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_denoise.errors import UnsupportedSlide
from wsi_denoise.slide import metadata
from wsi_denoise.slide.base import (
    DecodeFailure,
    Pixels,
    Slide,
    SlideInfo,
    check_unchanged,
    composite,
    from_os_error,
)
from wsi_denoise.slide.readers import tiff_directory, tiff_metadata
from wsi_denoise.slide.readers.tiff_colours import Rules
from wsi_denoise.slide.readers.tiff_directory import Directory, TiffFacts
from wsi_denoise.slide.readers.tile_decoder import TileDecoder

#: Maximum bytes of cached tiles per slide: neighbouring regions share their edge tiles.
CACHE_BYTES = 32 << 20
CODECS = frozenset(
    {1, 5, 7, 8, 32946, 32773, 33003, 33004, 33005, 33007, 34712, 34887, 34925, 34926, 34927, 34933, 34934, 22610}
    | {50000, 50001, 50002}
)
_YCBCR_CODECS = ("jpeg", "jpeg2000")
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def readable(directory: Directory) -> str:
    """Return the reason why this reader cannot read a directory; empty if it can."""
    width, height = directory.segment
    reason = ""
    if directory.compression not in CODECS:
        reason = f"its tiles are compressed with {directory.codec}"
    elif directory.planar and directory.photometric == 6:
        reason = "luma and chroma are stored apart"
    elif set(directory.bits) != {8} or directory.samples not in (3, 4) or directory.photometric not in (2, 6):
        reason = "it is not 8-bit RGB"
    elif directory.photometric == 6 and directory.codec not in _YCBCR_CODECS:
        reason = f"its tag says YCbCr, which is not read with codec {directory.codec}"
    elif width < 1 or height < 1:
        reason = f"its tiles are declared as {width} x {height} px"
    elif width * height * directory.samples > tiff_directory.MAX_SEGMENT_BYTES and not _is_direct(directory):
        reason = f"a single tile or strip of it has {width:,} x {height:,} px"
    elif min(len(directory.offsets), len(directory.counts)) < directory.planes * directory.grid[0] * directory.grid[1]:
        reason = "its table of tiles is shorter than its size asks for"
    return reason


def _is_direct(directory: Directory) -> bool:
    """Return whether rows are stored without compression or predictor."""
    return not directory.is_tiled and directory.compression == 1 and directory.predictor == 1


def levels_of(facts: TiffFacts) -> list[Directory]:
    """Return the levels of a TIFF that OpenSlide does not describe: main image, then its smaller versions."""
    main = facts.main
    chosen = [main]
    for directory in facts.directories[1:]:
        below = len(directory.path) == 2 and directory.path[0] == 0
        width, height = directory.size
        last = chosen[-1].size
        if not (below or (len(directory.path) == 1 and directory.reduced)) or readable(directory):
            continue
        # A label or macro image has another aspect ratio; those of levels differ only by rounding.
        scale = main.size[0] / max(1, width)
        if 0 < width < last[0] and 0 < height <= last[1] and abs(main.size[1] / scale - height) <= 2:
            chosen.append(directory)
    return chosen


def levels_as(facts: TiffFacts, sizes: tuple[tuple[int, int], ...]) -> list[Directory] | None:
    """Return the tiled directories with the (width, height) of OpenSlide's levels, or None if one is missing."""
    chosen: list[Directory] = []
    for size in sizes:
        match = [each for each in facts.directories if each.size == size and each.is_tiled and not readable(each)]
        if not match:
            return None
        chosen.append(match[0])
    return chosen


def info_from(facts: TiffFacts, path: Path, levels: list[Directory]) -> SlideInfo:
    """Return the facts of a TIFF that OpenSlide does not describe."""
    main = facts.main
    width, height = main.size
    info = SlideInfo(
        path=path,
        width=width,
        height=height,
        levels=tuple(directory.size for directory in levels),
        vendor=metadata.first({"make": main.text(tiff_directory.MAKE)}, ("make",)),
        model=metadata.first({"model": main.text(tiff_directory.MODEL)}, ("model",)),
        icc_profile=main.icc_profile,
        compression=main.codec,
        reader="tifffile",
    )
    return tiff_metadata.described(info, main, path)


@dataclass(frozen=True)
class _Level:
    """A directory with the decoder of its tiles or strips."""

    directory: Directory
    decoder: TileDecoder


class TiffSlide(Slide):
    """A TIFF read tile by tile.

    Parameters
    ----------
    info : SlideInfo
        Its levels are those of `levels`.
    levels : list of Directory
        Each one :func:`readable`.
    rules : dict of path to ColourRule
        Colour rule of each level.

    Raises
    ------
    UnsupportedSlide
        If tifffile reads the directories differently than tiff_check.py.
    """

    def __init__(self, info: SlideInfo, levels: list[Directory], rules: Rules) -> None:
        self.info = info
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[int, int], Pixels] = OrderedDict()
        self._cached = 0
        try:
            self._file: int | None = os.open(info.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise from_os_error(error, info.path) from error
        status = os.fstat(self._file)
        self._status = (status.st_size, status.st_mtime_ns)
        try:
            self._levels = _pages(info.path, levels, rules)
        except BaseException:
            self.close()
            raise

    def set_background(self, colour: tuple[int, int, int]) -> None:
        """Change the colour behind transparent areas."""
        super().set_background(colour)
        self.trim()  # cached tiles were composited on the old one

    def trim(self) -> None:
        """Free decoded tiles."""
        with self._lock:
            self._cache.clear()
            self._cached = 0

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            file, self._file = self._file, None
            self._cache.clear()
            self._cached = 0
        if file is not None:
            os.close(file)

    def __del__(self) -> None:
        # The cache of open slides drops a slide while another thread may read it, so the last reference closes it.
        if getattr(self, "_file", None) is not None:
            self.close()

    def read_last(self) -> None:
        """Decode the last tile of the file, which a copy writes last.

        Raises
        ------
        UnreadableTile
        """
        level, x, y = self._last()
        self._read_safely(level, x, y, 1, 1)

    def _last(self) -> tuple[int, int, int]:
        """Return (level, x, y) of the tile with the highest offset."""
        places = []
        for index, level in enumerate(self._levels):
            directory = level.directory
            columns, rows = directory.grid
            number = int(np.argmax(directory.offsets[: directory.planes * columns * rows]))
            row, column = divmod(number % (columns * rows), columns)
            places.append(
                (int(directory.offsets[number]), (index, column * directory.segment[0], row * directory.segment[1]))
            )
        return max(places)[1]

    def _still_there(self) -> None:
        check_unchanged(self.info.path, *self._status)

    def _read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        directory = self._levels[level].directory
        result = np.empty((height, width, 3), np.uint8)
        if _is_direct(directory):
            self._read_rows(level, x, y, result)
            return result
        step_x, step_y = directory.segment
        columns = directory.grid[0]
        for top, left in self._tiles(x, y, width, height, step_x, step_y):
            tile = self._segment(level, top // step_y * columns + left // step_x)
            x0, y0 = max(left, x), max(top, y)
            x1, y1 = min(left + step_x, x + width), min(top + step_y, y + height)
            result[y0 - y : y1 - y, x0 - x : x1 - x] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
        return result

    def _read_rows(self, level: int, x: int, y: int, result: Pixels) -> None:
        """Fill `result` from uncompressed strips, without reading whole strips."""
        directory = self._levels[level].directory
        row, end = y, y + result.shape[0]
        while row < end:
            strip, within = divmod(row, directory.segment[1])
            rows = min(directory.segment[1] - within, end - row)
            planes = [
                self._strip_rows(level, strip + plane * directory.grid[1], within, rows)[:, x : x + result.shape[1]]
                for plane in range(directory.planes)
            ]
            pixels = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)
            result[row - y : row - y + rows] = self._rgb(directory, pixels)
            row += rows

    def _strip_rows(self, level: int, strip: int, first: int, rows: int) -> Pixels:
        """Return rows of an uncompressed strip, (rows, width, samples)."""
        directory = self._levels[level].directory
        samples = directory.samples // directory.planes
        row_bytes = directory.size[0] * samples
        if int(directory.counts[strip]) < (first + rows) * row_bytes:
            row = strip % directory.grid[1] * directory.segment[1]
            raise DecodeFailure("the strip has too few bytes", (level, 0, row))
        raw = self._bytes(int(directory.offsets[strip]) + first * row_bytes, rows * row_bytes)
        if directory.reversed_bits:
            raw = raw.translate(_REVERSED)
        return np.frombuffer(raw, np.uint8).reshape(rows, directory.size[0], samples)

    def _segment(self, level: int, number: int) -> Pixels:
        """Return a decoded tile or strip, (height, width, 3), from the cache if it is there."""
        key = (level, number)
        with self._lock:
            found = self._cache.get(key)
            if found is not None:
                self._cache.move_to_end(key)
                return found
        pixels = self._decode(level, number)
        with self._lock:
            if key not in self._cache:
                self._cache[key] = pixels
                self._cached += pixels.nbytes
            while self._cached > CACHE_BYTES and len(self._cache) > 1:
                self._cached -= self._cache.popitem(last=False)[1].nbytes
        return pixels

    def _decode(self, level: int, number: int) -> Pixels:
        source = self._levels[level]
        directory = source.directory
        columns, _ = directory.grid
        step_x, step_y = directory.segment
        row, column = divmod(number, columns)
        place = (level, column * step_x, row * step_y)
        width = min(step_x, directory.size[0] - place[1])
        height = min(step_y, directory.size[1] - place[2])
        numbers = [number + plane * directory.grid[0] * directory.grid[1] for plane in range(directory.planes)]
        if not any(int(directory.counts[each]) for each in numbers):
            return np.broadcast_to(np.array(self.info.background, np.uint8), (height, width, 3))
        planes = []
        for each in numbers:
            data = self._bytes(int(directory.offsets[each]), int(directory.counts[each]))
            try:
                plane = source.decoder.decode(data, each)
            except DecodeFailure as failure:
                failure.place = place
                raise
            if plane.shape[0] < height or plane.shape[1] < width:
                reason = f"the tile has {plane.shape[1]} x {plane.shape[0]} px, not {width} x {height}"
                raise DecodeFailure(reason, place)
            planes.append(plane[:height, :width])
        pixels = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)
        return self._rgb(directory, pixels)

    def _rgb(self, directory: Directory, pixels: Pixels) -> Pixels:
        """Return RGB pixels; transparent ones are composited on the background."""
        if directory.samples == 4 and pixels.shape[2] == 4 and directory.extra_sample in (1, 2):
            return composite(
                pixels[..., :3], pixels[..., 3], self.info.background, premultiplied=directory.extra_sample == 1
            )
        return np.ascontiguousarray(pixels[..., :3])

    def _bytes(self, offset: int, count: int) -> bytes:
        if self._file is None:
            raise ValueError("the slide is closed")
        data = os.pread(self._file, count, offset)
        while len(data) < count:
            more = os.pread(self._file, count - len(data), offset + len(data))
            if not more:
                raise DecodeFailure("the file ends within the tile")
            data += more
        return data


def _pages(path: Path, levels: list[Directory], rules: Rules) -> list[_Level]:
    """Return each level with a decoder from tifffile's page."""
    import tifffile  # noqa: PLC0415

    # tifffile logs an error for each unusual tag; tiff_check.py has already reported the relevant ones.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    found, same = [], True
    try:
        with tifffile.TiffFile(path, is_ome=False, is_mmstack=False) as tiff:
            for directory in levels:
                page = tiff.pages[directory.path[0]]
                for below in directory.path[1:]:
                    page = page.pages[below]
                # The decoder reads the first tile, so it is made while the file is open.
                same = same and (page.imagewidth, page.imagelength) == directory.size
                found.append(_Level(directory, TileDecoder(directory, page, rules[directory.path])))
    except OSError as error:
        raise from_os_error(error, path) from error
    except Exception as error:  # tifffile raises any exception for damage
        raise UnsupportedSlide(f"its directories cannot be read ({error})") from error
    if not same:
        raise UnsupportedSlide("two libraries read its directories differently")
    return found
