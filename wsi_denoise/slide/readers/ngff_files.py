"""Search for the stored chunks of a Zarr array, without decoding them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsi_denoise.errors import IncompleteSlide, NotARegularFile, UnsupportedSlide
from wsi_denoise.slide.readers.ngff_array import ShardIndex, ZarrArray, is_number

Bools = npt.NDArray[np.bool_]
#: Maximum number of chunks of a level; more indicate a damaged or malicious file.
MAX_CHUNKS = 16_000_000
#: Offset and length of a chunk that a shard does not contain.
_NOT_STORED = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class Stored:
    """Stored files and chunks of an array; both masks have the array's dimensions.

    Parameters
    ----------
    files : bool array
        One entry per chunk file.
    chunks : bool array
        One entry per chunk; the same array if each file has one chunk.
    """

    files: Bools
    chunks: Bools


def stored_chunks(array: ZarrArray) -> Stored:
    """Return the masks of stored files and chunks.

    Raises
    ------
    IncompleteSlide
        A chunk file is empty or truncated.
    NotARegularFile
        A file or folder of the array is a link.
    UnsupportedSlide
        The array has too many chunks.
    """
    count = math.prod(-(-size // step) for size, step in zip(array.shape, array.chunks, strict=True))
    if count > MAX_CHUNKS:
        raise UnsupportedSlide(
            f"level {array.folder.name} is divided into {count:,} chunks; {MAX_CHUNKS:,} are allowed"
        )
    stored = np.zeros(array.grid, np.bool_)
    expected = math.prod(array.chunks) if array.compression == "none" and array.index is None else None
    files: list[tuple[tuple[int, ...], int]] = []
    for name, size in _files(array):
        numbers = array.numbers(name)
        if numbers is None:
            continue
        if size == 0:
            raise IncompleteSlide(f"the chunk {array.folder.name}/{name} is empty")
        if expected is not None and size < expected:
            raise IncompleteSlide(f"the chunk {array.folder.name}/{name} has {size} bytes, not {expected}")
        stored[numbers] = True
        files.append((numbers, size))
    return Stored(stored, stored if array.index is None else _in_shards(array, array.index, files))


def _files(array: ZarrArray) -> Iterator[tuple[str, int]]:
    """Yield the path below the array's folder, and the size, of every file that may be a chunk.

    Raises
    ------
    NotARegularFile
    """
    nested = array.separator == "/"
    depth = len(array.shape) + (1 if array.prefix else 0) if nested else 1
    pending = [("", depth)]
    while pending:
        below, left = pending.pop()
        try:
            listing = os.scandir(array.folder / below)
        except FileNotFoundError:
            continue
        with listing:
            for entry in listing:
                name = below + entry.name
                if entry.is_symlink():
                    raise NotARegularFile(f"{array.folder.name}/{name} is a link")
                if left > 1 and entry.is_dir(follow_symlinks=False):
                    if is_number(entry.name) or f"{entry.name}/" == array.prefix:
                        pending.append((f"{name}/", left - 1))
                elif left == 1 and entry.is_file(follow_symlinks=False):
                    yield name, entry.stat(follow_symlinks=False).st_size


def _in_shards(array: ZarrArray, index: ShardIndex, files: Sequence[tuple[tuple[int, ...], int]]) -> Bools:
    """Return the mask of stored chunks, from the tables of the shards.

    Raises
    ------
    IncompleteSlide
        A shard is truncated: its table is damaged, or refers to data beyond its end.
    """
    per_shard = tuple(a // b for a, b in zip(array.files, array.chunks, strict=True))
    grid = tuple(-(-size // step) for size, step in zip(array.shape, array.chunks, strict=True))
    stored = np.zeros(grid, np.bool_)
    length = 16 * math.prod(per_shard)
    for numbers, size in files:
        name = array.name(numbers)
        entries = _shard_entries(array.folder / name, index, length, size)
        if entries is None:
            raise IncompleteSlide(f"the shard {array.folder.name}/{name} is cut off or damaged")
        inside = (entries != _NOT_STORED).any(axis=1).reshape(per_shard)
        place = tuple(slice(n * k, min((n + 1) * k, full)) for n, k, full in zip(numbers, per_shard, grid, strict=True))
        stored[place] = inside[tuple(slice(0, each.stop - each.start) for each in place)]
    return stored


def _shard_entries(path: Path, index: ShardIndex, length: int, size: int) -> npt.NDArray[np.uint64] | None:
    """Return (offset, length) of each chunk of a shard, or None if its table is invalid."""
    tail = 4 if index.checksum else 0
    if size < length + tail:
        return None
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        data = os.pread(handle, length + tail, 0 if index.at_start else size - length - tail)
    finally:
        os.close(handle)
    if len(data) < length + tail:
        return None
    if index.checksum:
        import google_crc32c  # noqa: PLC0415 - zarr's own dependency

        if google_crc32c.value(data[:length]) != int.from_bytes(data[length:], "little"):
            return None
    entries = np.frombuffer(data[:length], "<u8").reshape(-1, 2)
    used = entries[(entries != _NOT_STORED).any(axis=1)]
    # Python's integers, because offset plus length of a malicious table may exceed 64 bits.
    if any(int(offset) + int(count) > size or count == 0 for offset, count in used):
        return None
    return entries
