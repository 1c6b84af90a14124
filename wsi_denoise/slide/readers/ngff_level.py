"""One level of an NGFF image: its pixels, and the masks of its stored chunks."""

from __future__ import annotations

import functools
import logging
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsi_denoise.errors import NotRGB, UnsupportedSlide
from wsi_denoise.slide.base import DecodeFailure, Pixels
from wsi_denoise.slide.readers.ngff_array import ZarrArray
from wsi_denoise.slide.readers.ngff_files import Bools, stored_chunks

#: Chunks of more decoded bytes are cached for the next read; smaller ones are decoded again.
LARGE_CHUNK = 1_500_000
#: Maximum bytes of cached chunks per level.
CACHE_BYTES = 64 << 20


class ChunkGone(Exception):
    """A chunk that was stored when the level was opened is missing; names its file."""


@dataclass(frozen=True)
class Placement:
    """Positions of the pixel axes among an array's dimensions; every other dimension has length 1."""

    y: int
    x: int
    channel: int


def placement_of(array: ZarrArray, axes: Sequence[str]) -> Placement:
    """Return the positions of the pixel axes.

    Raises
    ------
    NotRGB
        The array has other than three channels.
    UnsupportedSlide
        The array has several planes or times, or not the dimensions in the metadata.
    """
    if len(axes) != len(array.shape):
        raise UnsupportedSlide(
            f"its NGFF metadata has {len(axes)} axes, and level {array.folder.name} has {len(array.shape)}"
        )
    sizes = dict(zip(axes, array.shape, strict=True))
    channels = sizes.get("c", 1)
    if channels != 3:
        raise NotRGB(f"it has {channels} channel{'s' * (channels != 1)}, not red, green and blue")
    for name, size in sizes.items():
        if name not in {"c", "y", "x"} and size != 1:
            what = {"z": "focal planes", "t": "points in time"}.get(name, f"positions along the axis {name}")
            raise UnsupportedSlide(f"it has {size} {what}; one is supported")
    return Placement(axes.index("y"), axes.index("x"), axes.index("c"))


