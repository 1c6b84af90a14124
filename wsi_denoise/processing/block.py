"""Process one block in a Dask task: read it with its halo, denoise, crop, measure, halve, encode, spool.

A task receives a path and coordinates, and leaves a file in the spool. Pixels are not sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice

import numpy as np
from numpy.typing import NDArray

from wsi_denoise.network.denoiser import Denoiser
from wsi_denoise.processing.spool import BlockProduct, Spool
from wsi_denoise.processing.values import BlockReport, Mask, SlideWork
from wsi_denoise.quality import evidence, fidelity, structure
from wsi_denoise.slide.encoding import Encoding, Pixels, cut
from wsi_denoise.slide.geometry import PATCH, STRIDE, TILE, BlockIndex, Region, count, mirror
from wsi_denoise.slide.halving import halve
from wsi_denoise.slide.windows import Cover, cover

CODEC_STEP = 4

Read = Callable[[int, int, int, int], Pixels]
"""Reads (x, y, width, height) of level 0 inside the slide, as (height, width, 3) uint8."""


def run_block(work: SlideWork, block: BlockIndex, tissue: Mask, read: Read, denoiser: Denoiser | None) -> BlockReport:
    """Process one block from reading to the spool.

    Parameters
    ----------
    tissue : ndarray of bool
        (rows, columns) of the block's patches; True for tissue.
    read : callable
        See :data:`Read`.
    denoiser : Denoiser or None
        None keeps every pixel.

    Raises
    ------
    SlideError
        From reading.
    OSError
        When the spool cannot be written.
    """
    region = work.lattice.region(block)
    chosen = _chosen(work, tissue)
    covered = cover(region, chosen, work.plan.sides, work.halo, work.plan.fitted)
    clock = _Clock()
    padded = read_mirrored(read, covered.area, work)
    clock.lap("read")
    if denoiser is None:
        before = _inside(padded, covered)
        after = before.copy()
    else:
        before, after = denoise_region(padded, covered, chosen, work.plan.batch, denoiser)
    if work.background == "flatten":
        _flatten(after, tissue, work.glass)
    clock.lap("network")
    measured = evidence.measure(before, after, tissue, denoised=chosen, origin=region.origin)
    borders = structure.edges(before, after)
    clock.lap("measure")
    tiles, reduced, sse, samples = encode(after, work.encoding)
    measured = measured.with_codec(sse, samples)
    source = halve(halve(before)) if work.overview else None
    product = BlockProduct(tiles, reduced, {**measured.to_arrays(), **borders.to_arrays()}, source)
    spooled = Spool(work.spool).write(block, product)
    clock.lap("encode")
    kept = sum(height * width for height, width in _patch_sizes(region, chosen))
    return BlockReport(block, before.shape[0] * before.shape[1], kept, spooled, clock.seconds)


def _chosen(work: SlideWork, tissue: Mask) -> Mask:
    """Return the patches that the network processes."""
    if work.preset is None:
        return np.zeros_like(tissue)
    return np.ones_like(tissue) if work.background == "denoise" else tissue


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now


def read_mirrored(read: Read, wanted: Region, work: SlideWork) -> Pixels:
    """Read a region. Pixels beyond the slide are mirrored.

    Returns
    -------
    ndarray
        (height, width, 3) uint8, in the size of `wanted`.
    """
    rows = mirror(wanted.y.start, wanted.y.stop, work.height)
    columns = mirror(wanted.x.start, wanted.x.stop, work.width)
    top, left = int(rows.min()), int(columns.min())
    height, width = int(rows.max()) - top + 1, int(columns.max()) - left + 1
    pixels = read(left + work.offset[0], top + work.offset[1], width, height)
    # Equal sizes are not enough: a region wholly beyond an edge is reversed.
    if (left, top) == wanted.origin and (width, height) == wanted.size:
        return pixels
    return _gathered(pixels, rows - top, columns - left)


def _gathered(pixels: Pixels, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Pixels:
    """Return rows and columns by index; consecutive columns are copied in one step.

    NumPy alone would gather three bytes at a time, which takes longer than decoding the block.
    """
    across = np.empty((len(pixels), len(columns), 3), np.uint8)
    for run in np.split(np.arange(len(columns)), np.flatnonzero(np.diff(columns) != 1) + 1):
        first, last = int(run[0]), int(run[-1]) + 1
        across[:, first:last] = pixels[:, columns[first] : columns[first] + last - first]
    if len(rows) == len(pixels) and (np.diff(rows) == 1).all():
        return across
    return np.asarray(across[rows], np.uint8)


def _inside(padded: Pixels, covered: Cover) -> Pixels:
    """Return the region from the pixels of its area, without a copy."""
    (width, height), (left, top) = covered.region.size, covered.area.origin
    y, x = covered.region.y.start - top, covered.region.x.start - left
    return padded[y : y + height, x : x + width]


def denoise_region(
    padded: Pixels, covered: Cover, chosen: Mask, batch: int, denoiser: Denoiser
) -> tuple[Pixels, Pixels]:
    """Denoise the chosen patches of a region.

    The network's stride is 16 px: a window off that grid gives other pixels, whatever its halo. So origins are
    multiples of 96 px, and halos are multiples of 16 px.

    Parameters
    ----------
    padded : ndarray
        (height, width, 3) uint8: the area of `covered`.
    covered : Cover
        The region that is kept, and the windows.
    chosen : ndarray of bool
        (rows, columns) of patches; True for those that are replaced.
    batch : int
        Windows per call of the network.

    Returns
    -------
    before, after : ndarray
        (height, width, 3) uint8 of the region.
    """
    region, area, halo = covered.region, covered.area, covered.halo
    if halo % STRIDE or region.x.start % PATCH or region.y.start % PATCH:
        raise ValueError(f"region {region} with a halo of {halo} px is off the lattice")
    before = _inside(padded, covered)
    after = np.empty_like(before, order="C") if chosen.all() else before.copy()
    for group in _grouped(covered.whole, batch):
        # A partial batch is filled with a repeated window: the network must see few shapes.
        filled = group + group[:1] * (batch - len(group))
        inner = _inner(denoiser.denoise(_stacked(padded, area, filled, halo)), halo)
        for part, pixels in zip(group, inner, strict=False):
            _put(after, pixels, part, region, chosen)
    for part in covered.fitted:
        inner = _inner(denoiser.denoise(_stacked(padded, area, [part], halo), fitted=True), halo)
        _put(after, inner[0], part, region, chosen)
    return before, after


def _stacked(padded: Pixels, area: Region, windows: Sequence[Region], halo: int) -> Pixels:
    """Cut windows of one size, with their halo, from the pixels of an area; a single one is not copied."""
    parts = []
    for window in windows:
        y, x = window.y.start - halo - area.y.start, window.x.start - halo - area.x.start
        parts.append(padded[y : y + len(window.y) + 2 * halo, x : x + len(window.x) + 2 * halo])
    return parts[0][None] if len(parts) == 1 else np.stack(parts)


def _inner(windows: Pixels, halo: int) -> Pixels:
    """Return windows without their halo."""
    return windows[:, halo : windows.shape[1] - halo, halo : windows.shape[2] - halo]


def _grouped(windows: Iterable[Region], size: int) -> Iterator[list[Region]]:
    """Yield up to `size` windows of one side at a time."""
    for _, alike in groupby(windows, key=lambda window: window.size):
        parts = iter(alike)
        while group := list(islice(parts, size)):
            yield group


def _patch_of(part: Region, region: Region) -> tuple[int, int]:
    return (part.y.start - region.y.start) // PATCH, (part.x.start - region.x.start) // PATCH


def _put(after: Pixels, inner: Pixels, part: Region, region: Region, chosen: Mask) -> None:
    """Copy the chosen patches of a denoised window into the block."""
    first_row, first_column = _patch_of(part, region)
    height, width = after.shape[:2]
    bottom, right = min(part.y.stop - region.y.start, height), min(part.x.stop - region.x.start, width)
    top, left = part.y.start - region.y.start, part.x.start - region.x.start
    rows, columns = count(bottom - top, PATCH), count(right - left, PATCH)
    of_window = chosen[first_row : first_row + rows, first_column : first_column + columns]
    if of_window.all():
        after[top:bottom, left:right] = inner[: bottom - top, : right - left]
        return
    for row, column in zip(*np.nonzero(of_window), strict=True):
        y, x = int(row) * PATCH, int(column) * PATCH
        y_stop, x_stop = min(y + PATCH, bottom - top), min(x + PATCH, right - left)
        after[top + y : top + y_stop, left + x : left + x_stop] = inner[y:y_stop, x:x_stop]


def _flatten(after: Pixels, tissue: Mask, glass: tuple[int, int, int]) -> None:
    for row, column in zip(*np.nonzero(~tissue), strict=True):
        after[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = glass


def _patch_sizes(region: Region, chosen: Mask) -> Iterator[tuple[int, int]]:
    width, height = region.size
    for row, column in zip(*np.nonzero(chosen), strict=True):
        yield min(PATCH, height - int(row) * PATCH), min(PATCH, width - int(column) * PATCH)


def encode(after: Pixels, encoding: Encoding) -> tuple[dict[tuple[int, int, int], bytes], Pixels, float, int]:
    """Encode a block's tiles at level 0 and 1, and halve it to level 2.

    Returns
    -------
    tiles : dict
        (level, row, column) to bytes.
    reduced : ndarray
        (height, width, 3) uint8 of level 2.
    sse, samples : float, int
        Squared error of the codec at level 0, summed over 8-bit values, and their number. Only every fourth tile is
        measured, since it must be decoded for that.
    """
    tiles: dict[tuple[int, int, int], bytes] = {}
    sse, samples = 0.0, 0
    half = halve(after)
    for level, pixels in enumerate((after, half)):
        height, width = pixels.shape[:2]
        for row in range(count(height, TILE)):
            for column in range(count(width, TILE)):
                tile = cut(pixels, row, column)
                data = tiles[level, row, column] = encoding.encode(tile)
                if level or encoding.lossless or (row + 2 * column) % CODEC_STEP:
                    continue
                inside = (slice(0, height - row * TILE), slice(0, width - column * TILE))
                error, values = fidelity.squared_error(tile[inside], encoding.decode(data)[inside])
                sse, samples = sse + error, samples + values
    return tiles, halve(half), sse, samples
