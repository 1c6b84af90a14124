"""A TIFF's directories, read without trusting them.

Libraries report a file that was cut off as "missing resolution" or a MemoryError. So the tables are read here first,
with bounds on everything: what the file declares is compared with what it has before any library sees it.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsi_denoise.errors import NotASlide, TooLarge, TruncatedSlide, UnsupportedSlide

MAX_DIRECTORIES = 2_000
MAX_ENTRIES = 2_000
MAX_SEGMENTS = 16_000_000
#: A tile or strip that is larger when decoded is refused: it must be held in memory whole.
MAX_SEGMENT_BYTES = 512 << 20
MAX_TEXT = 1 << 20
MAX_PROFILE = 16 << 20

_UTF_16 = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"))
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NUMPY_TYPES = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
SUBFILE, DESCRIPTION, STRIP_OFFSETS, SAMPLES, STRIP_ROWS, STRIP_COUNTS = 254, 270, 273, 277, 278, 279
X_RESOLUTION, Y_RESOLUTION, PLANAR, RESOLUTION_UNIT, PREDICTOR = 282, 283, 284, 296, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, SUB_IFDS, EXTRA_SAMPLES, SAMPLE_FORMAT = (
    322, 323, 324, 325, 330, 338, 339,
)  # fmt: skip
MAKE, MODEL, ORIENTATION, SOFTWARE, ICC_PROFILE, NDPI_VERSION = 271, 272, 274, 305, 34675, 65420
NDPI_MAGNIFICATION, NDPI_FOCAL_PLANE = 65421, 65424
FILL_ORDER, JPEG_TABLES = 266, 347
_WANTED = {
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SUBFILE, DESCRIPTION, STRIP_OFFSETS, SAMPLES, STRIP_ROWS,
    STRIP_COUNTS, X_RESOLUTION, Y_RESOLUTION, PLANAR, RESOLUTION_UNIT, PREDICTOR, TILE_WIDTH, TILE_HEIGHT,
    TILE_OFFSETS, TILE_COUNTS, SUB_IFDS, EXTRA_SAMPLES, SAMPLE_FORMAT, MAKE, MODEL, ORIENTATION, SOFTWARE, ICC_PROFILE,
    NDPI_VERSION, NDPI_MAGNIFICATION, NDPI_FOCAL_PLANE, FILL_ORDER, JPEG_TABLES,
}  # fmt: skip
_TEXTS = {DESCRIPTION, MAKE, MODEL, SOFTWARE}
_BYTES = {ICC_PROFILE, JPEG_TABLES}
_TABLES = {STRIP_OFFSETS, STRIP_COUNTS, TILE_OFFSETS, TILE_COUNTS}

#: TIFF's numbers of codecs, by the names used in this program.
CODECS = {
    1: "none", 5: "lzw", 6: "old-style jpeg", 7: "jpeg", 8: "deflate", 32946: "deflate", 32773: "packbits",
    33003: "jpeg2000", 33004: "jpeg2000", 33005: "jpeg2000", 33007: "jpeg", 34712: "jpeg2000", 34887: "lerc",
    34933: "png", 34926: "zstd", 34927: "webp", 34892: "lossy jpeg (dng)", 34925: "lzma", 50000: "zstd",
    50001: "webp", 50002: "jpeg xl", 22610: "jpeg xr", 34934: "jpeg xr", 2: "ccitt rle", 3: "ccitt group 3",
    4: "ccitt group 4", 34661: "jbig",
}  # fmt: skip


@dataclass(frozen=True)
class Directory:
    """One image of a TIFF, as declared.

    Parameters
    ----------
    path : tuple of int
        Index in the chain, and below it index among the sub-directories.
    tags : dict of int to object
        Wanted tags: ints, floats, text, bytes, tuples of int, or arrays for the tables of offsets.
    """

    path: tuple[int, ...]
    tags: dict[int, object] = field(repr=False)

    def _int(self, tag: int, default: int) -> int:
        value = self.tags.get(tag, default)
        if isinstance(value, tuple):
            value = value[0] if value else default
        return int(value) if isinstance(value, int | float) else default

    @cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self._int(WIDTH, 0), self._int(HEIGHT, 0)

    @cached_property
    def is_tiled(self) -> bool:
        """Whether it is stored in tiles, not strips."""
        return TILE_OFFSETS in self.tags or TILE_WIDTH in self.tags

    @cached_property
    def segment(self) -> tuple[int, int]:
        """(width, height) of a tile, or of a strip."""
        width, height = self.size
        if self.is_tiled:
            return self._int(TILE_WIDTH, 0), self._int(TILE_HEIGHT, 0)
        return width, max(1, min(self._int(STRIP_ROWS, height), height))

    @cached_property
    def grid(self) -> tuple[int, int]:
        """(columns, rows) of segments."""
        width, height = self.size
        columns, rows = self.segment
        return -(-width // max(1, columns)), -(-height // max(1, rows))

    @cached_property
    def offsets(self) -> npt.NDArray[np.uint64]:
        """First byte of each segment."""
        return self._table(TILE_OFFSETS if self.is_tiled else STRIP_OFFSETS)

    @cached_property
    def counts(self) -> npt.NDArray[np.uint64]:
        """Bytes of each segment."""
        return self._table(TILE_COUNTS if self.is_tiled else STRIP_COUNTS)

    def _table(self, tag: int) -> npt.NDArray[np.uint64]:
        value = self.tags.get(tag)
        return value if isinstance(value, np.ndarray) else np.zeros(0, np.uint64)

    @cached_property
    def samples(self) -> int:
        """Samples per pixel."""
        return self._int(SAMPLES, 1)

    @property
    def bits(self) -> tuple[int, ...]:
        """Bits of each sample."""
        value = self.tags.get(BITS, (1,))
        return value if isinstance(value, tuple) else (1,)

    @property
    def compression(self) -> int:
        """TIFF's number of the codec."""
        return self._int(COMPRESSION, 1)

    @cached_property
    def codec(self) -> str:
        """Name of the codec."""
        return CODECS.get(self.compression, f"unknown ({self.compression})")

    @property
    def photometric(self) -> int:
        """TIFF's number of the colour model: 2 is RGB, 6 is YCbCr."""
        return self._int(PHOTOMETRIC, -1)

    @property
    def planar(self) -> bool:
        """Whether red, green and blue are stored apart."""
        return self._int(PLANAR, 1) == 2 and self.samples > 1

    @property
    def planes(self) -> int:
        """Number of segments that make up the samples of one place: 1, or one for each sample stored apart."""
        return self.samples if self.planar else 1

    @property
    def predictor(self) -> int:
        """1 for none, 2 for differences."""
        return self._int(PREDICTOR, 1)

    @property
    def reduced(self) -> bool:
        """Whether it is flagged as a smaller version of another image."""
        return bool(self._int(SUBFILE, 0) & 1)

    @property
    def extra_sample(self) -> int | None:
        """Meaning of the fourth sample: 1 premultiplied alpha, 2 alpha, 0 unspecified."""
        return self._int(EXTRA_SAMPLES, 0) if self.samples == 4 else None

    @property
    def orientation(self) -> int:
        """How the rows and columns are stored; 1 is as they are seen, from the upper left corner."""
        return self._int(ORIENTATION, 1)

    @property
    def sample_formats(self) -> frozenset[int]:
        """Formats of the samples: 1 unsigned, 2 signed, 3 floating point, 4 undefined."""
        value = self.tags.get(SAMPLE_FORMAT, (1,))
        return frozenset(value) if isinstance(value, tuple) else frozenset({1})

    def text(self, tag: int) -> str:
        """Return a tag's text, empty where there is none."""
        value = self.tags.get(tag, "")
        return value if isinstance(value, str) else ""

    @property
    def reversed_bits(self) -> bool:
        """Whether the bits of each byte are stored lowest first (FillOrder 2)."""
        return self._int(FILL_ORDER, 1) == 2

    @property
    def jpeg_tables(self) -> bytes | None:
        """Quantisation and Huffman tables that all JPEG tiles share."""
        value = self.tags.get(JPEG_TABLES)
        return value if isinstance(value, bytes) and value else None

    @property
    def icc_profile(self) -> bytes | None:
        """The colour profile as stored."""
        value = self.tags.get(ICC_PROFILE)
        return value if isinstance(value, bytes) and value else None

    @property
    def focal_plane(self) -> int | None:
        """Nanometres of a Hamamatsu NDPI's focal plane from the middle one; None where it is no image of the tissue."""
        if NDPI_FOCAL_PLANE not in self.tags or (self._number(NDPI_MAGNIFICATION) or 0) <= 0:
            return None
        return self._int(NDPI_FOCAL_PLANE, 0)

    @property
    def resolution(self) -> tuple[float, float] | None:
        """Pixels per unit of length in x and y, not judged; None where a tag is missing."""
        x, y = (self._number(tag) for tag in (X_RESOLUTION, Y_RESOLUTION))
        return None if x is None or y is None else (x, y)

    @property
    def resolution_unit(self) -> int | None:
        """TIFF's number of the unit: 1 none, 2 inch, 3 centimetre; None where the tag is missing."""
        return self._int(RESOLUTION_UNIT, 0) if RESOLUTION_UNIT in self.tags else None

    def _number(self, tag: int) -> float | None:
        value = self.tags.get(tag)
        if isinstance(value, tuple):
            value = value[0] if value else None
        return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True)