class Level:
    """One level, open for reading. Threads may share it.

    Parameters
    ----------
    axes : sequence of str
        Names of the array's dimensions.
    order : (int, int, int)
        Positions of red, green and blue along the channel axis.

    Attributes
    ----------
    size : (int, int)
        (width, height).
    chunk : (int, int)
        (width, height) of a chunk.
    stored : bool array, (channel chunks, rows, columns)
        Stored chunks. The others have the fill value.
    missing : bool array, (channel chunks, rows, columns)
        Chunks whose file, which may be a shard, does not exist.

    Raises
    ------
    IncompleteSlide, NotARegularFile, NotRGB, UnsupportedSlide
    """

    def __init__(self, array: ZarrArray, axes: Sequence[str], order: tuple[int, int, int]) -> None:
        self._place = placement_of(array, axes)
        self.array = array
        self._order = order
        y, x = self._place.y, self._place.x
        self.size = (array.shape[x], array.shape[y])
        self.chunk = (min(array.chunks[x], self.size[0]), min(array.chunks[y], self.size[1]))
        self.channel_step = array.chunks[self._place.channel]
        stored = stored_chunks(array)
        self.stored: Bools = _pixel_axes(stored.chunks, self._place)
        self.missing = _pixel_axes(~_per_chunk(stored.files, array), self._place)
        self._source = _open(array, stored.files)
        self._cache: OrderedDict[tuple[int, int], Pixels] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Name of the level's folder."""
        return self.array.folder.name

    def numbers(self, place: tuple[int, int, int]) -> tuple[int, ...]:
        """Return the numbers of the file of the chunk at `place` (channel chunk, row, column)."""
        numbers = [0] * len(self.array.shape)
        for position, number in zip((self._place.channel, self._place.y, self._place.x), place, strict=True):
            numbers[position] = number * self.array.chunks[position] // self.array.files[position]
        return tuple(numbers)

    def box(self, place: tuple[int, int, int]) -> tuple[int, int, int, int]:
        """Return (x, y, width, height) of the chunk at `place`, clipped to the level."""
        x, y = place[2] * self.chunk[0], place[1] * self.chunk[1]
        return x, y, min(self.chunk[0], self.size[0] - x), min(self.chunk[1], self.size[1] - y)

    def channels(self, place: tuple[int, int, int]) -> list[int]:
        """Return the channels, red, green and blue (0, 1, 2), of the chunk at `place`."""
        first = place[0] * self.channel_step
        return [index for index, stored_at in enumerate(self._order) if first <= stored_at < first + self.channel_step]

    def is_gap(self, x: int, y: int, width: int, height: int) -> bool:
        """Return whether no chunk of a region is stored."""
        rows = slice(y // self.chunk[1], -(-(y + height) // self.chunk[1]))
        columns = slice(x // self.chunk[0], -(-(x + width) // self.chunk[0]))
        return not self.stored[:, rows, columns].any()

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return pixels, (height, width, 3).

        Raises
        ------
        DecodeFailure
        ChunkGone
        """
        step_x, step_y = self.chunk
        if step_x * step_y * 3 <= LARGE_CHUNK:
            return self._decode(x, y, width, height)
        result = np.empty((height, width, 3), np.uint8)
        for row in range(y // step_y, -(-(y + height) // step_y)):
            for column in range(x // step_x, -(-(x + width) // step_x)):
                top, left = row * step_y, column * step_x
                pixels = self._kept(row, column)
                y0, x0 = max(top, y), max(left, x)
                y1, x1 = min(top + pixels.shape[0], y + height), min(left + pixels.shape[1], x + width)
                result[y0 - y : y1 - y, x0 - x : x1 - x] = pixels[y0 - top : y1 - top, x0 - left : x1 - left]
        return result

    def trim(self) -> None:
        """Free decoded chunks."""
        with self._lock:
            self._cache.clear()

    def _kept(self, row: int, column: int) -> Pixels:
        """Return a whole chunk, from the cache if it is there."""
        key = (row, column)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        left, top = column * self.chunk[0], row * self.chunk[1]
        width, height = min(self.chunk[0], self.size[0] - left), min(self.chunk[1], self.size[1] - top)
        pixels = self._decode(left, top, width, height)
        with self._lock:
            self._cache[key] = pixels
            while len(self._cache) > 1 and sum(each.nbytes for each in self._cache.values()) > CACHE_BYTES:
                self._cache.popitem(last=False)
        return pixels

    def _decode(self, x: int, y: int, width: int, height: int) -> Pixels:
        place = self._place
        selection: list[int | slice] = [0] * len(self.array.shape)
        selection[place.y], selection[place.x] = slice(y, y + height), slice(x, x + width)
        selection[place.channel] = slice(0, 3)
        try:
            pixels = np.asarray(self._source[tuple(selection)])
        except (MemoryError, OSError, ChunkGone):
            raise
        except Exception as error:  # each codec has its own exceptions
            raise DecodeFailure(str(error) or type(error).__name__) from error
        kept = sorted((place.y, place.x, place.channel))
        pixels = pixels.transpose([kept.index(each) for each in (place.y, place.x, place.channel)])
        if pixels.shape != (height, width, 3) or pixels.dtype != np.uint8:
            raise DecodeFailure(f"{pixels.dtype} of shape {pixels.shape} came back, not {height} x {width} px")
        return np.ascontiguousarray(pixels if self._order == (0, 1, 2) else pixels[..., list(self._order)])


def _pixel_axes(chunks: Bools, place: Placement) -> Bools:
    """Return a grid of chunks as (channel chunks, rows, columns)."""
    moved = np.moveaxis(chunks, (place.channel, place.y, place.x), (-3, -2, -1))
    return moved.reshape(moved.shape[-3:])


def _per_chunk(files: Bools, array: ZarrArray) -> Bools:
    """Return the entry of each chunk's file."""
    for axis, (held, step, size) in enumerate(zip(array.files, array.chunks, array.shape, strict=True)):
        if held != step:
            files = np.repeat(files, held // step, axis=axis).take(range(-(-size // step)), axis=axis)
    return files


def _open(array: ZarrArray, stored: Bools) -> Any:
    """Open the array with the ``zarr`` package.

    Parameters
    ----------
    stored : bool array
        Chunk files that exist.

    Raises
    ------
    UnsupportedSlide
    """
    zarr = _zarr()
    try:
        with warnings.catch_warnings():
            # zarr's warnings about codecs that version 3 does not specify do not help users.
            warnings.simplefilter("ignore")
            return zarr.open_array(store=_store_class()(array, stored), mode="r", zarr_format=array.zarr_format)
    except OSError:
        raise
    except Exception as error:  # zarr's checks raise many kinds
        raise UnsupportedSlide(f"Zarr cannot open level {array.folder.name} ({error})") from error


def _zarr() -> Any:
    # numcodecs logs a line for each of its codecs on import; asyncio and zarr also log.
    for name in ("numcodecs", "zarr", "asyncio"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)
    import zarr  # noqa: PLC0415

    return zarr


@functools.cache
def _store_class() -> Any:
    """Return a class of read-only Zarr stores of one array. ``zarr`` is imported only when it is needed."""
    _zarr()
    from zarr.core.buffer import default_buffer_prototype  # noqa: PLC0415
    from zarr.storage import LocalStore  # noqa: PLC0415

    class ArrayStore(LocalStore):  # type: ignore[misc]
        """The files of one array.

        Zarr gets only the checked metadata and the chunks. LocalStore treats every missing file as a chunk that is not
        stored. This store raises ChunkGone for a chunk that existed when the array was opened.
        """

        def __init__(self, array: ZarrArray, stored: Bools, *, read_only: bool = True) -> None:
            super().__init__(array.folder, read_only=read_only)
            self._array, self._stored = array, stored

        def with_read_only(self, read_only: bool = True) -> Any:  # noqa: FBT001, FBT002 - zarr's signature
            return type(self)(self._array, self._stored, read_only=read_only)

        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            array = self._array
            prototype = prototype or default_buffer_prototype()
            if key == array.document_name:
                return prototype.buffer.from_bytes(array.document)
            numbers = array.numbers(key)
            if numbers is None or not self._stored[numbers]:
                return None
            found = await super().get(key, prototype, byte_range)
            if found is None:
                raise ChunkGone(f"{array.folder.name}/{key}")
            return found

    return ArrayStore
