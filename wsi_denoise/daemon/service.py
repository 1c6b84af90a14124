"""Run the daemon: watch the inboxes, claim jobs, run them.

Three threads: intake adds files in the inboxes to the job database, the heartbeat renews leases, and the main thread
runs the jobs of the queue. They share only the job database and the cluster.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path

from distributed import KilledWorker

from wsi_denoise import __version__
from wsi_denoise.daemon import notifications
from wsi_denoise.daemon.folders import FolderWatch, output_folder, quarantine_folder
from wsi_denoise.daemon.heartbeat import Heartbeat
from wsi_denoise.daemon.pauses import Pauses
from wsi_denoise.daemon.recovery import recover, sweep, write_notes
from wsi_denoise.daemon.retention import Tidying
from wsi_denoise.daemon.runner import Runner
from wsi_denoise.errors import (
    DatabaseReplaced,
    NoSuchJob,
    NoWorkers,
    OpeningKillsWorker,
    OpeningTooSlow,
    SchedulerUnreachable,
    StoreError,
    TransitionRefused,
    WorkerLost,
    WsiDenoiseError,
)
from wsi_denoise.intake.quarantine import Quarantine
from wsi_denoise.intake.report import Report
from wsi_denoise.intake.watcher import Watcher
from wsi_denoise.jobs.record import LEASE
from wsi_denoise.jobs.states import OVER, JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import Job
from wsi_denoise.network import candidates
from wsi_denoise.processing.dask import inspection, remote, stall
from wsi_denoise.processing.dask.cluster import Cluster, connect, forget_keys
from wsi_denoise.processing.events import Interrupted
from wsi_denoise.settings import Loaded, Settings
from wsi_denoise.system import memory
from wsi_denoise.system.conditions import Conditions
from wsi_denoise.system.process import identity

_log = logging.getLogger(__name__)

STORE_THREADS = 3
"""Threads that use the job database: intake, the heartbeat, and the main thread."""

IDLE_SECONDS = 1.0
AGAIN_SECONDS = 5.0
LONGEST_SECONDS = 300.0
"""Limit of the wait after an unexpected error of the queue; it starts at `AGAIN_SECONDS` and doubles each time."""

END_SECONDS = 18.0
"""Limit of a shutdown, for example when the database is locked. Supervisors wait for 20 s or more."""

PROBES = 2
_CLUSTER_LOST = {SchedulerUnreachable.code, NoWorkers.code}


class Daemon:
    """Watch the inboxes and run the jobs of the queue until a stop is requested.

    Parameters
    ----------
    store : JobStore
        With the schema of this version.
    say : callable
        Called with a line for the terminal.
    """

    def __init__(self, loaded: Loaded, store: JobStore, *, say: Callable[[str], None]) -> None:
        self._loaded, self._settings, self._store, self._say = loaded, loaded.settings, store, say
        self._said: dict[int, JobState] = {}
        self._conditions = Conditions(_log)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; then finish the blocks in flight and give the job back.

        Raises
        ------
        SchedulerUnreachable, NoWorkers
            Only at the start. A cluster that is lost later is connected to, or started, again.
        StoreError
            At the start, or when waiting does not help.
        """
        self._make_inbox()
        memory.share_one_arena()
        memory.leave_libraries_alone()
        self._served = False
        threading.Thread(target=_end_in_time, args=(stop,), name="end", daemon=True).start()
        while not stop.is_set():
            leave = threading.Event()
            follow = threading.Thread(target=_follow_stop, args=(stop, leave), name="stop", daemon=True)
            follow.start()
            try:
                self._serve(leave)
            except (SchedulerUnreachable, NoWorkers, StoreError) as error:
                if not self._served or not error.outlasts:
                    raise
                if self._conditions.failed("cluster", error):
                    self._say(str(error))
                stop.wait(AGAIN_SECONDS)
            finally:
                leave.set()

    def _make_inbox(self) -> None:
        """Create the default inbox. A missing inbox that the settings name is a typo or an unmounted share."""
        for inbox in self._settings.intake.inbox:
            if self._loaded.origins["intake.inbox"] == "default":
                with suppress(OSError):  # the scan reports why it cannot be read
                    inbox.mkdir(parents=True, exist_ok=True)

    def _serve(self, leave: threading.Event) -> None:
        """Work on one cluster until `leave` is set; set it on every return.

        Raises
        ------
        SchedulerUnreachable, NoWorkers
            When the cluster cannot be used, or is lost.
        """
        settings, store = self._settings, self._store
        recover(store)
        with registered(store, settings) as daemon_id, connect(settings) as cluster:
            _log.info("daemon %d: %s", daemon_id, cluster.description)
            store.note_daemon(daemon_id, {"cluster": cluster.description})
            store.open_connections(STORE_THREADS)
            origin = f"daemon:{daemon_id}"
            output, notes = output_folder(self._loaded, store, origin), quarantine_folder(self._loaded, store, origin)
            quarantine = Quarantine(settings.intake.quarantine, check=notes.check)
            watcher = Watcher(
                settings,
                store,
                probe=lambda path: probe(cluster, path, settings),
                origin=origin,
                checksum=checksum,
                quarantine=quarantine,
            )
            watches = (
                FolderWatch(output, store, origin, say=self._say),
                FolderWatch(
                    notes,
                    store,
                    origin,
                    say=self._say,
                    on_return=lambda: write_notes(settings, store, quarantine, leave),
                    for_jobs=False,
                ),
            )
            intake = threading.Thread(target=self._intake, args=(watcher, leave, watches), name="intake", daemon=True)
            pauses = Pauses(
                settings,
                store,
                daemon_id,
                on_pause=lambda: notifications.post(settings.notify.url, settings.notify.timeout, "paused", None),
            )
            with pauses.lifted(), Heartbeat(store, daemon_id, settings) as heartbeat:
                intake.start()
                runner = Runner(
                    settings,
                    store,
                    daemon_id,
                    cluster,
                    heartbeat,
                    leave,
                    quarantine=quarantine,
                    on_change=self._changed,
                    on_wait=lambda job, text: self._say(f"job {job.id} waits: {text}"),
                    pauses=pauses,
                    output=output,
                    look_ahead=True,
                )
                try:
                    self._device(cluster, heartbeat, leave)
                    self._served = True
                    self._conditions.works("cluster")
                    self._work(runner, cluster, daemon_id, leave, pauses)
                except Interrupted:
                    pass
                finally:
                    leave.set()
                    watcher.close()
                    intake.join(timeout=5)

    def _device(self, cluster: Cluster, heartbeat: Heartbeat, leave: threading.Event) -> None:
        """Log the device of the network once a worker has reported it."""
        watch = stall.Watch(cluster, self._settings.limits, _Start(leave, self._say))
        compute, preset = self._settings.compute, self._settings.model.preset
        while True:
            try:
                heartbeat.device = str(stall.run(watch, remote.describe_device, compute, preset))
            except WorkerLost as error:
                _log.warning("%s", error)
                continue
            _log.info("device: %s", heartbeat.device)
            self._say(f"device: {heartbeat.device}")
            return

    def _intake(self, watcher: Watcher, stop: threading.Event, watches: Sequence[FolderWatch] = ()) -> None:
        try:
            sweep(self._settings, self._store, stop, quarantine=watcher.quarantine)
        except Exception:  # noqa: BLE001 - logged with its traceback; slides come first
            _log.exception("looking for what was left behind")
        tidying = Tidying(self._settings, self._store, "retention")
        giving = memory.GivingBack(forget_keys)
        while not stop.is_set():
            try:
                tidying.look()
                giving.look()
                for watch in watches:
                    watch.tick()
                report = watcher.look()
                self._tell(report)
                self._conditions.works("intake")
                if report.unfinished:
                    continue
            except Exception as error:  # noqa: BLE001 - logged, with its traceback where it is unforeseen
                # The intake thread must not end: the next scan starts from the files that are there.
                if not stop.is_set():
                    self._conditions.failed("intake", error)
            watcher.wait(self._settings.intake.scan_seconds)

    def _tell(self, report: Report) -> None:
        for what in ("seen", "queued", "duplicates", "quarantined", "forgotten", "resumed"):
            jobs = getattr(report, what)
            if jobs:
                _log.info("intake: %s: %s", what, ", ".join(f"job {number}" for number in jobs))
        for number in report.quarantined:
            job = self._store.job(number)
            self._changed(job)
            notifications.post(self._settings.notify.url, self._settings.notify.timeout, job.state.value, job)

    def _work(self, runner: Runner, cluster: Cluster, daemon_id: int, stop: threading.Event, pauses: Pauses) -> None:
        """Run the jobs of the queue until `stop` is set.

        Raises
        ------
        SchedulerUnreachable
            When the cluster is lost, during a job or between jobs.
        """
        wait, lost = AGAIN_SECONDS, False
        while not stop.is_set():
            if lost or cluster.is_closed():
                raise SchedulerUnreachable("the daemon lost its cluster")
            try:
                if pauses.look():
                    stop.wait(IDLE_SECONDS)
                    continue
                job = self._store.claim(daemon_id, self._settings.jobs.lease_seconds)
                self._conditions.works("queue")
                if job is None:
                    wait = AGAIN_SECONDS
                    stop.wait(IDLE_SECONDS)
                    continue
                self._changed(job)
                ended = runner.run(job)
                lost = ended.error_code in _CLUSTER_LOST and not cluster.is_there()
                wait = AGAIN_SECONDS
            except (StoreError, TransitionRefused, NoSuchJob) as error:
                # The database differs from what this daemon expected. It keeps watching.
                if self._conditions.failed("queue", error) and isinstance(error, DatabaseReplaced):
                    self._say(str(error))
                stop.wait(5 * IDLE_SECONDS)
            except Exception as error:  # noqa: BLE001 - logged with its traceback
                # Other slides wait. A job that was left running is claimed again when its lease expires.
                self._conditions.failed("queue", error)
                stop.wait(wait)
                wait = min(2 * wait, LONGEST_SECONDS)

    def _changed(self, job: Job) -> None:
        if self._said.get(job.id) is job.state:
            return
        if job.state in OVER:
            self._said.pop(job.id, None)
        else:
            self._said[job.id] = job.state
        done, why = f": {job.verdict}, {job.output}", f": {job.error}"
        if not self._settings.log.names:
            done, why = f": {job.verdict}", f": {job.error_code}"
        rest = done if job.state is JobState.DONE else why if job.error else ""
        self._say(f"job {job.id} {job.state}{rest}")


