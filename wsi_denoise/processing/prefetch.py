"""Start the next slide while the current one is finished: its plan, then its first blocks.

Workers become idle while the last blocks of a slide run, and while it is assembled and verified. The next slide is a
guess. Tasks of another slide are dropped. A task that fails runs again, and is reported, when the slide's turn comes.
Finished blocks stay in the spool in any case.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import Any

from wsi_denoise.processing.dask import remote, stall
from wsi_denoise.processing.dask.batching import Backlog, Group, costs
from wsi_denoise.processing.dask.cluster import Cluster
from wsi_denoise.processing.dask.scheduler import hand_out
from wsi_denoise.processing.values import SlidePlan, SlideWork

_log = logging.getLogger(__name__)

BLOCKS_PER_THREAD = 2
"""Blocks started ahead per thread: the work of one thread while another assembles and verifies a slide."""

_FAILED = {"error", "cancelled", "lost"}

_BEHIND = -1
"""Priority below the waiting tasks of the current slide."""


class Ahead:
    """Start at most one slide ahead."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        # A thread of Dask receives the plan and submits the blocks.
        self._lock = threading.Lock()
        self._wanted: tuple[Any, ...] | None = None
        self._future: Any = None
        self._work: SlideWork | None = None
        self._blocks: dict[Any, Group] = {}
        self._looked = 0.0
        self._at_work: set[str] = set()
        self._hung: tuple[Any, ...] | None = None

    def begin(self, *wanted: Any) -> None:
        """Submit the planning of a slide with the arguments of :func:`wsi_denoise.processing.dask.tasks.plan_slide`."""
        if wanted in (self._wanted, self._hung):
            return
        self.drop()
        slots = self._cluster.slots()
        with self._lock:
            future = self._future = self._cluster.call(remote.plan_slide, *wanted, priority=_BEHIND)
            self._wanted, self._looked = wanted, time.monotonic()
        future.add_done_callback(lambda future: self._hand_out(future, slots))

    def _hand_out(self, future: Any, slots: int) -> None:
        """Submit the first blocks when the plan is done, unless the plan was taken or dropped."""
        try:
            if future.status != "finished":
                return
            planned: SlidePlan = stall.result(future)
            with self._lock:
                if self._future is not future:
                    return
                self._work = planned.work
                with suppress(OSError):  # the blocks report it
                    planned.work.spool.parent.mkdir(parents=True, exist_ok=True)  # workers do not make it
                todo = Backlog(costs(planned), planned.work.lattice.lanes(slots))
                while todo and len(self._blocks) < BLOCKS_PER_THREAD * slots:
                    group = todo.take(slots)
                    self._blocks[hand_out(self._cluster, planned, group, priority=_BEHIND)] = group
        except Exception as error:  # noqa: BLE001 - the main thread reports a cluster that is lost
            _log.info("blocks ahead: %s", error)

    def check(self, seconds: float) -> bool:
        """End a worker that runs a task of the next slide for longer than `seconds`: the current slide waits for it.

        Returns
        -------
        bool
            Whether a worker was ended, together with its other tasks. That slide is not started ahead again.
        """
        with self._lock:
            futures = [future for future in (self._future, *self._blocks) if future is not None and not future.done()]
        if not futures or time.monotonic() - self._looked < seconds:
            return False
        # The start of a task is unknown. One that already ran at the previous check has run for too long.
        working = stall.at_work(self._cluster, futures)
        late = working.keys() & self._at_work
        self._at_work, self._looked = set(working), time.monotonic()
        if not late:
            return False
        _log.warning("a worker was too long at the next slide, and is ended")
        stall.restart(self._cluster, sorted({working[task] for task in late}))
        self._hung = self._wanted
        self.drop()
        return True

    def take(self, *wanted: Any) -> Any:
        """Return the task that plans exactly this slide, running or done, or None. The caller owns it then."""
        if wanted != self._wanted or self._future.status in _FAILED:
            self.drop()
            return None
        with self._lock:
            future, self._future, self._wanted = self._future, None, None
        return future

    def blocks(self, work: SlideWork) -> dict[Any, Group]:
        """Return the tasks of blocks of exactly this slide, running or done. The caller owns them then.

        Failed tasks are omitted: the cause may have passed.
        """
        if work != self._work:
            self.drop()
        with self._lock:
            blocks, self._blocks, self._work = self._blocks, {}, None
        self._cluster.drop([future for future in blocks if future.status in _FAILED])
        return {future: group for future, group in blocks.items() if future.status not in _FAILED}

    def drop(self) -> None:
        """Drop all tasks: while a block is suspected of killing its worker, nothing else may run."""
        with self._lock:
            dropped = [future for future in (self._future, *self._blocks) if future is not None]
            self._future = self._wanted = self._work = None
            self._blocks = {}
        self._cluster.drop(dropped)
