"""Validation of a TIFF's directories.

Libraries report a truncated file as "missing resolution" or a MemoryError. This module reads the tables first, with
limits on every count and size, and compares them with the size of the file before a library opens it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wsi_denoise.errors import NotASlide, TooLarge, TruncatedSlide, UnsupportedSlide
from wsi_denoise.slide.readers.tiff_directory import (
    BYTES,
    NDPI_VERSION,
    SUB_IFDS,
    TABLES,
    TEXTS,
    WANTED,
    Directory,
    TiffFacts,
)

MAX_DIRECTORIES = 2_000
MAX_ENTRIES = 2_000
MAX_SEGMENTS = 16_000_000
MAX_TEXT = 1 << 20
MAX_PROFILE = 16 << 20

_UTF_16 = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"))
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NUMPY_TYPES = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}


def is_tiff(head: bytes) -> bool:
    """Return whether a file with these first bytes is a TIFF or BigTIFF."""
    return head[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def check_tiff(path: Path, max_megapixels: float) -> TiffFacts:
    """Read a TIFF's directories and reject invalid ones.

    Raises
    ------
    TruncatedSlide
        States the number of missing bytes.
    TooLarge, NotASlide
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        facts = _Parser(file.fileno(), size).parse()
    if facts.needed > size:
        raise TruncatedSlide(
            f"its tables reach to byte {facts.needed:,} and it has {size:,}: {facts.needed - size:,} bytes are missing"
        )
    for directory in facts.directories:
        width, height = directory.size
        if width * height > max_megapixels * 1e6:
            raise TooLarge(f"{width:,} x {height:,} px; limits.megapixels is {max_megapixels:g}")
    width, height = facts.main.size
    if width < 1 or height < 1:
        raise NotASlide(f"it is a TIFF that declares {width} x {height} px")
    return facts


