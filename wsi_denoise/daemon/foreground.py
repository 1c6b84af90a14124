"""Denoise slides in the foreground, with the queue, the job database and the runner of the daemon."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from wsi_denoise.daemon.folders import output_folder
from wsi_denoise.daemon.heartbeat import Heartbeat
from wsi_denoise.daemon.recovery import recover
from wsi_denoise.daemon.runner import Runner
from wsi_denoise.daemon.service import IDLE_SECONDS, checksum, probe, registered
from wsi_denoise.errors import (
    InternalError,
    JobCancelled,
    OutputUnwritable,
    SlideError,
    SourceError,
    TransitionRefused,
    WsiDenoiseError,
)
from wsi_denoise.intake.fingerprint import fingerprint
from wsi_denoise.intake.scan import is_gone
from wsi_denoise.intake.slide_files import is_unchanged, slide_files, snapshot
from wsi_denoise.jobs import places
from wsi_denoise.jobs.not_run import NotRun
from wsi_denoise.jobs.states import OVER, JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import Job
from wsi_denoise.processing.dask.cluster import Cluster, connect
from wsi_denoise.settings import Loaded, Settings
from wsi_denoise.system.mounts import Places

ORIGIN = "person:cli"
_log = logging.getLogger(__name__)


def run_slides(
    paths: list[Path],
    loaded: Loaded,
    store: JobStore,
    *,
    region: tuple[int, int, int, int] | None = None,
    report: Callable[[Job], None] = lambda _job: None,
    say: Callable[[str], None] = lambda _text: None,
    stop: threading.Event | None = None,
) -> list[Job | NotRun]:
    """Denoise slides now, in the foreground.

    Parameters
    ----------
    region : (int, int, int, int), optional
        (x, y, width, height) at level 0: a trial, with a picture beside the TIFF.
    report : callable
        Called with each job when it changes.
    say : callable
        Called with a line for the terminal about why a job waits.
    stop : threading.Event, optional
        Set to stop after the blocks in flight.

    Returns
    -------
    list of Job or NotRun
        The final state of each of `paths`. If a job of the same content already waits or runs, it is that job. An
        error of one slide does not stop the others.
    """
    settings = loaded.settings
    stop = stop or threading.Event()
    recover(store)
    ended: list[Job | NotRun] = []
    try:
        with (
            registered(store, settings) as daemon_id,
            connect(settings) as cluster,
            Heartbeat(store, daemon_id, settings) as heartbeat,
        ):
            output = output_folder(loaded, store, ORIGIN, at_terminal=True)
            with suppress(OutputUnwritable):  # the jobs that need it wait and report the reason
                output.check()  # before slides are compared with the outputs in it
            runner = Runner(
                settings,
                store,
                daemon_id,
                cluster,
                heartbeat,
                stop,
                on_change=report,
                on_wait=lambda job, text: say(f"job {job.id} waits: {text}"),
                output=output,
            )

            def run(path: Path) -> Job:
                """Run one slide to completion."""
                job = _in_hand(_submit(path, settings, store, cluster, region), settings, store)
                report(job)
                while job.state in {JobState.QUEUED, JobState.RUNNING}:
                    claimed = store.claim(daemon_id, settings.jobs.lease_seconds, only=job.id)
                    if claimed is not None:
                        return runner.run(claimed)
                    # Another daemon runs it. If that daemon gives it back, the next claim succeeds.
                    if stop.wait(IDLE_SECONDS):
                        break
                    job = store.job(job.id)
                    report(job)
                return job

            for path in paths:
                if stop.is_set():
                    break
                ended.append(_attempt(run, path.absolute()))
    except WsiDenoiseError as error:
        # Without a cluster or a database, none of the remaining slides can run.
        _log.warning("run: %s", error)
        return [*ended, *(NotRun(str(path.absolute()), error) for path in paths[len(ended) :])]
    stopped = JobCancelled("the run was stopped before it came to this slide")
    return [*ended, *(NotRun(str(path.absolute()), stopped) for path in paths[len(ended) :])]


def _attempt(run: Callable[[Path], Job], path: Path) -> Job | NotRun:
    """Run one slide, and return its error so that the other slides still run."""
    try:
        return run(path)
    except WsiDenoiseError as error:
        return NotRun(str(path), error)
    except Exception as error:  # noqa: BLE001 - logged with its traceback
        _log.exception("run")
        return NotRun(str(path), InternalError(f"{type(error).__name__}: {error}"))


def _submit(
    path: Path, settings: Settings, store: JobStore, cluster: Cluster, region: tuple[int, int, int, int] | None
) -> Job:
    """Add one slide to the job database and queue it, without waiting until it settles."""
    relative = next((path.relative_to(inbox) for inbox in settings.intake.inbox if path.is_relative_to(inbox)), None)
    relative = relative or Path(path.name)
    preset = settings.preset_for(relative)
    seen = snapshot(slide_files(path))
    job = store.see(
        path,
        relative,
        size_bytes=seen.size_bytes,
        mtime_ns=seen.mtime_ns,
        preset=preset,
        origin=ORIGIN,
        region=region,
        place=Places(settings.intake.inbox).of(path),
    )
    try:
        trouble = probe(cluster, path, settings)
        if trouble is not None:
            raise trouble
        digest = fingerprint(path, expected=seen)
    except WsiDenoiseError as error:
        return _ended(job, error, store)
    return store.queue(
        job.id,
        fingerprint=digest,
        settings=settings.pixel_settings(),
        settings_hash=settings.pixel_hash(),
        preset=preset,
        origin=ORIGIN,
        region=region,
        model_checksum=checksum(preset),
    )


def _ended(job: Job, error: WsiDenoiseError, store: JobStore) -> Job:
    """End a settling job; return a job that a daemon has queued in the meantime as it is."""
    try:
        if isinstance(error, SourceError):
            return store.forget(job.id, str(error), origin=ORIGIN)
        if isinstance(error, SlideError):
            return store.quarantine(job.id, error, ORIGIN)
        return store.fail(job.id, error, ORIGIN)  # the file is not at fault: a lost cluster, for example
    except TransitionRefused:
        return store.job(job.id)


def _in_hand(job: Job, settings: Settings, store: JobStore) -> Job:
    """Return the job to run: for a duplicate of an unfinished job, for example of an interrupted run, that job.

    If the file of that job is gone or was replaced, cancel that job and queue the duplicate instead.
    """
    first = store.job(job.duplicate_of) if job.duplicate_of is not None else job
    if first is job or first.state in OVER:
        return job
    try:
        if first.state is JobState.QUEUED and not _is_in_place(first, settings, store):
            store.cancel(first.id, ORIGIN)
            return store.retry(job.id, ORIGIN)
        return store.retry(first.id, ORIGIN) if first.next_try is not None else first
    except TransitionRefused:
        return store.job(first.id)  # another process changed it first


def _is_in_place(job: Job, settings: Settings, store: JobStore) -> bool:
    path = Path(job.slide)
    try:
        return is_unchanged(path, job.size_bytes, job.mtime_ns)
    except SourceError:
        # A slide whose folder is missing too may be on another machine.
        is_away = (
            bool(Places(settings.intake.inbox).doubt(path, places.place_of(store, job.id))) or not path.parent.is_dir()
        )
        return is_away or not is_gone(path)
