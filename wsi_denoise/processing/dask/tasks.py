"""Tasks of the worker processes on single blocks and regions.

Untrusted slides are opened only in workers, which may die without the daemon. Tasks take and return plain values. An
error that is not a WsiDenoiseError is a bug.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from wsi_denoise import __version__
from wsi_denoise.errors import WorkerDiffers, WsiDenoiseError
from wsi_denoise.network import denoiser as network
from wsi_denoise.network.denoiser import Denoiser
from wsi_denoise.processing.block import Read, run_block
from wsi_denoise.processing.dask import worker
from wsi_denoise.processing.spool import Spool, content_of
from wsi_denoise.processing.values import BlockReport, Mask, SlidePlan, SlideWork
from wsi_denoise.settings import ComputeSettings
from wsi_denoise.slide import reader
from wsi_denoise.slide.base import Slide, SourceFile, check_files
from wsi_denoise.slide.encoding import Pixels
from wsi_denoise.slide.geometry import BlockIndex
from wsi_denoise.system import disk


def probe(path: Path, max_megapixels: float) -> WsiDenoiseError | None:
    """Open a slide and read its last tile; return the error, or None."""
    try:
        reader.probe(path, max_megapixels=max_megapixels)
    except WsiDenoiseError as error:
        return error
    return None


def _opened(work: SlideWork) -> Slide:
    return reader.open_cached(work.path, max_megapixels=work.max_megapixels, content=content_of(work.spool.name))


def block(work: SlideWork, index: BlockIndex, tissue_of_block: Mask) -> BlockReport:
    """Process one block; see :func:`wsi_denoise.processing.block.run_block`.

    Raises
    ------
    SlideError, SourceError, WorkerDiffers, DeviceOutOfMemory, DiskFull, OutputUnwritable
    """
    if work.version != __version__:
        raise WorkerDiffers(f"version {__version__}, planned by {work.version}")
    spool = Spool(work.spool)
    # A worker died between writing and reporting the file, or the task was resubmitted. The folder's name stands for
    # everything that changes a pixel, so the file is valid.
    if spool.is_sound(index):
        width, height = work.lattice.region(index).size
        return BlockReport(index, width * height, 0, 0, {})
    with disk.translate_write_errors(work.spool):
        spool.make()
        check_files(work.files)
        slide = _opened(work)
        return run_block(work, index, tissue_of_block, _reading(slide, work.files), _denoiser(work))


def _denoiser(work: SlideWork) -> Denoiser | None:
    if work.preset is None:
        return None
    return worker.denoiser(work.preset, work.plan, work.model_sha256)


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