class _Parser:
    """A parser of one file's directories, with limits on count and size and a check for loops."""

    def __init__(self, file: int, size: int) -> None:
        self.file = file
        self.size = size
        self.needed = 0
        head = os.pread(file, 16, 0)
        if not is_tiff(head):
            raise NotASlide("it does not start as a TIFF does")
        self.order = "<" if head[:1] == b"I" else ">"
        self.big = head[2:4] in (b"+\x00", b"\x00+")
        if len(head) < (16 if self.big else 8):
            raise TruncatedSlide(f"it ends within the header, after {size} bytes")
        self.start = self._unpack("Q", head[8:16]) if self.big else self._unpack("I", head[4:8])

    def parse(self) -> TiffFacts:
        found: list[Directory] = []
        seen: set[int] = set()
        offset, index = self.start, 0
        while offset:
            directory, following = self._directory(offset, (index,), seen)
            if directory is None:
                break
            found.append(directory)
            found.extend(self._below(directory, seen))
            if len(seen) > MAX_DIRECTORIES:
                raise NotASlide(f"it is a TIFF with more than {MAX_DIRECTORIES} directories")
            offset, index = following, index + 1
        if not found:
            if self.needed > self.size:
                missing = self.needed - self.size
                raise TruncatedSlide(
                    f"its directory is at byte {self.start:,} and it has {self.size:,}: at least {missing:,} bytes "
                    "are missing"
                )
            raise NotASlide("it is a TIFF without any image")
        return TiffFacts(tuple(found), self.needed)

    def _below(self, directory: Directory, seen: set[int]) -> Iterator[Directory]:
        offsets = directory.tags.get(SUB_IFDS, ())
        for index, offset in enumerate(offsets if isinstance(offsets, tuple) else ()):
            if not offset:
                continue
            below, _ = self._directory(offset, (*directory.path, index), seen)
            if below is not None:
                yield below

    def _directory(self, offset: int, path: tuple[int, ...], seen: set[int]) -> tuple[Directory | None, int]:
        """Return the directory at `offset`, or None if it extends beyond the file, and the offset of the next."""
        if offset in seen:
            raise NotASlide("it is a TIFF whose directories form a loop")
        seen.add(offset)
        head, item, link = (8, 20, 8) if self.big else (2, 12, 4)
        if offset + head > self.size:
            self.needed = max(self.needed, offset + head + item + link)
            return None, 0
        count = self._unpack("Q" if self.big else "H", os.pread(self.file, head, offset))
        if count == 0:
            # A copy program that reserves the whole size first leaves zeros in the part that it has not written yet.
            raise TruncatedSlide(f"the directory at byte {offset:,} holds zeros only: its end was not written")
        if count > MAX_ENTRIES:
            raise NotASlide(f"it is a TIFF whose directory has {count:,} entries")
        end = offset + head + count * item + link
        if end > self.size:
            self.needed = max(self.needed, end)
            return None, 0
        table = os.pread(self.file, count * item + link, offset + head)
        tags: dict[int, object] = {}
        for start in range(0, count * item, item):
            entry = table[start : start + item]
            tag = self._unpack("H", entry[:2])
            if tag not in WANTED:
                self._note_reach(entry)
                continue
            value = self._value(tag, entry)
            if value is not None:
                tags[tag] = value
        if NDPI_VERSION in tags:
            # Hamamatsu's directories are longer: four more bytes of the link, then the upper half of each value.
            self.needed = max(self.needed, end + 4 + 4 * count)
        directory = Directory(path, tags)
        self._reach(directory)
        return directory, self._unpack("Q" if self.big else "I", table[-link:])

    def _reach(self, directory: Directory) -> None:
        """Update `needed` with the end of the directory's pixels."""
        offsets, counts = directory.offsets, directory.counts
        present = min(len(offsets), len(counts))
        if not present:
            return
        # Checked in float first, because sums of invalid values may overflow 64 bits and would not exceed the file.
        used = counts[:present] > 0
        ends = offsets[:present][used].astype(np.float64) + counts[:present][used].astype(np.float64)
        if ends.size:
            top = float(ends.max())
            exact = int(offsets[:present][used].max()) + int(counts[:present][used].max()) if top > 2**62 else 0
            reach = exact or int((offsets[:present][used] + counts[:present][used]).max())
            self.needed = max(self.needed, reach)

    def _note_reach(self, entry: bytes) -> None:
        """Update `needed` with the end of an unused tag's value: a truncated file may end within it."""
        each = _TYPE_BYTES.get(self._unpack("H", entry[2:4]), 0)
        count = self._unpack("Q" if self.big else "I", entry[4 : 12 if self.big else 8])
        inline = entry[12:20] if self.big else entry[8:12]
        if len(inline) < count * each <= MAX_PROFILE:
            self.needed = max(self.needed, self._unpack("Q" if self.big else "I", inline) + count * each)

    def _value(self, tag: int, entry: bytes) -> object:
        kind = self._unpack("H", entry[2:4])
        count = self._unpack("Q" if self.big else "I", entry[4 : 12 if self.big else 8])
        inline = entry[12:20] if self.big else entry[8:12]
        each = _TYPE_BYTES.get(kind)
        if each is None or count == 0:
            return None
        most = MAX_TEXT if tag in TEXTS else MAX_PROFILE if tag in BYTES else MAX_SEGMENTS * 8
        if tag in TABLES and count > MAX_SEGMENTS:
            if count * each > self.size:
                self.needed = max(self.needed, count * each)
                return None
            raise UnsupportedSlide(f"it is a TIFF whose table of tiles has {count:,} entries")
        wanted = count if tag in TABLES or tag in TEXTS or tag in BYTES else min(count, 64)
        if count * each <= len(inline):
            raw = inline[: wanted * each]
        else:
            offset = self._unpack("Q" if self.big else "I", inline)
            if offset + count * each > self.size:
                self.needed = max(self.needed, offset + count * each)
                return None
            raw = os.pread(self.file, min(wanted * each, most), offset)
        return self._decoded(tag, kind, raw)

    def _decoded(self, tag: int, kind: int, raw: bytes) -> object:
        if tag in TEXTS or tag in BYTES:
            return raw if tag in BYTES else _text(raw)
        if kind in (5, 10):
            above, below = struct.unpack_from(self.order + ("II" if kind == 5 else "ii"), raw)
            return above / below if below else 0.0
        if kind in (11, 12):
            return float(struct.unpack_from(self.order + ("f" if kind == 11 else "d"), raw)[0])
        if kind not in _NUMPY_TYPES:
            return None
        values = np.frombuffer(raw, np.dtype(self.order + _NUMPY_TYPES[kind]))
        if tag in TABLES:
            return values.astype(np.uint64)
        return tuple(int(value) for value in values)

    def _unpack(self, kind: str, raw: bytes) -> int:
        try:
            return int(struct.unpack(self.order + kind, raw)[0])
        except struct.error as error:  # the file was truncated while it was read
            raise TruncatedSlide("it ends within a directory") from error


def _text(raw: bytes) -> str:
    """Decode the text of a tag: UTF-16 by its byte order mark or first character, else UTF-8, else Latin-1."""
    for start, encoding in _UTF_16:
        if raw.startswith(start):
            return raw.decode(encoding, "ignore").rstrip("\0")
    try:
        return raw.decode("utf-8").rstrip("\0")
    except UnicodeDecodeError as error:
        # A text that was truncated to MAX_TEXT may end within a character.
        cut = len(raw) == MAX_TEXT and error.start > len(raw) - 4
        return raw.decode("utf-8" if cut else "latin-1", "ignore").rstrip("\0")
