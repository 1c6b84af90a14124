"""Writing a pyramidal TIFF from encoded tiles.

Memory use does not depend on the slide's size. Levels 0 and 1 are byte copies of the workers' tiles, and smaller levels
are made from level 2 in bands of rows (:class:`Bands`). The layout is a generic tiled BigTIFF. The levels are top-level
pages that are flagged as reduced, each with its resolution. OpenSlide, QuPath, ASAP and tiatoolbox read all of it;
OpenSlide sees only level 0 of an OME-TIFF with SubIFDs. See docs/programs/tiff.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import tifffile

from wsi_denoise import __version__
from wsi_denoise.slide.encoding import Encoding, Pixels, cut
from wsi_denoise.slide.geometry import TILE, tile_shape
from wsi_denoise.slide.halving import halve


@dataclass(frozen=True)
class Level:
    """One level of a pyramid.

    Parameters
    ----------
    size : (int, int)
        (width, height) in pixels.
    tiles : iterable of bytes
        Encoded tiles in raster order; iterated once.
    """

    size: tuple[int, int]
    tiles: Iterable[bytes]


@dataclass(frozen=True)
class Header:
    """Metadata of a pyramidal TIFF.

    Parameters
    ----------
    description : str
        ImageDescription of level 0; ASCII.
    mpp : (float, float) or None
        Micrometres per pixel in x and y. None omits the resolution.
    """

    description: str
    mpp: tuple[float, float] | None = None
    icc_profile: bytes | None = None


def write_pyramid(path: Path, levels: Sequence[Level], encoding: Encoding, header: Header) -> None:
    """Write a pyramidal TIFF and flush it to the disk.

    Parameters
    ----------
    path : Path
        A temporary name, because the file is incomplete until this returns.
    levels : sequence of Level
        Largest first.
    encoding : Encoding
        Encoding of the tiles.

    Raises
    ------
    OSError
        From the file system.
    ValueError
        If a level has too few or too many tiles.
    """
    full = levels[0].size
    with path.open("wb") as file:
        with tifffile.TiffWriter(file, bigtiff=True) as tiff:
            for number, level in enumerate(levels):
                width, height = level.size
                rows, columns = tile_shape(width, height)
                resolution = None
                if header.mpp:
                    # The exact scale of a level is not a power of two, because its size is rounded up.
                    resolution = (1e4 / header.mpp[0] * width / full[0], 1e4 / header.mpp[1] * height / full[1])
                tiles = iter(level.tiles)
                tiff.write(
                    _counted(tiles, rows * columns, number),
                    shape=(height, width, 3),
                    dtype=np.uint8,
                    tile=(TILE, TILE),
                    subfiletype=1 if number else 0,
                    description=header.description if not number else None,
                    metadata=None,
                    software=f"wsi-denoise {__version__}" if not number else False,
                    resolution=resolution,
                    resolutionunit="centimeter" if resolution else "none",
                    iccprofile=header.icc_profile,
                    **encoding.tags(),
                )
                # tifffile ignores surplus tiles.
                if next(tiles, None) is not None:
                    raise ValueError(f"level {number} has more than the {rows * columns} tiles it needs")
        file.flush()
        os.fsync(file.fileno())


def _counted(tiles: Iterable[bytes], expected: int, level: int) -> Iterator[bytes]:
    given = 0
    for tile in tiles:
        given += 1
        yield tile
    if given < expected:
        raise ValueError(f"level {level} has {given} tiles and needs {expected}")


class Bands:
    """A builder of one level and all smaller ones from rows of pixels, top to bottom.

    Each level keeps the rows that do not fill a row of tiles yet, at most 255, and passes halved pairs of rows to the
    next level. Encoded tiles are stored in temporary files, because a TIFF is written level by level. From level 2 on
    they have about 1/12 of the pixels of level 0.

    Parameters
    ----------
    sizes : sequence of (int, int)
        (width, height) of the levels, largest first.
    folder : Path
        Folder of the temporary files.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], encoding: Encoding, folder: Path) -> None:
        self._size = sizes[0]
        self._encoding = encoding
        self._file: IO[bytes] = TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        self._lengths: list[int] = []
        self._rows: list[Pixels] = []
        self._odd: list[Pixels] = []
        self._seen = 0
        self._above = Bands(sizes[1:], encoding, folder) if len(sizes) > 1 else None

    def feed(self, rows: Pixels) -> None:
        """Add the next rows, (any height, width of the level, 3) uint8."""
        width, height = self._size
        if rows.shape[1:] != (width, 3) or self._seen + len(rows) > height:
            raise ValueError(f"rows of shape {rows.shape} after row {self._seen} of a level of {width} x {height}")
        self._seen += len(rows)
        last = self._seen == height
        self._rows = _kept([*self._rows, rows], TILE, self._encode_row, last=last)
        if self._above:
            self._odd = _kept([*self._odd, rows], 2, None, last=last, sink=self._pass_up)

    def _encode_row(self, band: Pixels) -> None:
        for column in range(tile_shape(*self._size)[1]):
            tile = self._encoding.encode(cut(band, 0, column))
            self._file.write(tile)
            self._lengths.append(len(tile))

    def _pass_up(self, rows: Pixels) -> None:
        assert self._above is not None
        self._above.feed(halve(rows))

    def levels(self) -> Iterator[Level]:
        """Yield the finished levels, largest first."""
        if self._seen != self._size[1]:
            raise ValueError(f"only {self._seen} of {self._size[1]} rows were fed")
        yield Level(self._size, self._tiles())
        if self._above:
            yield from self._above.levels()

    def _tiles(self) -> Iterator[bytes]:
        self._file.seek(0)
        for length in self._lengths:
            yield self._file.read(length)

    def close(self) -> None:
        """Remove the temporary files."""
        self._file.close()
        if self._above:
            self._above.close()


def _kept(
    pieces: list[Pixels],
    step: int,
    each: Callable[[Pixels], None] | None,
    *,
    last: bool,
    sink: Callable[[Pixels], None] | None = None,
) -> list[Pixels]:
    """Pass on as many rows as fill whole steps, and return the rest. The last call passes on all rows."""
    rows = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    whole = len(rows) if last else len(rows) // step * step
    if sink is not None and whole:
        sink(rows[:whole])
    if each is not None:
        for start in range(0, whole, step):
            each(rows[start : min(start + step, whole)])
    return [np.array(rows[whole:])] if whole < len(rows) else []
