"""Wait for tasks without hanging: detect, report and resubmit tasks that no worker runs.

Whether a task has finished is read from its future, without a request. When nothing finishes for a while, the scheduler
and the workers are asked what they do (inspection.py). :func:`diagnose` interprets the answers.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

from distributed import KilledWorker

from wsi_denoise.errors import NoWorkers, SchedulerUnreachable, WorkerLost
from wsi_denoise.processing.dask.cluster import ANSWER_SECONDS, Cluster
from wsi_denoise.processing.dask.inspection import Seen, ask, restart
from wsi_denoise.processing.events import NoEvents, WaitEvents
from wsi_denoise.settings import LimitSettings

_log = logging.getLogger(__name__)

CHECK_SECONDS = 20.0
"""Time without a finished task before the cluster is asked what it does, and interval of further checks."""

SILENT_CHECKS = 3
"""A scheduler counts as lost after this many consecutive checks without an answer."""

IDLE_CHECKS = 2
"""A task counts as lost, and is resubmitted, after this many consecutive checks with idle workers."""

RESUBMISSIONS = 3
"""Times that lost tasks are resubmitted without a finished task in between."""

_POLL_SECONDS = 0.5
_FIRST_STEP, _STEP_SECONDS = 0.002, 0.05
"""First and longest interval between polls of the futures: a small slide has four tasks of a tenth of a second."""


@dataclass(frozen=True)
class Finding:
    """The meaning of a check.

    Parameters
    ----------
    kind : str
        ``busy``: workers run tasks, or do not answer. ``silent``: the scheduler does not answer. ``no_workers``.
        ``paused``: no worker accepts tasks. ``idle``: workers accept tasks and run none.
    text : str
        For the log.
    """

    kind: str
    text: str


def diagnose(seen: Seen, tasks: Collection[str]) -> Finding:
    """Interpret a check of the cluster for these tasks, none of which has finished."""
    if not seen.answered:
        return Finding("silent", "the scheduler does not answer")
    if not seen.workers:
        return Finding("no_workers", "the cluster has no worker")
    working = _working(seen, tasks)
    if working:
        return Finding("busy", working)
    statuses = sorted(set(seen.workers.values()))
    if "running" not in statuses:
        return Finding("paused", f"no worker takes tasks: all are {', '.join(statuses)}")
    placed = sum(task in seen.placed for task in tasks)
    there = f"{len(seen.workers)} workers ({', '.join(statuses)})"
    return Finding("idle", f"{there} are idle; {placed} of {len(tasks)} tasks are placed")


def _working(seen: Seen, tasks: Collection[str]) -> str:
    """Describe what the workers do; empty when they are idle."""
    places = sorted({place for task, place in seen.executing.items() if task in tasks})
    if places:
        return "at " + "; at ".join(places)
    if seen.silent:
        return f"{len(seen.silent)} of {len(seen.workers)} workers do not answer"
    return "the workers are at other tasks" if seen.executing else ""


def own_threads() -> str:
    """Return where each thread of this process is, in one line, for the log of a stuck scheduler."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    places = []
    for number, frame in sys._current_frames().items():  # noqa: SLF001 - there is no other way to ask
        code = frame.f_code
        places.append(f"{names.get(number, number)} at {code.co_filename}:{frame.f_lineno} {code.co_name}")
    return "; ".join(places)


