"""Measure the speed of this machine: each stage alone on one thread, then all together on the cluster.

The stages call the functions of a block (:func:`wsi_denoise.processing.block.run_block`) in the same order, on the part
of a slide with the most tissue. Start-up is excluded: each function runs once before it is timed. Rates are on the wall
clock, as a user sees them. Processor time is reported too, since it stays the same on a busy machine.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from wsi_denoise.network import candidates
from wsi_denoise.network import denoiser as network
from wsi_denoise.processing import block
from wsi_denoise.processing.dask import worker
from wsi_denoise.processing.dask.cluster import Cluster, connect
from wsi_denoise.processing.events import NoEvents
from wsi_denoise.processing.plan import plan_slide
from wsi_denoise.processing.publish import Output
from wsi_denoise.processing.slide import Request, denoise_slide
from wsi_denoise.processing.values import Mask, SlidePlan, SlideWork
from wsi_denoise.quality import evidence, structure
from wsi_denoise.settings import Loaded, Settings
from wsi_denoise.slide import demo, reader
from wsi_denoise.slide.geometry import BLOCK_PATCHES, PATCH, BlockIndex
from wsi_denoise.slide.windows import PREPARED, Cover, cover

Measurement = tuple[str, float, str]
"""Stage, value and unit."""

SIDE_BLOCKS = 4
"""Side of the measured part of a slide, in blocks: 38 megapixels."""

STAGE_SECONDS = 3.0
"""Each stage runs on further blocks until this much wall-clock time has passed."""

RATE, COST = "MPix/s", "processor s/MPix"


def run(loaded: Loaded, slide: Path | None = None) -> Iterator[Measurement]:
    """Measure the stages and the whole pipeline, and yield each result as soon as it is known.

    Parameters
    ----------
    loaded : Loaded
        Source of preset, device and cluster. Its folders and its database are not written to.
    slide : Path, optional
        The demo slide by default.

    Yields
    ------
    (str, float, str)
        Stage, value, unit. Rates count the megapixels that are kept. ``read``, ``network``, ``measure`` and ``encode``
        run on one thread; ``end to end`` runs on all workers, with assembly and verification.

    Raises
    ------
    WsiDenoiseError
        The error of a job on that slide.
    """
    with tempfile.TemporaryDirectory(prefix="wsi-denoise-bench-") as name:
        folder = Path(name)
        # The speed of a network is measured, on whatever slide.
        preset = candidates.names(loaded.settings.model.preset)[0]
        places = {"jobs.state": folder / "state", "output.folder": folder, "jobs.database": ""}
        settings = loaded.settings.with_values({**places, "model.preset": preset})
        planning = slide or demo.write(folder), "bench", settings, settings.model.preset, folder / "spool"
        region = busiest_region(plan_slide(*planning))
        work = plan_slide(*planning, region).work
        yield from _alone(Stages(work))
        with connect(settings) as cluster:
            yield from _together(cluster, work, settings, region)


def _preset(work: SlideWork) -> str:
    assert work.preset is not None  # it was named
    return work.preset


def busiest_region(plan: SlidePlan) -> tuple[int, int, int, int]:
    """Return the part of a slide with the most tissue, (x, y, width, height) at level 0."""
    row, column = busiest(plan.tissue, SIDE_BLOCKS * BLOCK_PATCHES)
    side = SIDE_BLOCKS * BLOCK_PATCHES * PATCH
    x, y = column * PATCH, row * PATCH
    return x, y, min(side, plan.work.width - x), min(side, plan.work.height - y)


def busiest(tissue: Mask, side: int) -> tuple[int, int]:
    """Return (row, column) of the square of `side` patches, clipped to the slide, with the most tissue."""
    rows, columns = (min(side, length) for length in tissue.shape)
    sums = np.zeros((tissue.shape[0] + 1, tissue.shape[1] + 1), np.int64)
    sums[1:, 1:] = tissue.cumsum(axis=0).cumsum(axis=1)
    held = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
    row, column = np.unravel_index(int(held.argmax()), held.shape)
    return int(row), int(column)


@dataclass(frozen=True)
class Timed:
    """Duration of a stage.

    Parameters
    ----------
    megapixels : float
        Kept pixels of level 0.
    clock, processor : float
        Seconds of the wall clock, and of processor time in all threads.
    """

    megapixels: float
    clock: float
    processor: float

    def results(self, stage: str) -> Iterator[Measurement]:
        """Yield rate and cost."""
        yield stage, self.megapixels / self.clock, RATE
        yield stage, self.processor / self.megapixels, COST


class Stages:
    """Run the stages of a block one by one on the blocks of a region. All patches count as tissue.

    Parameters
    ----------
    work : SlideWork
        Of a region.
    """

    def __init__(self, work: SlideWork) -> None:
        self.work = work
        self.indices = list(work.lattice.blocks())
        self._slide = reader.open_cached(work.path, max_megapixels=work.max_megapixels)
        self._denoiser = network.cached(_preset(work), work.plan, 1, sha256=work.model_sha256)
        self._padded: dict[BlockIndex, Any] = {}
        self._pairs: dict[BlockIndex, Any] = {}

    def megapixels(self, index: BlockIndex) -> float:
        """Return the megapixels of a block."""
        width, height = self.work.lattice.region(index).size
        return width * height / 1e6

    def read(self, index: BlockIndex) -> None:
        """Read a block and its halo."""
        self._padded[index] = block.read_mirrored(self._slide.read, self._cover(index).area, self.work)

    def network(self, index: BlockIndex) -> None:
        """Denoise every patch of a block that was read before."""
        self._pairs[index] = block.denoise_region(
            self._padded[index], self._cover(index), self._chosen(index), self.work.plan.batch, self._denoiser
        )

    def measure(self, index: BlockIndex) -> None:
        """Measure a block that was denoised before."""
        before, after = self._pairs[index]
        evidence.measure(before, after, self._chosen(index), origin=self.work.lattice.region(index).origin)
        structure.edges(before, after)

    def encode(self, index: BlockIndex) -> None:
        """Halve and encode a block that was denoised before. Its codec error is measured as in a job."""
        block.encode(self._pairs[index][1], self.work.encoding)

    def _cover(self, index: BlockIndex) -> Cover:
        plan = self.work.plan
        return cover(self.work.lattice.region(index), self._chosen(index), plan.sides, self.work.halo, plan.fitted)

    def _chosen(self, index: BlockIndex) -> Mask:
        rows, columns = self.work.lattice.patches(index)
        return np.ones((rows.stop - rows.start, columns.stop - columns.start), np.bool_)


def _alone(stages: Stages) -> Iterator[Measurement]:
    """Time each stage alone."""
    functions = {
        "read": stages.read,
        "network": stages.network,
        "measure": stages.measure,
        "encode": stages.encode,
    }
    for function in functions.values():
        function(stages.indices[0])
    # A stage needs the results of the one before, so it runs only on the blocks which that one had time for.
    indices = stages.indices
    for name, function in functions.items():
        clock, processor = time.perf_counter(), time.process_time()
        indices = _run_for(STAGE_SECONDS, function, indices)
        spent = time.perf_counter() - clock, time.process_time() - processor
        yield from Timed(sum(map(stages.megapixels, indices)), *spent).results(name)


def _run_for(seconds: float, function: Callable[[BlockIndex], None], indices: Sequence[BlockIndex]) -> list[BlockIndex]:
    """Run a stage on one block after the other until the time has passed; return the finished blocks."""
    end = time.perf_counter() + seconds
    done: list[BlockIndex] = []
    for index in indices:
        function(index)
        done.append(index)
        if time.perf_counter() >= end:
            break
    return done


def _together(
    cluster: Cluster, work: SlideWork, settings: Settings, region: tuple[int, int, int, int]
) -> Iterator[Measurement]:
    """Denoise the region as a job would, on warm workers."""
    cluster.client.run(warm, work)
    target = settings.output.folder / "bench.tiff"
    request = Request(
        path=work.path,
        fingerprint="bench-end-to-end",
        settings=settings,
        preset=_preset(work),
        output=Output(settings.output, lambda _facts: target),
        maps=None,
        check_source=lambda: None,
        region=region,
    )
    clock, processor = time.perf_counter(), processor_seconds()
    denoise_slide(request, cluster, NoEvents())
    timed = Timed(work.width * work.height / 1e6, time.perf_counter() - clock, processor_seconds() - processor)
    rate, cost = timed.results("end to end")
    yield rate
    if not settings.compute.scheduler:
        # The processor time of workers on other machines is unknown here.
        yield cost


def warm(work: SlideWork) -> None:
    """Open the slide, and load and compile the network, in a worker."""
    reader.open_cached(work.path, max_megapixels=work.max_megapixels)
    denoiser = worker.denoiser(_preset(work), work.plan, work.model_sha256)
    for number, patches in enumerate(work.plan.sides):
        side, fitted = patches * PATCH + 2 * work.halo, bool(number >= PREPARED and work.plan.fitted)
        denoiser.denoise(np.zeros((1 if fitted else work.plan.batch, side, side, 3), np.uint8), fitted=fitted)


def processor_seconds() -> float:
    """Return the processor time of this process and its children so far, in seconds."""
    total = 0.0
    for process in [psutil.Process(os.getpid()), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total
