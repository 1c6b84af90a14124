"""Declarations of a TIFF's directories: tags, codecs and images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

#: Maximum decoded size of a tile or strip, which must fit into memory.
MAX_SEGMENT_BYTES = 512 << 20

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
SUBFILE, DESCRIPTION, STRIP_OFFSETS, SAMPLES, STRIP_ROWS, STRIP_COUNTS = 254, 270, 273, 277, 278, 279
X_RESOLUTION, Y_RESOLUTION, PLANAR, RESOLUTION_UNIT, PREDICTOR = 282, 283, 284, 296, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, SUB_IFDS, EXTRA_SAMPLES, SAMPLE_FORMAT = (
    322, 323, 324, 325, 330, 338, 339,
)  # fmt: skip
MAKE, MODEL, ORIENTATION, SOFTWARE, ICC_PROFILE, NDPI_VERSION = 271, 272, 274, 305, 34675, 65420
NDPI_MAGNIFICATION, NDPI_FOCAL_PLANE = 65421, 65424
FILL_ORDER, JPEG_TABLES = 266, 347
WANTED = {
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SUBFILE, DESCRIPTION, STRIP_OFFSETS, SAMPLES, STRIP_ROWS,
    STRIP_COUNTS, X_RESOLUTION, Y_RESOLUTION, PLANAR, RESOLUTION_UNIT, PREDICTOR, TILE_WIDTH, TILE_HEIGHT,
    TILE_OFFSETS, TILE_COUNTS, SUB_IFDS, EXTRA_SAMPLES, SAMPLE_FORMAT, MAKE, MODEL, ORIENTATION, SOFTWARE, ICC_PROFILE,
    NDPI_VERSION, NDPI_MAGNIFICATION, NDPI_FOCAL_PLANE, FILL_ORDER, JPEG_TABLES,
}  # fmt: skip
TEXTS = {DESCRIPTION, MAKE, MODEL, SOFTWARE}
BYTES = {ICC_PROFILE, JPEG_TABLES}
TABLES = {STRIP_OFFSETS, STRIP_COUNTS, TILE_OFFSETS, TILE_COUNTS}

#: Names of codecs in this program, by their TIFF numbers.
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
        The tags in WANTED: ints, floats, text, bytes, tuples of int, or arrays for the tables of offsets.
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
        """Whether the image is stored in tiles, not strips."""
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
        """Whether red, green and blue are stored in separate planes."""
        return self._int(PLANAR, 1) == 2 and self.samples > 1

    @property
    def planes(self) -> int:
        """Number of segments for one position: 1, or one per sample in separate planes."""
        return self.samples if self.planar else 1

    @property
    def predictor(self) -> int:
        """1 for none, 2 for differences."""
        return self._int(PREDICTOR, 1)

    @property
    def reduced(self) -> bool:
        """Whether the image is flagged as a smaller version of another one."""
        return bool(self._int(SUBFILE, 0) & 1)

    @property
    def extra_sample(self) -> int | None:
        """Meaning of the fourth sample: 1 premultiplied alpha, 2 alpha, 0 unspecified."""
        return self._int(EXTRA_SAMPLES, 0) if self.samples == 4 else None

    @property
    def orientation(self) -> int:
        """TIFF's number of the orientation; 1 is the usual one, from the upper left corner."""
        return self._int(ORIENTATION, 1)

    @property
    def sample_formats(self) -> frozenset[int]:
        """Formats of the samples: 1 unsigned, 2 signed, 3 floating point, 4 undefined."""
        value = self.tags.get(SAMPLE_FORMAT, (1,))
        return frozenset(value) if isinstance(value, tuple) else frozenset({1})

    def text(self, tag: int) -> str:
        """Return a tag's text; empty if it is missing."""
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
        """Offset in nanometres of a Hamamatsu NDPI's focal plane; None for a label, macro or other image."""
        if NDPI_FOCAL_PLANE not in self.tags or (self._number(NDPI_MAGNIFICATION) or 0) <= 0:
            return None
        return self._int(NDPI_FOCAL_PLANE, 0)

    @property
    def resolution(self) -> tuple[float, float] | None:
        """Pixels per unit of length in x and y, without a plausibility check; None if a tag is missing."""
        x, y = (self._number(tag) for tag in (X_RESOLUTION, Y_RESOLUTION))
        return None if x is None or y is None else (x, y)

    @property
    def resolution_unit(self) -> int | None:
        """TIFF's number of the unit: 1 none, 2 inch, 3 centimetre; None if the tag is missing."""
        return self._int(RESOLUTION_UNIT, 0) if RESOLUTION_UNIT in self.tags else None

    def _number(self, tag: int) -> float | None:
        value = self.tags.get(tag)
        if isinstance(value, tuple):
            value = value[0] if value else None
        return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True)
class TiffFacts:
    """All directories of a TIFF in the order of the chain, each followed by its sub-directories.

    `needed` is the size in bytes that the file must have for all declared data.
    """

    directories: tuple[Directory, ...]
    needed: int

    @property
    def main(self) -> Directory:
        """The first image of the file."""
        return self.directories[0]

    @property
    def largest(self) -> Directory:
        """The largest image of the chain; the first of several."""
        return max((each for each in self.directories if len(each.path) == 1), key=lambda each: math.prod(each.size))

    @property
    def is_ndpi(self) -> bool:
        """Whether the file is a Hamamatsu NDPI, whose strips do not follow TIFF."""
        return NDPI_VERSION in self.main.tags