class _Start:
    """The events of the first task of a daemon."""

    def __init__(self, leave: threading.Event, say: Callable[[str], None]) -> None:
        self._leave, self._say = leave, say

    def check(self) -> None:
        if self._leave.is_set():
            raise Interrupted

    def waiting(self, text: str) -> None:
        self._say(text)


def checksum(preset: str) -> str | None:
    """Return the checksum of a preset's weights; None where it is unknown, as the job then reports the reason."""
    try:
        return candidates.checksum(preset)
    except WsiDenoiseError:
        return None


def probe(cluster: Cluster, path: Path, settings: Settings) -> WsiDenoiseError | None:
    """Open a slide in a worker and read its last tile; see :data:`wsi_denoise.intake.watcher.Probe`."""
    for _ in range(PROBES):
        # Before waiting blocks: a probe is short, and a scan waits for it.
        future = cluster.call(remote.probe, path, settings.limits.megapixels, priority=10)
        try:
            trouble: WsiDenoiseError | None = future.result(timeout=settings.limits.open_seconds)
        except KilledWorker:
            continue
        except TimeoutError:
            # Otherwise the worker that hangs on it would be lost for blocks indefinitely.
            if inspection.end_task(cluster, future):
                return OpeningTooSlow(f"{settings.limits.open_seconds:g} s")
            return NoWorkers(f"none was free to open it within {settings.limits.open_seconds:g} s")
        except (CancelledError, OSError, AttributeError) as error:
            # The scheduler has ended. The slide is not at fault and is probed again.
            _log.debug("probe: %r", error)
            return SchedulerUnreachable("it dropped the probe")
        finally:
            cluster.drop([future])
        return trouble
    return OpeningKillsWorker(f"{PROBES} times")


