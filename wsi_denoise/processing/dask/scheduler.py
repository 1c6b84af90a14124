"""Run the blocks of one slide on the cluster, a bounded number at a time, until each is in the spool."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from distributed import KilledWorker

from wsi_denoise.errors import BlockKillsWorker, SlideError, WsiDenoiseError
from wsi_denoise.processing.dask import remote, stall
from wsi_denoise.processing.dask.batching import Backlog, Group, costs
from wsi_denoise.processing.dask.cluster import Cluster
from wsi_denoise.processing.dask.stall import StillOut, Watch
from wsi_denoise.processing.spool import Spool
from wsi_denoise.processing.values import BlockReport, SlidePlan
from wsi_denoise.slide.geometry import BlockIndex
from wsi_denoise.system import disk

_log = logging.getLogger(__name__)

BLOCKS_PER_THREAD = 3
SLOTS_SECONDS = 2.0
"""The number of threads is asked for only this often: asking takes as long as submitting a block."""

DEATHS = 3
"""Times that a block may end its worker while it runs alone, before it is blamed."""

DRAIN_SECONDS = 8.0
"""Limit of the wait for running blocks at a shutdown. Together with ending the workers it stays below 20 s."""


class Interrupted(Exception):
    """The daemon stops this job. Blocks in flight may finish, and the job is queued again."""


@dataclass(frozen=True)
class Progress:
    """Progress of a slide.

    Parameters
    ----------
    done, total, resumed : int
        Blocks: finished ones with the resumed ones, all, and those found in the spool.
    rate : float or None
        Megapixels of level 0 per second in this attempt.
    seconds_left : float or None
        Estimate, by the cost of the remaining blocks.
    """

    done: int
    total: int
    resumed: int
    rate: float | None = None
    seconds_left: float | None = None


def hand_out(cluster: Cluster, plan: SlidePlan, group: Group, *, priority: int = 0) -> Any:
    """Submit a group of blocks. The task returns a report of each, with its file if `cluster` has a home."""
    parts = [(block, plan.tissue[plan.work.lattice.patches(block)]) for block in group]
    task = remote.blocks if cluster.home is None else remote.sent_blocks
    return cluster.call(task, plan.work, parts, priority=priority)


@dataclass
class Blocks:
    """Run the blocks of one slide on the cluster.

    Parameters
    ----------
    in_flight : int
        Tasks in flight; 0 is three per thread.
    on_progress, keep_going : callable
        As in :func:`wsi_denoise.processing.slide.denoise_slide`.
    watch : Watch
        Detects when no block finishes.
    on_tail, on_suspect : callable
        Called when no block is left to submit, and when a block is suspected of killing its worker.
    begun : dict of future to tuple of BlockIndex
        Blocks of this slide that were submitted ahead.
    """

    plan: SlidePlan
    cluster: Cluster
    in_flight: int
    on_progress: Callable[[Progress], None]
    keep_going: Callable[[], None]
    watch: Watch
    on_tail: Callable[[], None] = lambda: None
    on_suspect: Callable[[], None] = lambda: None
    begun: dict[Any, Group] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    done: set[BlockIndex] = field(default_factory=set)
    resumed: int = 0

    def __post_init__(self) -> None:
        self.spool = Spool(self.plan.work.spool)
        self._all = list(self.plan.work.lattice.blocks())
        with disk.translate_write_errors(self.spool.folder):
            finished = self.spool.finished(self.keep_going)
        self.done = finished & set(self._all) - set(chain.from_iterable(self.begun.values()))
        # Blocks finished before the clock started do not count for the rate.
        self._uncounted = {block for future, group in self.begun.items() if future.done() for block in group}
        self.resumed = len(self.done)
        self._begun = time.perf_counter()
        self._pixels = 0
        self._deaths: dict[BlockIndex, int] = {}
        self._cost = costs(self.plan)
        self._undone = sum(cost for block, cost in self._cost.items() if block not in self.done)
        self._spent = self._measured = 0.0
        self._slots, self._asked = 0, 0.0
        if self.resumed:
            _log.info("%d of %d blocks are in the spool already", self.resumed, len(self._all))

    def forget(self, block: BlockIndex) -> None:
        """Remove a block's file, so that the block is processed again.

        Raises
        ------
        OutputUnwritable
            When the file cannot be removed.
        """
        with disk.translate_write_errors(self.spool.folder):
            self.spool.discard(block)
        if block in self.done:
            self.done.remove(block)
            self._undone += self._cost[block]
        self.resumed = min(self.resumed, len(self.done))

    def run(self) -> None:
        """Process every block that is not in the spool.

        Raises
        ------
        BlockKillsWorker
            When a block ends its worker three times while it runs alone.
        """
        order = self.plan.work.lattice.lanes(self._threads())
        pending, self.begun = self.begun, {}
        handed_out = self.done.union(*pending.values())
        todo = Backlog(self._cost, (block for block in order if block not in handed_out))
        suspects: deque[BlockIndex] = deque()
        self._report()
        self.watch.moved()
        told = False
        try:
            while todo or suspects or pending:
                self.keep_going()
                if suspects and not pending:
                    self._submit((suspects.popleft(),), pending)
                elif not suspects:
                    slots = self._threads()
                    room = self.in_flight or BLOCKS_PER_THREAD * slots
                    while todo and len(pending) < room:
                        self._submit(todo.take(slots, self._pace()), pending)
                if not (todo or suspects or told):
                    told = True
                    self.on_tail()
                self._collect(pending, todo, suspects)
        except (Interrupted, SlideError):
            # Also for a bad slide: a running block would write its file after the slide's spool was removed.
            self._drain(pending)
            raise
        finally:
            self.cluster.drop(pending)

    def _threads(self) -> int:
        """Return how many tasks run at a time. Workers come and go."""
        now = time.monotonic()
        if not self._slots or now - self._asked > SLOTS_SECONDS:
            self._slots, self._asked = self.cluster.slots(), now
        return self._slots

    def _pace(self) -> float | None:
        """Return the seconds of one thread for a cost of 1; None while it is unknown."""
        return sum(self.seconds.values()) / self._measured if self._measured else None

    def _submit(self, group: Group, pending: dict[Any, Group]) -> None:
        pending[hand_out(self.cluster, self.plan, group)] = group

    def _collect(self, pending: dict[Any, Group], todo: Backlog, suspects: deque[BlockIndex]) -> None:
        """Collect finished tasks. The blocks of a killed worker become suspects; lost tasks are put back."""
        finished = self.watch.wait(pending)
        alone = len(pending) == 1
        moved = False
        for future in finished:
            group = pending[future]
            try:
                reports = self._received(stall.result(future))
            except StillOut:
                continue
            except KilledWorker as error:
                del pending[future]
                for block in group:
                    self._suspect(block, suspects, alone=alone and len(group) == 1, error=error)
                moved = True
                continue
            del pending[future]
            for report in reports:
                self._count(report)
            future.release()
            moved = True
        if moved:
            self.watch.moved()
            self._report()
            return
        lost = self.watch.look(pending)
        self.cluster.drop(lost)
        for future in lost:
            todo.put_back(pending.pop(future))

    def _count(self, report: BlockReport) -> None:
        self.done.add(report.block)
        if report.block not in self._uncounted:
            self._pixels += report.pixels
            self._spent += self._cost[report.block]
        self._undone -= self._cost[report.block]
        if report.seconds:
            self._measured += self._cost[report.block]
        for stage, seconds in report.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def _received(self, given: Iterable[BlockReport | tuple[BlockReport, bytes]]) -> list[BlockReport]:
        """Return the reports of blocks, and write the files that were sent with them.

        Raises
        ------
        DiskFull, OutputUnwritable
        """
        reports = []
        for one in given:
            if isinstance(one, BlockReport):
                reports.append(one)
                continue
            report, data = one
            with disk.translate_write_errors(self.spool.folder):
                self.spool.receive(report.block, data)
            reports.append(report)
        return reports

    def _suspect(self, block: BlockIndex, suspects: deque[BlockIndex], *, alone: bool, error: Exception) -> None:
        """Schedule a block to run alone: a worker that dies takes innocent blocks with it."""
        self.on_suspect()
        if alone:
            self._deaths[block] = self._deaths.get(block, 0) + 1
        _log.warning("a worker was lost with block %s (%s)", block, type(error).__name__)
        if self._deaths.get(block, 0) >= DEATHS:
            x, y = self.plan.work.lattice.region(block).origin
            raise BlockKillsWorker(f"block {block}, at x {x}, y {y}")
        suspects.append(block)

    def _drain(self, pending: dict[Any, Group]) -> None:
        """Wait for running blocks, at most `DRAIN_SECONDS`, and drop waiting ones."""
        running = [future for future in pending if not future.done()]
        slots = self.cluster.slots()
        self.cluster.drop(running[slots:])
        end = time.monotonic() + DRAIN_SECONDS
        left = running[:slots]
        while left and time.monotonic() < end:
            self.watch.wait(left)
            left = [future for future in left if not future.done()]
        for future in pending if self.cluster.home is not None else ():
            if future.status == "finished":
                with suppress(StillOut, WsiDenoiseError):  # the block is processed again
                    self._received(stall.result(future))
        if left:
            _log.warning("%d tasks in flight did not finish in time: they will be done again", len(left))

    def _report(self) -> None:
        elapsed = time.perf_counter() - self._begun
        rate = self._pixels / elapsed / 1e6 if self._pixels else None
        left = None
        if self._spent:
            left = self._undone / self._spent * elapsed
        self.on_progress(Progress(len(self.done), len(self._all), self.resumed, rate, left))