class Watch:
    """Wait for the tasks of one slide, and report why they wait.

    Parameters
    ----------
    events : WaitEvents
        Gets a sentence about why the slide waits, which is also logged.
    clock : callable
        Seconds on a monotonic clock.
    ask : callable
        Returns the state of the cluster.
    """

    def __init__(
        self,
        cluster: Cluster,
        limits: LimitSettings,
        events: WaitEvents | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        ask: Callable[[Cluster], Seen] = ask,
    ) -> None:
        self.cluster, self.events = cluster, events or NoEvents()
        self._limits, self._clock, self._ask = limits, clock, ask
        self._started: dict[str, float] = {}
        self.moved()

    def moved(self) -> None:
        """Note that a task has finished, or that first tasks were submitted."""
        self._moved = self._checked = self._served = self._clock()
        self._silent = self._idle = self._resubmitted = 0
        self._reported = ""

    def wait(self, futures: Collection[Any], seconds: float = _POLL_SECONDS) -> list[Any]:
        """Return the futures that are done. Wait at most `seconds` for one."""
        end = time.monotonic() + seconds
        step = _FIRST_STEP
        while True:
            done = [future for future in futures if future.done()]
            if done or time.monotonic() >= end:
                return done
            time.sleep(step)
            step = min(1.5 * step, _STEP_SECONDS)

    def check(self, futures: Collection[Any]) -> list[Any]:
        """Check tasks of which none has finished, if a check is due; return the lost ones for resubmission.

        Raises
        ------
        SchedulerUnreachable, NoWorkers, WorkerLost
            When further waiting has no effect. The job is retried later.
        """
        now = self._clock()
        if not futures or now - self._checked < CHECK_SECONDS:
            return []
        tasks = {str(future.key) for future in futures}
        seen = self._ask(self.cluster)
        # Only after the answer, which may take long: the next check must see a new state.
        self._checked = self._clock()
        finding = diagnose(seen, tasks)
        self._silent = self._silent + 1 if finding.kind == "silent" else 0
        self._idle = self._idle + 1 if finding.kind == "idle" else 0
        self._report(finding, now)
        self._check_scheduler()
        self._check_workers(finding, now)
        self._end_late(seen, tasks, now)
        return list(futures) if self._is_lost(len(tasks)) else []

    def _report(self, finding: Finding, now: float) -> None:
        text = f"nothing finished for {now - self._moved:.0f} s: {finding.text}"
        if finding.kind == "busy" or 0 < self._idle < IDLE_CHECKS:
            # Slow tasks are normal, and one idle check may fall between two tasks. Only a real wait is reported.
            _log.info("%s", text)
        elif finding.text != self._reported:
            _log.warning("%s", text)
            self._reported = finding.text
            self.events.waiting(text)

    def _check_scheduler(self) -> None:
        if self._silent:
            _log.warning("threads: %s", own_threads())
        if self._silent >= SILENT_CHECKS:
            raise SchedulerUnreachable("it does not answer")

    def _check_workers(self, finding: Finding, now: float) -> None:
        if finding.kind not in {"no_workers", "paused"}:
            self._served = now
        elif now - self._served >= self._limits.no_worker_seconds:
            raise NoWorkers(f"for {now - self._served:.0f} s {finding.text}")

    def _is_lost(self, tasks: int) -> bool:
        """Return whether workers were idle for so many checks that these tasks count as lost."""
        if self._idle < IDLE_CHECKS:
            return False
        self._idle = 0
        self._resubmitted += 1
        if self._resubmitted > RESUBMISSIONS:
            raise WorkerLost(f"tasks were submitted {RESUBMISSIONS} times and no worker did them")
        _log.warning("%d tasks that no worker runs are resubmitted", tasks)
        return True

    def _end_late(self, seen: Seen, tasks: Collection[str], now: float) -> None:
        """End the workers that run one task for too long. The caller that waits for it gets a KilledWorker."""
        self._started = {task: self._started.get(task, now) for task in tasks if seen.runs(task)}
        late = [task for task, start in self._started.items() if now - start >= self._limits.task_seconds]
        addresses = sorted({seen.placed[task] for task in late if task in seen.placed})
        if not addresses:
            return
        for task in late:
            _log.warning("a task has run for %.0f s, at %s", now - self._started[task], seen.executing.get(task, "?"))
        self._started = {}
        _log.warning("%d workers are ended: limits.task_seconds is %g", len(addresses), self._limits.task_seconds)
        self.events.waiting("a worker was at one task for too long and is ended")
        restart(self.cluster, addresses)


def result(future: Any, seconds: float = ANSWER_SECONDS) -> Any:
    """Return the value of a finished task, or raise its error.

    Raises
    ------
    StillOut
        When the value does not arrive: its worker is lost, and the task may run again.
    SchedulerUnreachable
        When the scheduler was lost, which cancels its tasks, or is lost while the value is sent.
    KilledWorker
    """
    try:
        # An error is here already; only a value must be fetched from its worker.
        return future.result(timeout=None if future.status == "error" else seconds)
    except TimeoutError:
        if future.status == "error":
            raise
        raise StillOut from None
    except (OSError, AttributeError) as error:  # AttributeError: Dask has closed the client
        if future.status == "error":
            raise
        raise SchedulerUnreachable(str(error)) from error
    except CancelledError as error:
        raise SchedulerUnreachable("it dropped what it was given") from error


class StillOut(Exception):
    """The value of a finished task is not available at the moment."""


def run(watch: Watch, function: Callable[..., Any], *args: Any, begun: Any = None) -> Any:
    """Run one task on the cluster of `watch`, and return its value or raise its error.

    `begun` is the same task, submitted ahead.

    Raises
    ------
    WorkerLost
        When its worker died.
    SchedulerUnreachable
    """
    cluster = watch.cluster
    future = cluster.call(function, *args) if begun is None else begun
    watch.moved()
    try:
        while True:
            watch.events.check()
            if watch.wait([future]):
                try:
                    return result(future)
                except StillOut:
                    pass
                except KilledWorker as error:
                    raise WorkerLost(str(error).partition("\n")[0]) from error
            if watch.check([future]):
                cluster.drop([future])
                future = cluster.call(function, *args)
    finally:
        watch.moved()
        cluster.drop([future])