@contextmanager
def registered(store: JobStore, settings: Settings) -> Iterator[int]:
    """Register this process as a daemon in the job database, and sign it off at the end."""
    facts = {
        **identity(),
        "inbox": [str(inbox) for inbox in settings.intake.inbox],
        "output": str(settings.output.folder),
        LEASE: settings.jobs.lease_seconds,
    }
    daemon_id = store.register_daemon(version=__version__, facts=facts)
    try:
        yield daemon_id
    finally:
        try:
            store.stop_daemon(daemon_id)
        except StoreError as error:
            _log.warning("signing off: %s", error)


def _follow_stop(stop: threading.Event, leave: threading.Event) -> None:
    """Set `leave` when `stop` is set; end when `leave` is set."""
    while not leave.is_set():
        if stop.wait(0.2):
            leave.set()


def _end_in_time(stop: threading.Event) -> None:
    """End this process if it still runs `END_SECONDS` after the request to stop. Finished work is on disk."""
    stop.wait()
    time.sleep(END_SECONDS)
    # All threads: the stack of this one does not show what the shutdown waits for.
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = (
        f"thread {names.get(number, number)}:\n{''.join(traceback.format_stack(frame))}"
        for number, frame in sys._current_frames().items()  # noqa: SLF001 - documented, despite its name
    )
    _log.warning(
        "ended hard %g s after the request to stop; unfinished jobs are resumed at the next start\n%s",
        END_SECONDS,
        "".join(stacks),
    )
    logging.shutdown()
    os._exit(1)
