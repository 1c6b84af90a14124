"""Assemble the finished blocks of a slide: write the pyramid, the maps and the overview, and verify the file.

The pyramid is written without the whole slide in memory. Only the files of one row of blocks are open at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from wsi_denoise.errors import VerificationFailed
from wsi_denoise.processing.spool import DAMAGE, Spool, SpooledBlock
from wsi_denoise.processing.values import BlockLost, Mask, SlidePlan, SlideWork
from wsi_denoise.quality import patch_map, structure
from wsi_denoise.quality.evidence import Evidence
from wsi_denoise.quality.structure import Edges
from wsi_denoise.slide import overview
from wsi_denoise.slide.encoding import Pixels
from wsi_denoise.slide.geometry import BLOCK, TILE, BlockIndex, Lattice, level_sizes, tile_shape
from wsi_denoise.slide.pyramid import Bands, Header, Level, write_pyramid
from wsi_denoise.slide.verify import Expected, check_written
from wsi_denoise.system import disk

_log = logging.getLogger(__name__)

TILES_PER_BLOCK = BLOCK // TILE

_Value = TypeVar("_Value")


def assemble(
    plan: SlidePlan, target: Path, maps: Path | None, overview_file: Path | None = None
) -> dict[str, float | None]:
    """Write the pyramid under a partial name from the finished blocks, and return the slide's metrics.

    Parameters
    ----------
    target : Path
        Partial name, in the folder of the output.
    maps : Path or None
        File of the per-patch maps.
    overview_file : Path or None
        File of the source's overview, if it needs one.

    Raises
    ------
    BlockLost
        When a block's file is missing or damaged.
    DiskFull, OutputUnwritable
    """
    work = plan.work
    sizes = level_sizes(work.width, work.height)
    spool = Spool(work.spool)
    with disk.translate_write_errors(target.parent):
        with ExitStack() as stack:
            levels = [Level(size, tiles(spool, work.lattice, level, size)) for level, size in enumerate(sizes[:2])]
            if len(sizes) > 2:
                bands = Bands(sizes[2:], work.encoding, work.spool)
                stack.callback(bands.close)
                for rows in reduced_rows(spool, work.lattice, sizes[2], SpooledBlock.reduced):
                    bands.feed(rows)
                levels += list(bands.levels())
            write_pyramid(target, levels, work.encoding, Header(plan.description, plan.info.mpp, plan.info.icc_profile))
        found = evidence(spool, work.lattice, plan.tissue if work.background != "denoise" else None)
        if maps is not None:
            maps.parent.mkdir(exist_ok=True)
            patch_map.save(maps, found.patch_map(work.lattice.patch_shape))
    if work.overview and overview_file is not None:
        write_overview(spool, work, overview_file)
    return found.summary()


def verify(plan: SlidePlan, target: Path, tiles: int) -> str:
    """Check the written file against the spool, and return its SHA-256.

    Raises
    ------
    VerificationFailed, BlockLost, DiskFull, OutputUnwritable
    """
    work, info = plan.work, plan.info
    source = _Source(Spool(work.spool))
    expected = Expected(
        work.width, work.height, info.mpp, info.icc_profile, work.encoding.lossless, source.tile, source.reduced
    )
    try:
        with disk.translate_write_errors(target.parent):
            return check_written(target, expected, tiles=tiles, seed=work.spool.name)
    except VerificationFailed as error:
        if isinstance(error.__cause__, BlockLost):
            # The spooled block is damaged, not the written file: that block is processed again.
            raise error.__cause__ from error
        raise


class _Source:
    """Single tiles of a slide from its spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._whole = lru_cache(maxsize=4)(lambda block: self._read(block, SpooledBlock.reduced))

    def tile(self, row: int, column: int) -> bytes:
        """Return an encoded tile of level 0."""
        within = row % TILES_PER_BLOCK, column % TILES_PER_BLOCK
        return self._read(_block_of(row, column), lambda file: file.tile(0, *within))

    def reduced(self, row: int, column: int) -> Pixels:
        """Return the pixels of a tile of level 0 at level 2."""
        quarter = TILE // 4
        y, x = row % TILES_PER_BLOCK * quarter, column % TILES_PER_BLOCK * quarter
        whole: Pixels = self._whole(_block_of(row, column))
        return whole[y : y + quarter, x : x + quarter]

    def _read(self, block: BlockIndex, read: Callable[[SpooledBlock], _Value]) -> _Value:
        try:
            with self._spool.open(block) as file:
                return read(file)
        except DAMAGE as error:
            raise BlockLost(block.row, block.column) from error


def _block_of(row: int, column: int) -> BlockIndex:
    """Return the block of a tile of level 0."""
    return BlockIndex(row // TILES_PER_BLOCK, column // TILES_PER_BLOCK)


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
