"""Read the finished blocks of a slide row by row: tiles, level 2, overview, evidence.

The pyramid is written without the whole slide in memory. Only the files of one row of blocks are open at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from wsi_denoise.processing.spool import DAMAGE, Spool, SpooledBlock
from wsi_denoise.processing.values import BlockLost, Mask, SlideWork
from wsi_denoise.quality import structure
from wsi_denoise.quality.evidence import Evidence
from wsi_denoise.quality.structure import Edges
from wsi_denoise.slide import overview
from wsi_denoise.slide.encoding import Pixels
from wsi_denoise.slide.geometry import BLOCK, TILE, BlockIndex, Lattice, level_sizes, tile_shape

_log = logging.getLogger(__name__)

TILES_PER_BLOCK = BLOCK // TILE


class _Row:
    """The open files of one row of blocks."""

    def __init__(self, spool: Spool, lattice: Lattice, row: int) -> None:
        self._stack = ExitStack()
        self.blocks: list[SpooledBlock] = []
        for column in range(lattice.block_shape[1]):
            try:
                self.blocks.append(self._stack.enter_context(spool.open(BlockIndex(row, column))))
            except DAMAGE as error:
                self._stack.close()
                raise BlockLost(row, column) from error
        self._row = row

    def __iter__(self) -> Iterator[tuple[int, SpooledBlock]]:
        return iter(enumerate(self.blocks))

    def lost(self, column: int) -> BlockLost:
        return BlockLost(self._row, column)

    def close(self) -> None:
        self._stack.close()


def _rows(spool: Spool, lattice: Lattice) -> Iterator[_Row]:
    for row in range(lattice.block_shape[0]):
        files = _Row(spool, lattice, row)
        try:
            yield files
        finally:
            files.close()


def tiles(spool: Spool, lattice: Lattice, level: int, size: tuple[int, int]) -> Iterator[bytes]:
    """Yield the encoded tiles of level 0 or 1 in raster order."""
    tile_rows, tile_columns = tile_shape(*size)
    per_block = TILES_PER_BLOCK >> level
    for number, files in enumerate(_rows(spool, lattice)):
        for row in range(number * per_block, min((number + 1) * per_block, tile_rows)):
            for column in range(tile_columns):
                at = column // per_block
                try:
                    yield files.blocks[at].tile(level, row % per_block, column % per_block)
                except DAMAGE as error:
                    raise files.lost(at) from error


def reduced_rows(
    spool: Spool, lattice: Lattice, size: tuple[int, int], which: Callable[[SpooledBlock], Pixels]
) -> Iterator[Pixels]:
    """Yield level 2 of the output or of the source, one row of blocks at a time."""
    for files in _rows(spool, lattice):
        parts = []
        for column, file in files:
            try:
                parts.append(which(file))
            except DAMAGE as error:
                raise files.lost(column) from error
        rows = np.concatenate(parts, axis=1)
        if rows.shape[1] != size[0]:
            raise ValueError(f"blocks are {rows.shape[1]} px wide at level 2 instead of {size[0]}")
        yield rows


def write_overview(spool: Spool, work: SlideWork, file: Path) -> None:
    """Write the source's overview. An error is only logged, as the dashboard works without the overview."""
    size = level_sizes(work.width, work.height)[overview.FIRST]
    try:
        overview.write(file, (work.width, work.height), reduced_rows(spool, work.lattice, size, SpooledBlock.source))
    except (OSError, ValueError, BlockLost) as error:
        _log.warning("the overview of the original is not kept: %s", error)


def evidence(spool: Spool, lattice: Lattice, tissue_of_slide: Mask | None) -> Evidence:
    """Merge the evidence of all blocks, and measure the seams of denoised blocks."""
    total = Evidence()
    above: dict[int, tuple[Edges, bool]] = {}
    for number, files in enumerate(_rows(spool, lattice)):
        current: dict[int, tuple[Edges, bool]] = {}
        parts = []
        for column, file in files:
            try:
                arrays = file.arrays()
                part = Evidence.from_arrays(arrays)
            except DAMAGE as error:
                raise files.lost(column) from error
            inside = lattice.patches(BlockIndex(number, column))
            denoised = tissue_of_slide is None or bool(tissue_of_slide[inside].any())
            current[column] = Edges.from_arrays(arrays), denoised
            for neighbour, below in ((current.get(column - 1), False), (above.get(column), True)):
                if neighbour and (denoised or neighbour[1]):
                    part = part.with_seam(structure.block_seam(neighbour[0], current[column][0], below=below))
            parts.append(part)
        total = Evidence.merge((total, *parts))
        above = current
    return total
