"""Store finished blocks, one file each, so that a restarted slide resumes from them.

A file is a ZIP archive without compression, written under a partial name and renamed. Its checksums detect damage, and
its tiles are read one by one. The folder's name contains a hash of everything that changes a pixel, so that numerics
are never mixed within a slide.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import lzma
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsi_denoise.slide.encoding import Pixels
from wsi_denoise.slide.geometry import BlockIndex
from wsi_denoise.system.files import atomic_file

_log = logging.getLogger(__name__)

SUFFIX = ".block"
THUMBNAIL = "thumbnail.jpeg"
"""The slide's thumbnail, which the dashboard shows while the slide is processed."""

FORMAT = 2
"""Format of the files, and part of the folder's name, so that no other format is read. Format 1 had images in PNG."""

_SIZE = struct.Struct("<II")

DAMAGE = (
    *(OSError, EOFError, LookupError, ArithmeticError, ValueError, RuntimeError, struct.error),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
"""Every exception that opening or reading a damaged file may raise.

A damaged ZIP directory may state that a member is encrypted (RuntimeError), of a later version (NotImplementedError) or
compressed (zlib.error, EOFError).
"""

_ALWAYS = frozenset({"reduced", "evidence.npz"})
"""Members of every block's file."""

_MEMBER_HEADER = 30
"""Bytes before a member's name in the file; :meth:`Spool.write` adds no other fields."""

_CHUNK = 1 << 20
_CONTENT_DIGITS = 20
_READERS = 4
"""Threads that check a spool's files when a slide is resumed."""


@dataclass(frozen=True)
class BlockProduct:
    """Contribution of one block to the slide.

    Parameters
    ----------
    tiles : mapping of (int, int, int) to bytes
        (level, row, column) to an encoded tile, for levels 0 and 1; row and column count within the block.
    reduced : ndarray
        (height, width, 3) uint8 of the block at level 2.
    arrays : mapping of str to ndarray
        Evidence and border pixels.
    source : ndarray or None
        As `reduced`, of the source: for the overview of a slide without smaller levels.
    """

    tiles: Mapping[tuple[int, int, int], bytes]
    reduced: Pixels
    arrays: Mapping[str, NDArray[Any]]
    source: Pixels | None = None


def _packed(pixels: Pixels) -> bytes:
    """Return an image as its height and width, and its differences along rows in Zstandard."""
    # PNG takes twenty times as long and is only a twentieth smaller.
    differences = imagecodecs.delta_encode(np.ascontiguousarray(pixels), axis=-2).tobytes()
    return _SIZE.pack(*pixels.shape[:2]) + bytes(imagecodecs.zstd_encode(differences, level=1))


def _unpacked(data: bytes) -> Pixels:
    """Undo :func:`_packed`; raise ValueError or RuntimeError for other data."""
    if len(data) < _SIZE.size:
        raise ValueError("no image")
    differences = np.frombuffer(imagecodecs.zstd_decode(data[_SIZE.size :]), np.uint8)
    return np.asarray(imagecodecs.delta_decode(differences.reshape(*_SIZE.unpack_from(data), 3), axis=-2), np.uint8)


class SpooledBlock:
    """A block's file, open for reading."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def tile(self, level: int, row: int, column: int) -> bytes:
        """Return an encoded tile by its place within the block."""
        return self._archive.read(f"{level}/{row}/{column}")

    def reduced(self) -> Pixels:
        """Return the block at level 2, (height, width, 3) uint8."""
        return _unpacked(self._archive.read("reduced"))

    def source(self) -> Pixels:
        """Return the source at level 2, (height, width, 3) uint8; raise KeyError where it was not stored."""
        return _unpacked(self._archive.read("source"))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return evidence and border pixels; nothing is unpickled."""
        with np.load(io.BytesIO(self._archive.read("evidence.npz")), allow_pickle=False) as stored:
            return dict(stored)


class Spool:
    """The finished blocks of one slide under one set of numerics.

    Parameters
    ----------
    folder : Path
        From :func:`folder_name`; created with the first block.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _file(self, block: BlockIndex) -> Path:
        return self.folder / f"{block}{SUFFIX}"

    def make(self) -> None:
        """Create the folder, and the folder of all spools. A state folder that others removed is not created again.

        Raises
        ------
        OSError
        """
        if not self.folder.is_dir():
            self.folder.parent.mkdir(exist_ok=True)
            self.folder.mkdir(exist_ok=True)

    def write(self, block: BlockIndex, product: BlockProduct) -> int:
        """Write a block's file atomically, and return its size in bytes."""
        self.make()
        evidence = io.BytesIO()
        np.savez(evidence, **product.arrays)  # type: ignore[arg-type]
        with atomic_file(self._file(block)) as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for (level, row, column), tile in product.tiles.items():
                    archive.writestr(f"{level}/{row}/{column}", tile)
                archive.writestr("reduced", _packed(product.reduced))
                if product.source is not None:
                    archive.writestr("source", _packed(product.source))
                archive.writestr("evidence.npz", evidence.getvalue())
            return file.tell()

    def sent(self, block: BlockIndex) -> bytes:
        """Return the bytes of a block's file, for :meth:`receive` on another machine."""
        return self._file(block).read_bytes()

    def receive(self, block: BlockIndex, data: bytes) -> None:
        """Write a block's file from another machine atomically."""
        self.make()
        with atomic_file(self._file(block)) as file:
            file.write(data)

    def keep_thumbnail(self, data: bytes) -> None:
        """Store the slide's thumbnail for the dashboard. Errors are only logged."""
        try:
            self.make()
            with atomic_file(self.folder / THUMBNAIL) as file:
                file.write(data)
        except OSError as error:
            # The first block reports a full disk.
            _log.warning("the thumbnail is not kept: %s", error)

    def finished(self) -> Iterator[BlockIndex]:
        """Yield the blocks with intact files. Remove damaged files, so that their blocks are processed again.

        Every file is read completely, as in assembly: an intact ZIP directory does not prove intact members. A large
        slide has gigabytes of finished blocks; a caller may stop between two.
        """
        files = list(self.folder.glob(f"*{SUFFIX}")) if self.folder.is_dir() else []
        pool = ThreadPoolExecutor(_READERS, "spool")
        try:
            for file, sound in zip(files, pool.map(_is_sound, files), strict=True):
                index = _index(file)
                if sound and index is not None:
                    yield index
                else:
                    _log.warning("removed a damaged block: %s", file.name)
                    file.unlink(missing_ok=True)
        finally:
            pool.shutdown(cancel_futures=True)

    @contextmanager
    def open(self, block: BlockIndex) -> Iterator[SpooledBlock]:
        """Open a block's file.

        Raises
        ------
        Exception
            One of :data:`DAMAGE` when it is missing or damaged. Reading its members may raise them too.
        """
        with zipfile.ZipFile(self._file(block)) as archive:
            yield SpooledBlock(archive)

    def is_sound(self, block: BlockIndex) -> bool:
        """Read a block's file completely, and return whether every checksum matches."""
        return _is_sound(self._file(block))

    def discard(self, block: BlockIndex) -> None:
        """Remove a block's file, so that the block is processed again."""
        self._file(block).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder of a slide that is published, or that no job needs."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _index(file: Path) -> BlockIndex | None:
    row, _, column = file.stem.partition("-")
    return BlockIndex(int(row), int(column)) if row.isdecimal() and column.isdecimal() else None


def _is_sound(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return _is_whole(archive) and all(_has_its_checksum(archive, member) for member in archive.infolist())
    except DAMAGE:
        return False


def _is_whole(archive: zipfile.ZipFile) -> bool:
    """Return whether the directory lists every member: the members fill the file up to the directory."""
    # One changed byte in a length makes zipfile skip entries without an error.
    end = 0
    for member in sorted(archive.infolist(), key=lambda member: member.header_offset):
        if member.header_offset != end:
            return False
        end += _MEMBER_HEADER + len(member.filename.encode()) + member.compress_size
    return end == archive.start_dir and set(archive.namelist()) >= _ALWAYS


def _has_its_checksum(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    # testzip() opens members by name, so that two entries of one name hide each other.
    with archive.open(member) as file:
        while file.read(_CHUNK):
            pass  # raises BadZipFile at the end of a member whose checksum is wrong
    return True


def content_of(name: str) -> str:
    """Return the start of a fingerprint, or of a spool folder's name, that stands for the content in both."""
    return name[:_CONTENT_DIGITS]


def folder_name(fingerprint: str, key: Mapping[str, Any]) -> str:
    """Return the name of a spool folder: the slide, and a hash of everything that changes its pixels.

    Parameters
    ----------
    fingerprint : str
        SHA-256 of the source.
    key : mapping
        Plain values: model checksum, pixel settings, numerics, version, region.
    """
    digest = hashlib.sha256(json.dumps({**key, "format": FORMAT}, sort_keys=True).encode()).hexdigest()
    return f"{content_of(fingerprint)}-{digest[:20]}"
