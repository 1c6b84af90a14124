"""Tasks of the worker processes: probe, plan, block, assemble, verify.

Untrusted slides are opened only here, in processes that may die without the daemon. Tasks take and return plain values.
An error that is not a WsiDenoiseError is a bug.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import imagecodecs
import numpy as np

from wsi_denoise import __version__
from wsi_denoise.errors import RegionOutside, VerificationFailed, WorkerDiffers, WsiDenoiseError
from wsi_denoise.network import denoiser as network
from wsi_denoise.network import weights
from wsi_denoise.processing import assembly
from wsi_denoise.processing.assembly import TILES_PER_BLOCK
from wsi_denoise.processing.block import Read, run_block
from wsi_denoise.processing.dask import worker
from wsi_denoise.processing.spool import DAMAGE, Spool, SpooledBlock, content_of, folder_name
from wsi_denoise.processing.values import BlockLost, BlockReport, Mask, SlidePlan, SlideWork
from wsi_denoise.quality import noise, patch_map
from wsi_denoise.settings import ComputeSettings, Settings
from wsi_denoise.slide import overview, provenance, reader, tissue
from wsi_denoise.slide.base import Slide, SlideInfo, SourceFile, check_files
from wsi_denoise.slide.encoding import Encoding, Pixels
from wsi_denoise.slide.geometry import PATCH, TILE, BlockIndex, Lattice, level_sizes
from wsi_denoise.slide.pyramid import Bands, Header, Level, write_pyramid
from wsi_denoise.slide.verify import Expected, check_written
from wsi_denoise.system import disk

_log = logging.getLogger(__name__)

NOISY_GLASS, GLASS_SAMPLES = 2.0, 12
"""Background is denoised too if its noise has a sigma above this many grey levels, as the median of this many patches.
The background of the real slides at hand is at 0.0 to 0.4."""

# A worker already has as many threads as it may use; those of OpenCV would compete for the cores.
cv2.setNumThreads(1)


def probe(path: Path, max_megapixels: float) -> WsiDenoiseError | None:
    """Open a slide and read its last tile; return the error, or None."""
    try:
        reader.probe(path, max_megapixels=max_megapixels)
    except WsiDenoiseError as error:
        return error
    return None


def plan_slide(
    path: Path,
    fingerprint: str,
    settings: Settings,
    preset: str,
    spool: Path,
    region: tuple[int, int, int, int] | None = None,
    files: tuple[SourceFile, ...] = (),
) -> SlidePlan:
    """Open a slide, find its tissue, and choose device and numerics.

    Parameters
    ----------
    fingerprint : str
        SHA-256 of the source.
    spool : Path
        Folder of all spool folders.
    region : tuple of int, optional
        (x, y, width, height) at level 0; clipped to the slide.
    files : tuple of SourceFile
        The fingerprinted files, which must not have changed.

    Raises
    ------
    SlideError, SourceError, ModelError
    """
    limit = settings.limits.megapixels
    card = weights.card(preset)
    plan = network.choose(settings.compute, card.filters, worker.room())
    check_files(files)
    slide = reader.open_cached(path, max_megapixels=limit, content=content_of(fingerprint))
    info = slide.info
    x, y, width, height = _inside(region, info)
    lattice = Lattice(width, height)
    if region is None:
        thumbnail = slide.thumbnail(tissue.thumbnail_side(lattice.patch_shape))
        mask = tissue.tissue_patches(
            thumbnail, lattice.patch_shape, (width, height), mode=settings.tissue.mode, dilate=settings.tissue.dilate
        )
    else:
        mask = tissue.TissueMask(np.ones(lattice.patch_shape, np.bool_), found=True, note="a region is processed whole")
    made = {
        "fingerprint": fingerprint,
        "preset": preset,
        "model_sha256": card.sha256,
        "settings": settings.pixel_settings(),
        "numerics": plan.numerics,
        "region": list(region) if region else None,
    }
    version = provenance.describe({})
    key = {**made, "version": version.partition("\n")[0], "halo": settings.compute.halo}
    output = settings.output
    work = SlideWork(
        path=path,
        width=width,
        height=height,
        offset=(x, y),
        preset=preset,
        plan=plan,
        halo=settings.compute.halo,
        background=_background(settings.tissue.background, slide, mask.patches, (x, y)),
        glass=info.background,
        encoding=Encoding(output.compression, output.quality, output.subsampling),
        spool=spool / folder_name(fingerprint, key),
        max_megapixels=limit,
        model_sha256=card.sha256,
        version=__version__,
        files=files,
        overview=region is None and overview.needed(slide),
    )
    facts = {
        **made,
        "plan": str(plan),
        "background": work.background,
        "reader": info.reader,
        "source_name_sha256": _digest(path.name),
    }
    small = None if region is not None else _jpeg(thumbnail)
    check_files(files)
    return SlidePlan(work, info, mask.patches, mask.note, provenance.describe(facts), facts, small)


def _opened(work: SlideWork) -> Slide:
    return reader.open_cached(work.path, max_megapixels=work.max_megapixels, content=content_of(work.spool.name))


def _jpeg(thumbnail: Pixels) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(thumbnail, level=90, subsampling="444"))


def _background(wanted: str, slide: Slide, patches: Mask, offset: tuple[int, int]) -> str:
    """Return the background policy. For ``auto``, keep clean background and denoise noisy background.

    Noisy background beside denoised tissue would show the outline of the mask.
    """
    if wanted != "auto":
        return wanted
    # Whole patches only: a partial one at the right or lower edge reaches beyond the slide.
    rows, columns = np.nonzero(~patches[: slide.info.height // PATCH, : slide.info.width // PATCH])
    chosen = np.linspace(0, len(rows) - 1, min(GLASS_SAMPLES, len(rows))).astype(int)
    sigmas = []
    for row, column in zip(rows[chosen], columns[chosen], strict=True):
        pixels = slide.read(offset[0] + int(column) * PATCH, offset[1] + int(row) * PATCH, PATCH, PATCH)
        sigma = noise.wavelet_sigma(noise.wavelet_histogram(noise.diagonal(pixels)))
        sigmas.append(float(np.mean(sigma)) if sigma else 0.0)
    return "denoise" if sigmas and float(np.median(sigmas)) > NOISY_GLASS else "keep"


def _digest(name: str) -> str:
    """Hash a file name, which often contains an accession number: the hash can be matched without revealing it."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _inside(region: tuple[int, int, int, int] | None, info: SlideInfo) -> tuple[int, int, int, int]:
    if region is None:
        return 0, 0, info.width, info.height
    x, y, width, height = region
    left, top = max(0, x), max(0, y)
    right, bottom = min(info.width, x + width), min(info.height, y + height)
    if right <= left or bottom <= top:
        asked = f"x {x}, y {y}, {width} x {height} px"
        raise RegionOutside(f"{asked}, of a slide of {info.width} x {info.height} px")
    return left, top, right - left, bottom - top


