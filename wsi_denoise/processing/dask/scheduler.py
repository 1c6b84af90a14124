"""The blocks of one slide on the cluster: handed out, a bounded number at a time, until each is in the spool."""

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
"""How long the number of threads is taken to be what it was: to ask takes as long as to hand out a block."""

DEATHS = 3
"""Times that a block may take its worker down while it is alone, before it is blamed."""

DRAIN_SECONDS = 8.0
"""A shutdown waits so long for blocks that run: with ending the workers it stays below twenty seconds."""


class Interrupted(Exception):
    """The daemon is shutting down: blocks in flight were finished, the job goes back to the queue."""


@dataclass(frozen=True)
class Progress:
    """How far a slide is.

    Parameters
    ----------
    done, total, resumed : int
        Blocks finished (resumed ones included), of how many, and found in the spool.
    rate : float or None
        Megapixels of level 0 per second in this attempt.
    seconds_left : float or None
        Estimate, by patches that go through the network.
    """

    done: int
    total: int
    resumed: int
    rate: float | None = None
    seconds_left: float | None = None


def hand_out(cluster: Cluster, plan: SlidePlan, group: Group, *, priority: int = 0) -> Any:
    """Return the task of a group of blocks; it gives a report of each, and its file with it where files travel."""
    parts = [(block, plan.tissue[plan.work.lattice.patches(block)]) for block in group]
    task = remote.blocks if cluster.home is None else remote.sent_blocks
    return cluster.call(task, plan.work, parts, priority=priority)


@dataclass
class Blocks:
    """The blocks of one slide on the cluster.

    Parameters
    ----------
    plan : SlidePlan
    cluster : Cluster
    in_flight : int
        Blocks handed out at a time; 0 is three per thread.
    on_progress, keep_going : callable
        As in :func:`denoise_slide`.
    watch : Watch
        Notices when no block finishes any more.
    on_tail, on_suspect : callable
        Called once when no block is left to hand out, and when one is suspected of killing its worker.
    begun : dict of future to tuple of BlockIndex
        Blocks of this slide that were handed out before its turn came.
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
        # What was done before the clock started says nothing about the rate.
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
        """Have a block done again.

        Raises
        ------
        OutputUnwritable
            When what is there of it cannot be removed.
        """
        with disk.translate_write_errors(self.spool.folder):
            self.spool.discard(block)
        if block in self.done:
            self.done.remove(block)
            self._undone += self._cost[block]
        self.resumed = min(self.resumed, len(self.done))

    def run(self) -> None:
        """Do every block that is not in the spool.

        Raises
        ------
        BlockKillsWorker
            When a block takes its worker down three times while it is alone.
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
            # Of a bad slide too: a block that still runs would put its file where the slide's spool was removed.
            self._drain(pending)
            raise
        finally:
            self.cluster.drop(pending)

    def _threads(self) -> int:
        """Return how many tasks run at a time; workers come and go."""
        now = time.monotonic()
        if not self._slots or now - self._asked > SLOTS_SECONDS:
            self._slots, self._asked = self.cluster.slots(), now
        return self._slots

    def _pace(self) -> float | None:
        """Return the seconds that a thread takes for a block of cost 1."""
        return sum(self.seconds.values()) / self._measured if self._measured else None

    def _submit(self, group: Group, pending: dict[Any, Group]) -> None:
        pending[hand_out(self.cluster, self.plan, group)] = group

    def _collect(self, pending: dict[Any, Group], todo: Backlog, suspects: deque[BlockIndex]) -> None:
        """Take in what has finished; what was held by a lost worker becomes suspect, what was lost is done again."""
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
        """Return the reports of blocks, and write the files that have travelled with them.

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
        """Have a block done alone: a worker that dies takes innocent blocks with it."""
        self.on_suspect()
        if alone:
            self._deaths[block] = self._deaths.get(block, 0) + 1
        _log.warning("a worker was lost with block %s (%s)", block, type(error).__name__)
        if self._deaths.get(block, 0) >= DEATHS:
            x, y = self.plan.work.lattice.region(block).origin
            raise BlockKillsWorker(f"block {block}, at x {x}, y {y}")
        suspects.append(block)

    def _drain(self, pending: dict[Any, Group]) -> None:
        """Let the blocks that run finish, within a bound; waiting ones are dropped."""
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
                with suppress(StillOut, WsiDenoiseError):  # it is done again
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
