"""Metadata of a Zarr array of an NGFF image, validated before the ``zarr`` package reads it.

The metadata names the codecs of the chunks. Some codecs unpickle data, and packages may register any code, so only the
codecs listed here are accepted.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsi_denoise.errors import IncompleteSlide, NotARegularFile, NotRGB, TooLarge, UnsupportedSlide

#: Maximum bytes of a metadata file that are read; real ones have a few kilobytes.
MAX_METADATA = 16 << 20
#: Maximum decoded size of a chunk, which must fit into memory.
MAX_CHUNK_BYTES = 512 << 20

#: Codecs of Zarr version 2 that convert bytes to bytes and execute no stored code.
CODECS_V2 = frozenset(
    {"blosc", "zstd", "zlib", "gzip", "bz2", "lzma", "lz4", "shuffle", "delta", "crc32", "crc32c", "adler32",
     "fletcher32", "jenkins_lookup3"}
)  # fmt: skip
CODECS_V3 = frozenset({"bytes", "transpose", "blosc", "gzip", "zstd", "crc32c"}) | {
    f"numcodecs.{name}" for name in CODECS_V2
}
_CHECKSUMS = frozenset({"crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"})
_NOT_COMPRESSED = frozenset({"bytes", "transpose"})
_SHARDED = "sharding_indexed"


@dataclass(frozen=True)
class ShardIndex:
    """Position of the table of a shard's chunks: 16 bytes per chunk (offset, length), little endian.

    Parameters
    ----------
    at_start : bool
        The table is at the start of the file, not at its end.
    checksum : bool
        A CRC-32C of four bytes follows it.
    """

    at_start: bool
    checksum: bool


@dataclass(frozen=True)
class ZarrArray:
    """A Zarr array of 8-bit values.

    Parameters
    ----------
    zarr_format : {2, 3}
    document : bytes
        The metadata file that was checked.
    files : tuple of int
        Extent of one file, a chunk or a shard, along each dimension.
    chunks : tuple of int
        Extent of a chunk along each dimension.
    fill : int or None
        Value of chunks that are not stored; None if the file states none.
    prefix, separator : str
        Names of the chunk files: ``prefix``, then the chunk's numbers joined by `separator`.
    compression : str
        Name of the codec that compresses the chunks, or ``none``.
    """

    folder: Path
    zarr_format: int
    document: bytes
    shape: tuple[int, ...]
    files: tuple[int, ...]
    chunks: tuple[int, ...]
    fill: int | None
    prefix: str
    separator: str
    compression: str
    index: ShardIndex | None = None

    @property
    def document_name(self) -> str:
        """Name of the metadata file."""
        return ".zarray" if self.zarr_format == 2 else "zarr.json"

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunk files along each dimension."""
        return tuple(-(-size // step) for size, step in zip(self.shape, self.files, strict=True))

    def name(self, numbers: Sequence[int]) -> str:
        """Return the path of a chunk file below the array's folder."""
        return self.prefix + self.separator.join(map(str, numbers))

    def numbers(self, name: str) -> tuple[int, ...] | None:
        """Return the numbers of the chunk file `name`, or None for any other file."""
        parts = name.removeprefix(self.prefix).split(self.separator)
        if not name.startswith(self.prefix) or len(parts) != len(self.shape) or not all(map(is_number, parts)):
            return None
        numbers = tuple(map(int, parts))
        return numbers if all(a < b for a, b in zip(numbers, self.grid, strict=True)) else None


def read_metadata(path: Path) -> tuple[bytes, dict[str, Any]] | None:
    """Return a metadata file and its JSON object, or None if the file does not exist.

    Raises
    ------
    IncompleteSlide
        It is empty, truncated or invalid JSON.
    NotARegularFile
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        if path.is_symlink():
            raise NotARegularFile(f"{path.name} in {path.parent.name} is a link") from None
        raise
    with open(handle, "rb") as file:  # noqa: PTH123 - a descriptor has no path
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise NotARegularFile(f"{path.name} in {path.parent.name}")
        text = file.read(MAX_METADATA)
    try:
        # Constants such as NaN are invalid JSON and are not needed here.
        found = json.loads(text, parse_constant=lambda _word: None)
    except (ValueError, RecursionError) as error:
        raise IncompleteSlide(f"{path.name} in {path.parent.name} is cut off or damaged") from error
    if not isinstance(found, dict):
        raise UnsupportedSlide(f"{path.name} in {path.parent.name} is not Zarr metadata")
    return text, found


def array_at(folder: Path) -> ZarrArray:
    """Return the array in a folder, from its metadata.

    Raises
    ------
    IncompleteSlide
        The metadata file is missing or truncated.
    NotRGB
        The values are not unsigned 8-bit integers.
    UnsupportedSlide, TooLarge
    """
    for name, parse in (("zarr.json", _version3), (".zarray", _version2)):
        found = read_metadata(folder / name)
        if found is not None:
            array = parse(folder, *found)
            _check(array)
            return array
    raise IncompleteSlide(f"the level {folder.name}, which the NGFF metadata names, has no array metadata")


def _version2(folder: Path, document: bytes, stated: Mapping[str, Any]) -> ZarrArray:
    if stated.get("zarr_format") != 2:
        raise UnsupportedSlide(f"the Zarr format {stated.get('zarr_format')!r} of level {folder.name}")
    _check_type(stated.get("dtype"))
    compressor, filters = stated.get("compressor"), stated.get("filters") or []
    codecs = [*(filters if isinstance(filters, list) else [filters]), *([] if compressor is None else [compressor])]
    names = [str(each.get("id")) if isinstance(each, Mapping) else "unknown" for each in codecs]
    _check_codecs(names, CODECS_V2)
    chunks = _extents(stated, "chunks", folder)
    separator = stated.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise UnsupportedSlide(f"the Zarr dimension separator {separator!r}")
    return ZarrArray(
        folder=folder,
        zarr_format=2,
        document=document,
        shape=_extents(stated, "shape", folder),
        files=chunks,
        chunks=chunks,
        fill=_fill(stated.get("fill_value")),
        prefix="",
        separator=separator,
        compression=_compression(names),
    )


def _version3(folder: Path, document: bytes, stated: Mapping[str, Any]) -> ZarrArray:
    if stated.get("zarr_format") != 3 or stated.get("node_type") != "array":
        raise UnsupportedSlide(f"level {folder.name} is not a Zarr array")
    _check_type(stated.get("data_type"))
    if stated.get("storage_transformers"):
        raise UnsupportedSlide("Zarr storage transformers")
    files = _extents(_named(stated, "chunk_grid", ("regular",))[1], "chunk_shape", folder)
    encoding, options = _named(stated, "chunk_key_encoding", ("default", "v2"))
    separator = options.get("separator", "/" if encoding == "default" else ".")
    if separator not in (".", "/"):
        raise UnsupportedSlide(f"the Zarr chunk key separator {separator!r}")
    codecs, chunks, index = stated.get("codecs"), files, None
    if not (isinstance(codecs, list) and all(isinstance(each, Mapping) for each in codecs)):
        raise UnsupportedSlide("its Zarr metadata is invalid: codecs is not a list")
    if any(each.get("name") == _SHARDED for each in codecs):
        if len(codecs) != 1:
            raise UnsupportedSlide("Zarr shards inside another codec")
        inner = codecs[0].get("configuration")
        inner = inner if isinstance(inner, Mapping) else {}
        chunks = _extents(inner, "chunk_shape", folder)
        index = _shard_index(inner)
        codecs = inner.get("codecs", [])
        if not isinstance(codecs, list) or any(a % b for a, b in zip(files, chunks, strict=False)):
            raise UnsupportedSlide("its Zarr metadata is invalid: shards that are not made of whole chunks")
    names = [str(each.get("name")) if isinstance(each, Mapping) else "unknown" for each in codecs]
    _check_codecs(names, CODECS_V3)
    return ZarrArray(
        folder=folder,
        zarr_format=3,
        document=document,
        shape=_extents(stated, "shape", folder),
        files=files,
        chunks=chunks,
        fill=_fill(stated.get("fill_value")),
        prefix=f"c{separator}" if encoding == "default" else "",
        separator=str(separator),
        compression=_compression(names),
        index=index,
    )


def _named(stated: Mapping[str, Any], key: str, known: tuple[str, ...]) -> tuple[str, Mapping[str, Any]]:
    """Return name and configuration of an extension of Zarr version 3."""
    found = stated.get(key)
    name = found.get("name") if isinstance(found, Mapping) else found
    if name not in known:
        raise UnsupportedSlide(f"the Zarr {key.replace('_', ' ')} {str(name)[:60]!r}")
    options = found.get("configuration") if isinstance(found, Mapping) else None
    return str(name), options if isinstance(options, Mapping) else {}


def _shard_index(options: Mapping[str, Any]) -> ShardIndex:
    stated = options.get("index_codecs")
    codecs = [each for each in stated if isinstance(each, Mapping)] if isinstance(stated, list) else []
    names = [each.get("name") for each in codecs]
    order = codecs[0].get("configuration") if codecs else None
    little = not isinstance(order, Mapping) or order.get("endian", "little") == "little"
    location = options.get("index_location", "end")
    if names not in (["bytes"], ["bytes", "crc32c"]) or not little or location not in ("start", "end"):
        raise UnsupportedSlide("a Zarr shard index that is encoded in an unusual way")
    return ShardIndex(location == "start", len(names) == 2)


def _extents(stated: Mapping[str, Any], key: str, folder: Path) -> tuple[int, ...]:
    found = stated.get(key)
    if not isinstance(found, list) or not all(type(each) is int and 0 < each < 2**48 for each in found):
        raise UnsupportedSlide(f"its Zarr metadata is invalid: {key} of level {folder.name} is {str(found)[:60]}")
    return tuple(found)


def _check_type(stated: object) -> None:
    """Raise NotRGB for values that are not unsigned 8-bit integers. Python objects are never decoded."""
    if stated in {"uint8", "|u1", "<u1", ">u1", "u1"} if isinstance(stated, str) else False:
        return
    name = str(stated)[:60]
    if isinstance(stated, str) and len(stated) < 10 and "O" not in stated:
        with contextlib.suppress(TypeError, ValueError, UnicodeError):
            name = np.dtype(stated).name
    raise NotRGB(f"its values are {name}, not 8-bit")


def _check_codecs(names: Sequence[str], known: frozenset[str]) -> None:
    for name in names:
        if name not in known:
            raise UnsupportedSlide(f"its chunks are encoded with the Zarr codec {name[:60]!r}, which is not supported")


def _compression(names: Sequence[str]) -> str:
    compressing = [name for name in names if name not in _NOT_COMPRESSED and name.split(".")[-1] not in _CHECKSUMS]
    return compressing[-1].split(".")[-1] if compressing else "none"


def _fill(stated: object) -> int | None:
    if stated is None:
        return None
    if isinstance(stated, int | float) and 0 <= stated <= 255 and int(stated) == stated:
        return int(stated)
    raise UnsupportedSlide(f"the Zarr fill value {str(stated)[:60]!r} is not an 8-bit value")


def _check(array: ZarrArray) -> None:
    if not len(array.shape) == len(array.files) == len(array.chunks):
        raise UnsupportedSlide(f"its Zarr metadata is invalid: shape and chunks of level {array.folder.name} differ")
    if math.prod(array.chunks) > MAX_CHUNK_BYTES:
        raise TooLarge(f"a chunk of {' x '.join(map(str, array.chunks))} values; at most 512 MiB are decoded at once")


def is_number(text: str) -> bool:
    """Return whether a name is the number of a chunk."""
    return text.isascii() and text.isdigit() and len(text) < 12 and (text == "0" or text[0] != "0")