def block(work: SlideWork, index: BlockIndex, tissue_of_block: Mask) -> BlockReport:
    """Process one block; see :func:`wsi_denoise.processing.block.run_block`.

    Raises
    ------
    SlideError, SourceError, WorkerDiffers, DeviceOutOfMemory, DiskFull, OutputUnwritable
    """
    if work.version != __version__:
        raise WorkerDiffers(f"version {__version__}, planned by {work.version}")
    started = work.spool / f"{index}.started"
    spool = Spool(work.spool)
    # A worker died between writing and reporting the file, or the task was resubmitted. The folder's name stands for
    # everything that changes a pixel, so the file is valid.
    if spool.is_sound(index):
        started.unlink(missing_ok=True)
        region = work.lattice.region(index)
        return BlockReport(index, region.size[0] * region.size[1], 0, 0, {})
    with disk.translate_write_errors(work.spool):
        spool.make()
        with _first_alone():
            # Names the running block, for the analysis of a worker that died. Only tests read it.
            started.write_text(str(os.getpid()), "ascii")
            check_files(work.files)
            slide = _opened(work)
            denoiser = network.cached(
                work.preset, work.plan, worker.callers(), worker.number(), sha256=work.model_sha256
            )
            report = run_block(work, index, tissue_of_block, _reading(slide, work.files), denoiser)
            started.unlink(missing_ok=True)
    return report


def _reading(slide: Slide, files: tuple[SourceFile, ...]) -> Read:
    """Return a function that reads pixels and raises if the files were replaced.

    The spool folder carries the fingerprint of the original content. A block of other content in it would count as
    finished when the original is back.
    """

    def read(x: int, y: int, width: int, height: int) -> Pixels:
        pixels = slide.read(x, y, width, height)
        check_files(files)
        return pixels

    return read


def sent_block(work: SlideWork, index: BlockIndex, tissue_of_block: Mask) -> tuple[BlockReport, bytes]:
    """Process one block and return its file with the report, for a worker that does not see the state folder.

    Raises
    ------
    SlideError, SourceError, DeviceOutOfMemory, DiskFull, OutputUnwritable
    """
    with TemporaryDirectory(prefix="wsi-denoise-") as folder:
        report = block(replace(work, spool=Path(folder)), index, tissue_of_block)
        return report, Spool(Path(folder)).sent(index)