class TiffFacts:
    """All directories of a TIFF: the chain first, each followed by its sub-directories."""

    directories: tuple[Directory, ...]
    needed: int

    @property
    def main(self) -> Directory:
        """The first image of the file."""
        return self.directories[0]

    @property
    def largest(self) -> Directory:
        """The largest image of the chain, the first of several."""
        return max((each for each in self.directories if len(each.path) == 1), key=lambda each: math.prod(each.size))

    @property
    def is_ndpi(self) -> bool:
        """Whether Hamamatsu wrote it; its strips are not what TIFF says."""
        return NDPI_VERSION in self.main.tags


def is_tiff(head: bytes) -> bool:
    """Whether a file that starts so is a TIFF or BigTIFF."""
    return head[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def check_tiff(path: Path, max_megapixels: float) -> TiffFacts:
    """Read a TIFF's directories and refuse what cannot be right.

    Raises
    ------
    TruncatedSlide
        Says how many bytes are missing.
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
    """Walks the directories of one file; bounded in count and size, and proof against loops."""

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
        """Return the directory at `offset` and the offset of the next, or None when it lies beyond the end."""
        if offset in seen:
            raise NotASlide("it is a TIFF whose directories form a loop")
        seen.add(offset)
        head, item, link = (8, 20, 8) if self.big else (2, 12, 4)
        if offset + head > self.size:
            self.needed = max(self.needed, offset + head + item + link)
            return None, 0
        count = self._unpack("Q" if self.big else "H", os.pread(self.file, head, offset))
        if count == 0:
            # A copier that reserves the whole size first leaves zeros where the rest will come.
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
            if tag not in _WANTED:
                self._note_reach(entry)
                continue
            value = self._value(tag, entry)
            if value is not None:
                tags[tag] = value
        if NDPI_VERSION in tags:
            # Hamamatsu's directories go on: four more bytes of the link, then the upper half of each value.
            self.needed = max(self.needed, end + 4 + 4 * count)
        directory = Directory(path, tags)
        self._reach(directory)
        return directory, self._unpack("Q" if self.big else "I", table[-link:])

    def _reach(self, directory: Directory) -> None:
        """Note up to which byte the directory's pixels go."""
        offsets, counts = directory.offsets, directory.counts
        present = min(len(offsets), len(counts))
        if not present:
            return
        # Sums in float where they could overflow 64 bits: garbage is to be found beyond the end, not wrapped round.
        used = counts[:present] > 0
        ends = offsets[:present][used].astype(np.float64) + counts[:present][used].astype(np.float64)
        if ends.size:
            top = float(ends.max())
            exact = int(offsets[:present][used].max()) + int(counts[:present][used].max()) if top > 2**62 else 0
            reach = exact or int((offsets[:present][used] + counts[:present][used]).max())
            self.needed = max(self.needed, reach)

    def _note_reach(self, entry: bytes) -> None:
        """Note up to which byte a tag goes whose value is of no interest: a file may end within it."""
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
        most = MAX_TEXT if tag in _TEXTS else MAX_PROFILE if tag in _BYTES else MAX_SEGMENTS * 8
        if tag in _TABLES and count > MAX_SEGMENTS:
            if count * each > self.size:
                self.needed = max(self.needed, count * each)
                return None
            raise UnsupportedSlide(f"it is a TIFF whose table of tiles has {count:,} entries")
        wanted = count if tag in _TABLES or tag in _TEXTS or tag in _BYTES else min(count, 64)
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
        if tag in _TEXTS or tag in _BYTES:
            return raw if tag in _BYTES else _text(raw)
        if kind in (5, 10):
            above, below = struct.unpack_from(self.order + ("II" if kind == 5 else "ii"), raw)
            return above / below if below else 0.0
        if kind in (11, 12):
            return float(struct.unpack_from(self.order + ("f" if kind == 11 else "d"), raw)[0])
        if kind not in _NUMPY_TYPES:
            return None
        values = np.frombuffer(raw, np.dtype(self.order + _NUMPY_TYPES[kind]))
        if tag in _TABLES:
            return values.astype(np.uint64)
        return tuple(int(value) for value in values)

    def _unpack(self, kind: str, raw: bytes) -> int:
        try:
            return int(struct.unpack(self.order + kind, raw)[0])
        except struct.error as error:  # the file shrank while it was read
            raise TruncatedSlide("it ends within a directory") from error


def _text(raw: bytes) -> str:
    """Return the text of a tag: UTF-8, UTF-16 by its mark or first letter, else Latin-1."""
    for start, encoding in _UTF_16:
        if raw.startswith(start):
            return raw.decode(encoding, "ignore").rstrip("\0")
    try:
        return raw.decode("utf-8").rstrip("\0")
    except UnicodeDecodeError as error:
        # A text that was cut off at the limit may end within a letter.
        cut = len(raw) == MAX_TEXT and error.start > len(raw) - 4
        return raw.decode("utf-8" if cut else "latin-1", "ignore").rstrip("\0")
