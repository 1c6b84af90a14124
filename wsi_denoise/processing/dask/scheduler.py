"""Run the blocks of one slide on the cluster, a bounded number at a time, until each is in the spool."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

from distributed import KilledWorker

from wsi_denoise.errors import BlockKillsWorker, SlideError, WsiDenoiseError
from wsi_denoise.processing.dask import remote, stall
from wsi_denoise.processing.dask.batching import Group, costs
from wsi_denoise.processing.dask.block_queue import BlockQueue
from wsi_denoise.processing.dask.cluster import Cluster
from wsi_denoise.processing.dask.prefetch import Prefetch
from wsi_denoise.processing.dask.progress import ProgressMeter
from wsi_denoise.processing.dask.stall import StillOut, Watch
from wsi_denoise.processing.events import Interrupted, SlideEvents
from wsi_denoise.processing.spool import Spool
from wsi_denoise.processing.values import BlockReport, SlidePlan
from wsi_denoise.slide.geometry import BlockIndex
from wsi_denoise.system import disk

_log = logging.getLogger(__name__)

SLOTS_SECONDS = 2.0
"""The number of threads is asked for only this often: asking takes as long as submitting a block."""

DRAIN_SECONDS = 8.0
"""Limit of the wait for running blocks at a shutdown. Together with ending the workers it stays below 20 s."""


@dataclass
class Blocks:
    """Run the blocks of one slide on the cluster.

    Parameters
    ----------
    watch : Watch
        Detects when no block finishes.
    prefetch : Prefetch or None
        May have submitted the first blocks of this slide already.

    Raises
    ------
    OutputUnwritable
        When the spool cannot be read.
    """

    plan: SlidePlan
    cluster: Cluster
    events: SlideEvents
    watch: Watch
    prefetch: Prefetch | None = None

    def __post_init__(self) -> None:
        work = self.plan.work
        self._spool = Spool(work.spool)
        self._slots, self._slots_asked = self.cluster.slots(), time.monotonic()
        self._tasks: dict[Any, Group] = {} if self.prefetch is None else self.prefetch.take_blocks(work)
        begun = set(chain.from_iterable(self._tasks.values()))
        finished = set(self._finished()) - begun
        cost = costs(self.plan)
        self._queue = BlockQueue(cost, work.lattice.column_order(self._slots), finished)
        for group in self._tasks.values():
            self._queue.adopt(group)
        ready = {block for future, group in self._tasks.items() if future.done() for block in group}
        self._meter = ProgressMeter(cost, self._queue.done, ready)
        self._announced = False
        if self._queue.done:
            _log.info("%d of %d blocks are in the spool already", self._queue.done, len(self._queue))

    def _finished(self) -> Iterator[BlockIndex]:
        with disk.translate_write_errors(self._spool.folder):
            for block in self._spool.finished():
                self.events.check()
                yield block

    @property
    def seconds(self) -> dict[str, float]:
        """Wall-clock time per stage, summed over blocks."""
        return self._meter.seconds

    def forget_damaged(self, lost: BlockIndex) -> None:
        """Remove the files of this block and of all damaged blocks, so that they are processed again.

        Raises
        ------
        OutputUnwritable
            When a file cannot be removed.
        """
        with disk.translate_write_errors(self._spool.folder):
            for block in self.plan.work.lattice.blocks():
                if block == lost or not self._spool.is_sound(block):
                    self._spool.discard(block)
                    self._queue.forget(block)
        self._meter.resumed = min(self._meter.resumed, self._queue.done)

    def run(self) -> None:
        """Process every block that is not in the spool.

        Raises
        ------
        BlockKillsWorker
            When a block ends its worker three times while it runs alone.
        """
        self.events.progressed(self._meter.progress(self._queue))
        self.watch.moved()
        try:
            while not self._queue.is_finished:
                self.events.check()
                self._submit()
                self._announce()
                if not self._collect():
                    self._resubmit_lost()
            self._announce()
        except (Interrupted, SlideError):
            # Also for a bad slide: a running block would write its file after the slide's spool was removed.
            self._drain()
            raise
        finally:
            self.cluster.drop(self._tasks)
            self._tasks = {}

    def _submit(self) -> None:
        """Submit as many tasks as may be in flight."""
        while group := self._queue.take(self._threads(), self._meter.pace):
            self._tasks[remote.submit(self.cluster, self.plan, group)] = group

    def _announce(self) -> None:
        """Report once that every block is submitted; again after blocks that had to run alone."""
        if self._queue.is_submitted and not self._announced:
            self.events.submitted()
        self._announced = self._queue.is_submitted

    def _threads(self) -> int:
        """Return how many tasks run at a time. Workers come and go."""
        now = time.monotonic()
        if now - self._slots_asked > SLOTS_SECONDS:
            self._slots, self._slots_asked = self.cluster.slots(), now
        return self._slots

    def _collect(self) -> bool:
        """Wait for finished tasks, and return whether there were any."""
        collected = False
        for future in self.watch.wait(self._tasks):
            try:
                reports = self._received(stall.result(future))
            except StillOut:
                continue
            except KilledWorker as error:
                self._suspect(self._tasks.pop(future), error)
            else:
                self._queue.finish(self._tasks.pop(future))
                self._meter.count(reports)
                future.release()
            collected = True
        if collected:
            self.watch.moved()
            self.events.progressed(self._meter.progress(self._queue))
        return collected

    def _resubmit_lost(self) -> None:
        lost = self.watch.check(self._tasks)
        self.cluster.drop(lost)
        for future in lost:
            self._queue.lose(self._tasks.pop(future))

    def _suspect(self, group: Group, error: KilledWorker) -> None:
        """Schedule the blocks of a killed worker to run alone."""
        _log.warning("a worker was lost with blocks %s (%s)", ", ".join(map(str, group)), type(error).__name__)
        if self.prefetch is not None:
            self.prefetch.drop()  # nothing else runs during a trial
        guilty = self._queue.kill(group)
        if guilty is not None:
            x, y = self.plan.work.lattice.region(guilty).origin
            raise BlockKillsWorker(f"block {guilty}, at x {x}, y {y}")

    def _received(self, results: Iterable[BlockReport | tuple[BlockReport, bytes]]) -> list[BlockReport]:
        """Return the reports of blocks, and write the files that were sent with them.

        Raises
        ------
        DiskFull, OutputUnwritable
        """
        reports = []
        for result in results:
            if isinstance(result, BlockReport):
                reports.append(result)
                continue
            report, data = result
            with disk.translate_write_errors(self._spool.folder):
                self._spool.receive(report.block, data)
            reports.append(report)
        return reports

    def _drain(self) -> None:
        """Wait for running tasks, at most `DRAIN_SECONDS`, and drop waiting ones."""
        unfinished = [future for future in self._tasks if not future.done()]
        slots = self.cluster.slots()
        self.cluster.drop(unfinished[slots:])
        running = unfinished[:slots]
        end = time.monotonic() + DRAIN_SECONDS
        while running and time.monotonic() < end:
            self.watch.wait(running)
            running = [future for future in running if not future.done()]
        if running:
            _log.warning("%d tasks in flight did not finish in time: they will be done again", len(running))
        if self.cluster.home is not None:
            self._keep_sent()

    def _keep_sent(self) -> None:
        """Write the files of blocks that were sent but not collected."""
        for future in self._tasks:
            if future.status == "finished":
                with suppress(StillOut, WsiDenoiseError):  # the block is processed again
                    self._received(stall.result(future))