def describe_device(compute: ComputeSettings, preset: str) -> str:
    """Return one line about the device that this worker uses for a preset."""
    return network.describe_device(compute, preset, worker.room())


_first = threading.Lock()
_first_done = threading.Event()


@contextmanager
def _first_alone() -> Iterator[None]:
    """Run the first block of this process alone.

    It loads, compiles and starts what the others reuse: codecs, network, thread pools.
    """
    if not _first_done.is_set():
        with _first:
            if not _first_done.is_set():
                try:
                    yield
                finally:
                    _first_done.set()
                return
    yield


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
            levels = [
                Level(size, assembly.tiles(spool, work.lattice, level, size)) for level, size in enumerate(sizes[:2])
            ]
            if len(sizes) > 2:
                bands = Bands(sizes[2:], work.encoding, work.spool)
                stack.callback(bands.close)
                for rows in assembly.reduced_rows(spool, work.lattice, sizes[2], SpooledBlock.reduced):
                    bands.feed(rows)
                levels += list(bands.levels())
            write_pyramid(target, levels, work.encoding, Header(plan.description, plan.info.mpp, plan.info.icc_profile))
        found = assembly.evidence(spool, work.lattice, plan.tissue if work.background != "denoise" else None)
        if maps is not None:
            maps.parent.mkdir(exist_ok=True)
            patch_map.save(maps, found.patch_map(work.lattice.patch_shape))
    if work.overview and overview_file is not None:
        assembly.write_overview(spool, work, overview_file)
    return found.summary()


def verify(plan: SlidePlan, target: Path, tiles: int) -> str:
    """Check the written file against the spool, and return its SHA-256.

    Raises
    ------
    VerificationFailed, BlockLost, DiskFull, OutputUnwritable
    """
    work = plan.work
    spool = Spool(work.spool)

    @contextmanager
    def block_with(row: int, column: int) -> Iterator[SpooledBlock]:
        row, column = row // TILES_PER_BLOCK, column // TILES_PER_BLOCK
        try:
            with spool.open(BlockIndex(row, column)) as file:
                yield file
        except DAMAGE as error:
            raise BlockLost(row, column) from error

    def tile(row: int, column: int) -> bytes:
        with block_with(row, column) as file:
            return file.tile(0, row % TILES_PER_BLOCK, column % TILES_PER_BLOCK)

    @lru_cache(maxsize=4)
    def whole(block_row: int, block_column: int) -> Pixels:
        with block_with(block_row * TILES_PER_BLOCK, block_column * TILES_PER_BLOCK) as file:
            return file.reduced()

    def reduced(row: int, column: int) -> Pixels:
        quarter = TILE // 4
        y, x = row % TILES_PER_BLOCK * quarter, column % TILES_PER_BLOCK * quarter
        return whole(row // TILES_PER_BLOCK, column // TILES_PER_BLOCK)[y : y + quarter, x : x + quarter]

    expected = Expected(
        work.width, work.height, plan.info.mpp, plan.info.icc_profile, work.encoding.lossless, tile, reduced
    )
    try:
        with disk.translate_write_errors(target.parent):
            return check_written(target, expected, tiles=tiles, seed=int(_digest(work.spool.name), 16))
    except VerificationFailed as error:
        if isinstance(error.__cause__, BlockLost):
            # The spooled block is damaged, not the written file: that block is processed again.
            raise error.__cause__ from error
        raise


def preview(plan: SlidePlan, target: Path, picture: Path) -> None:
    """Write a PNG of a trial region, before on the left and after on the right.

    Parameters
    ----------
    plan : SlidePlan
        Of a region.
    target : Path
        The written TIFF.

    Raises
    ------
    SlideError, SourceError, DiskFull, OutputUnwritable
    """
    import tifffile  # noqa: PLC0415 - only for trials
    from PIL import Image  # noqa: PLC0415

    work = plan.work
    slide = _opened(work)
    before = slide.read(*work.offset, work.width, work.height)
    with disk.translate_write_errors(picture.parent):
        with tifffile.TiffFile(target) as tiff:
            after = tiff.pages.first.asarray()
        both = np.concatenate([before, np.full((len(before), 4, 3), 255, np.uint8), after], axis=1)
        Image.fromarray(both).save(picture, "PNG")
