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

from wsi_denoise.processing.dask import inspection, remote, stall
from wsi_denoise.processing.dask.batching import Group, TaskBatcher, costs
from wsi_denoise.processing.dask.cluster import Cluster
from wsi_denoise.processing.values import SlidePlan, SlideWork

_log = logging.getLogger(__name__)

BLOCKS_PER_THREAD = 2
"""Tasks started ahead per thread: the work of one thread while another assembles and verifies a slide."""

_FAILED = {"error", "cancelled", "lost"}

_BEHIND = -1
"""Priority below the waiting tasks of the current slide."""


class Prefetch:
    """Start at most one slide ahead."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        # A thread of Dask receives the plan and submits the blocks.
        self._lock = threading.Lock()
        self._wanted: tuple[Any, ...] | None = None
        self._plan: Any = None
        self._work: SlideWork | None = None
        self._blocks: dict[Any, Group] = {}
        self._checked = 0.0
        self._at_work: set[str] = set()
        self._hung: tuple[Any, ...] | None = None

    def start(self, *wanted: Any) -> None:
        """Submit the planning of a slide with the arguments of :func:`wsi_denoise.processing.plan.plan_slide`."""
        if wanted in (self._wanted, self._hung):
            return
        self.drop()
        slots = self._cluster.slots()
        with self._lock:
            future = self._plan = self._cluster.call(remote.plan_slide, *wanted, priority=_BEHIND)
            self._wanted, self._checked = wanted, time.monotonic()
        future.add_done_callback(lambda future: self._submit_blocks(future, slots))

    def _submit_blocks(self, future: Any, slots: int) -> None:
        """Submit the first blocks when the plan is done, unless the plan was taken or dropped."""
        if future.status != "finished":
            return
        try:
            plan: SlidePlan = stall.result(future)
            with self._lock:
                if self._plan is not future:
                    return
                self._work = plan.work
                with suppress(OSError):  # the blocks report it
                    plan.work.spool.parent.mkdir(parents=True, exist_ok=True)  # workers do not make it
                waiting = TaskBatcher(costs(plan), plan.work.lattice.column_order(slots))
                while waiting and len(self._blocks) < BLOCKS_PER_THREAD * slots:
                    group = waiting.take(slots)
                    self._blocks[remote.submit(self._cluster, plan, group, priority=_BEHIND)] = group
        except Exception as error:  # noqa: BLE001 - the main thread reports a cluster that is lost
            _log.info("blocks ahead: %s", error)

    def end_hung(self, seconds: float) -> bool:
        """End a worker that runs a task of the next slide for longer than `seconds`: the current slide waits for it.

        Returns
        -------
        bool
            Whether a worker was ended, together with its other tasks. That slide is not started ahead again.
        """
        with self._lock:
            futures = [future for future in self._futures() if not future.done()]
        if not futures or time.monotonic() - self._checked < seconds:
            return False
        # The start of a task is unknown. One that already ran at the previous check has run for too long.
        working = inspection.at_work(self._cluster, futures)
        late = working.keys() & self._at_work
        self._at_work, self._checked = set(working), time.monotonic()
        if not late:
            return False
        _log.warning("a worker was too long at the next slide, and is ended")
        inspection.restart(self._cluster, sorted({working[task] for task in late}))
        self._hung = self._wanted
        self.drop()
        return True

    def take_plan(self, *wanted: Any) -> Any:
        """Return the task that plans exactly this slide, running or done, or None. The caller owns it then."""
        if wanted != self._wanted or self._plan.status in _FAILED:
            self.drop()
            return None
        with self._lock:
            future, self._plan, self._wanted = self._plan, None, None
        return future

    def take_blocks(self, work: SlideWork) -> dict[Any, Group]:
        """Return the tasks of blocks of exactly this slide, running or done. The caller owns them then.

        Failed tasks are omitted: the cause may have passed.
        """
        if work != self._work:
            self.drop()
        with self._lock:
            blocks, self._blocks, self._work = self._blocks, {}, None
        failed = [future for future in blocks if future.status in _FAILED]
        self._cluster.drop(failed)
        return {future: group for future, group in blocks.items() if future not in failed}

    def drop(self) -> None:
        """Drop all tasks: while a block is suspected of killing its worker, nothing else may run."""
        with self._lock:
            dropped = self._futures()
            self._plan = self._wanted = self._work = None
            self._blocks = {}
        self._cluster.drop(dropped)

    def _futures(self) -> list[Any]:
        return [future for future in (self._plan, *self._blocks) if future is not None]
