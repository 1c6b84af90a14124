"""Run one claimed job and record how it ended.

Only this module decides what an error of a running job means. A slide at fault is quarantined, a job that may succeed
later is queued again with a time, and any other job fails.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wsi_denoise.daemon import disk_space, notifications
from wsi_denoise.daemon.folders import MarkedFolder, StateFolder
from wsi_denoise.daemon.heartbeat import Heartbeat
from wsi_denoise.daemon.outcome import Decision, outcome_of
from wsi_denoise.daemon.pauses import Pauses
from wsi_denoise.errors import (
    DatabaseReplaced,
    DiskFull,
    InternalError,
    JobCancelled,
    LeaseLost,
    NoSuchJob,
    PresetNotForSlides,
    SlideChanged,
    SlideKillsDaemon,
    StoreError,
    TransitionRefused,
    WsiDenoiseError,
)
from wsi_denoise.intake.missing import diagnose
from wsi_denoise.intake.quarantine import Quarantine
from wsi_denoise.intake.slide_files import Snapshot, slide_files, snapshot
from wsi_denoise.jobs import places
from wsi_denoise.jobs.retry import DEATHS, deaths
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import Job
from wsi_denoise.network import candidates
from wsi_denoise.processing.dask import remote, stall
from wsi_denoise.processing.dask.cluster import Cluster
from wsi_denoise.processing.dask.prefetch import Prefetch
from wsi_denoise.processing.events import Interrupted, Progress
from wsi_denoise.processing.output_names import output_path
from wsi_denoise.processing.publish import Output, replaceable
from wsi_denoise.processing.slide import Request, Result, denoise_slide
from wsi_denoise.processing.spool import Spool
from wsi_denoise.processing.values import SlidePlan, facts_of
from wsi_denoise.settings import Settings
from wsi_denoise.slide.base import SourceFile, as_found
from wsi_denoise.system import disk
from wsi_denoise.system.conditions import Conditions

_log = logging.getLogger(__name__)

FILES_WATCHED = 64
"""Files of a slide that workers check with each block: an NGFF image has thousands. All are checked at the end."""
PROGRESS_SECONDS = 1.0
WRITE_SECONDS = 15.0
"""Longest wait between two attempts to store the end of a job."""

_DATABASE_BYTES = 8_000_000
_SPOOL_IN_VAIN = frozenset({JobState.QUARANTINED, JobState.SETTLING})
"""The finished blocks of a job that ends in one of these states are removed."""
_DECIDED_ELSEWHERE = (LeaseLost, TransitionRefused, NoSuchJob)
"""Errors of the store for a job that another daemon or the user took or ended, for example while this machine slept."""


class Runner:
    """Run claimed jobs, one after the other.

    Parameters
    ----------
    stop : threading.Event
        Set to give the running job back after the blocks in flight.
    on_change : callable
        Called with the job when it changes.
    on_wait : callable
        Called with the job and a sentence about why it waits.
    quarantine : Quarantine or None
        Writes the notes; None writes none, for a user at the terminal.
    pauses : Pauses or None
        Pauses of the daemon for a full disk and quiet hours. With None, a full disk is retried like other errors.
    output : MarkedFolder or None
        Checked before a slide starts and before its file is written and published; None checks nothing.
    look_ahead : bool
        Plan the next job of the queue while the last blocks of the current one run.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        daemon_id: int,
        cluster: Cluster,
        heartbeat: Heartbeat,
        stop: threading.Event,
        *,
        on_change: Callable[[Job], None] = lambda _job: None,
        on_wait: Callable[[Job, str], None] = lambda _job, _text: None,
        quarantine: Quarantine | None = None,
        pauses: Pauses | None = None,
        output: MarkedFolder | None = None,
        look_ahead: bool = False,
    ) -> None:
        self._settings, self._store, self._cluster = settings, store, cluster
        self._output = output
        self._state = StateFolder(settings.jobs.state)
        self._daemon_id, self._origin = daemon_id, f"daemon:{daemon_id}"
        self._heartbeat, self._stop = heartbeat, stop
        self._on_change, self._on_wait, self._quarantine = on_change, on_wait, quarantine
        self._pauses, self._promises = pauses, disk_space.promises(settings)
        self._holder = secrets.token_hex(4)  # a daemon of another database may have the same number
        self._asked = 0.0
        self._told = 0.0
        self._spool: Spool | None = None
        self._waits: set[str] = set()
        self._conditions = Conditions(_log)
        self._prefetch = Prefetch(cluster) if look_ahead else None

    def run(self, job: Job) -> Job:
        """Run a claimed job to completion and return its final state.

        Raises
        ------
        StoreError
            When the end of the job cannot be stored. Its lease expires, and it is claimed again.
        """
        _log.info("job %d: attempt %d", job.id, job.attempts)
        self._spool, ours = None, True
        try:
            ended = self._to_its_end(job)
        except _DECIDED_ELSEWHERE as error:
            _log.warning("job %d: %s", job.id, error)
            ended, ours = self._as_others_left_it(job), False
        finally:
            self._promises.release()
        if self._spool is not None and ended.state in _SPOOL_IN_VAIN:
            self._spool.remove()
        _log.info("job %d: %s%s", ended.id, ended.state, f", {ended.error_code}" if ended.error_code else "")
        self._on_change(ended)
        if ours and ended.state in {JobState.DONE, JobState.QUARANTINED, JobState.FAILED}:
            notifications.post(self._settings.notify.url, self._settings.notify.timeout, ended.state.value, ended)
        return ended

    def _to_its_end(self, job: Job) -> Job:
        try:
            with self._heartbeat.on(job):
                result, spool = self._denoise(job)
                ended = self._written(lambda: self._finish(job, result))
            self._waits.clear()
            spool.remove()  # only once the database has the job as done: a crash before would cost the whole slide
            if self._pauses is not None:
                self._pauses.hold.finished()
            if self._quarantine is not None:
                self._quarantine.release(Path(job.slide), Path(job.relative))
        except _DECIDED_ELSEWHERE:
            raise
        except Interrupted as why:
            ended = self._store.release(job.id, self._daemon_id, str(why) or "the daemon is stopping")
        except JobCancelled:
            ended = self._written(lambda: self._store.cancelled(job.id, self._daemon_id))
        except WsiDenoiseError as error:
            ended = self._ended(job, self._diagnosed(job, error))
        except Exception as error:  # noqa: BLE001 - the daemon continues, and the job reports the error
            _log.exception("job %d", job.id)
            ended = self._ended(job, InternalError(f"{type(error).__name__}: {error}"))
        return ended

    def _diagnosed(self, job: Job, error: WsiDenoiseError) -> WsiDenoiseError:
        def recorded() -> str | None:
            try:
                return places.place_of(self._store, job.id)
            except StoreError:
                return None

        inboxes = self._settings.intake.inbox
        return diagnose(error, Path(job.slide), inboxes, check=lambda: self._check_source(job), recorded=recorded)

    def _as_others_left_it(self, job: Job) -> Job:
        try:
            return self._store.job(job.id)
        except NoSuchJob:
            return job  # retention removed it from the job database

    def _ended(self, job: Job, error: WsiDenoiseError) -> Job:
        paused = False
        with self._heartbeat.on(job):
            if isinstance(error, DiskFull) and self._pauses is not None:
                # Outside of the retried write: the database may be on the full disk and refuse it several times.
                self._pauses.hold.begin(job.id, error, self._promises.left())
                paused = True
            ended = self._written(lambda: self._end(job, error))
        if error.outlasts and not paused and error.code not in self._waits:
            # Such a wait can last until a user acts. Notify once, not for each slide with the same error.
            self._waits.add(error.code)
            notifications.post(self._settings.notify.url, self._settings.notify.timeout, "waiting", ended)
        return ended

    def _written(self, write: Callable[[], Job]) -> Job:
        """Store the end of a job. Retry while the database is locked or unreachable, until the daemon stops.

        Hours of work depend on this write. Except for a cancellation, the heartbeat renews the lease in the meantime.

        Raises
        ------
        StoreError
        """
        waited = 0.0
        while True:
            try:
                ended = write()
            except StoreError as error:
                if not error.outlasts or self._stop.is_set():
                    raise
                self._conditions.failed("storing the end of a job", error)
                waited = min(2 * waited + 1, WRITE_SECONDS)
                self._stop.wait(waited)
            else:
                self._conditions.works("storing the end of a job")
                return ended

    def waiting(self, job: Job, text: str) -> None:
        """Store and report why the job waits."""
        try:
            self._store.remark(job.id, self._daemon_id, text)
        except LeaseLost:
            raise
        except StoreError as error:
            _log.warning("job %d: %s", job.id, error)
        self._on_wait(job, text)

    def _denoise(self, job: Job) -> tuple[Result, Spool]:
        settings = self._settings.with_values(job.settings)
        # Only attempts since intake or the user last queued the job count.
        died = min(deaths(self._store.attempts(job.id)), job.attempts - 1)
        if died >= DEATHS:
            raise SlideKillsDaemon(f"{died} times in a row")
        unsafe = any(card.not_for_slides for card in candidates.cards(job.preset))
        if unsafe and not settings.model.allow_unsafe:
            raise PresetNotForSlides(job.preset)
        self._state.check()
        if self._output is not None:
            self._output.check()
        request = self._request(job, settings)
        attempt = _Attempt(self, job, settings)
        result = denoise_slide(request, self._cluster, attempt, prefetch=self._prefetch)
        assert attempt.plan is not None
        if job.region:
            picture = result.output.with_suffix(".png")
            watch = stall.Watch(self._cluster.near, settings.limits, attempt)
            stall.run(watch, remote.preview, attempt.plan, result.output, picture)
        return result, Spool(attempt.plan.work.spool)

    def planned(self, job: Job, settings: Settings, plan: SlidePlan) -> None:
        """Store the facts of the slide, and reserve disk space."""
        self._spool = Spool(plan.work.spool)
        info, holder = plan.info, self._daemon_id
        self._store.set_slide_facts(job.id, info.width, info.height, info.mpp, facts_of(info), holder=holder)
        _log.info("job %d: %s; %s", job.id, plan.work.plan, plan.tissue_note or "tissue found")
        self._promises.reserve(self._needs(settings, plan))

    def submitted(self) -> None:
        """Plan the slide of the next job on workers that have finished their blocks of the current one."""
        if self._prefetch is None:
            return
        try:
            job = self._store.next_queued()
            self._state.check()
            if job is not None:
                settings = self._settings.with_values(job.settings)
                self._prefetch.start(*self._request(job, settings).planning)
        except (WsiDenoiseError, OSError, RuntimeError) as error:
            # An error of the job, the database or the cluster is reported when the job runs.
            _log.info("planning ahead: %s", error)

    def _request(self, job: Job, settings: Settings) -> Request:
        def name(facts: Mapping[str, Any]) -> Path:
            return output_path(
                settings.output.folder,
                Path(job.relative),
                facts,
                taken=lambda file: file.exists() and not replaceable(file, facts, overwrite=settings.output.overwrite),
            )

        def check() -> None:
            self._check_source(job)

        maps = None if job.region else settings.jobs.state / "maps" / f"{job.id}.npz"
        return Request(
            path=Path(job.slide),
            fingerprint=job.fingerprint or "",
            settings=settings,
            preset=job.preset,
            output=Output(settings.output, name, None if self._output is None else self._output.check, self._holder),
            maps=maps,
            check_source=check,
            region=job.region,
            files=self._check_source(job),
            overview=settings.jobs.state / "overviews" / f"{job.id}.tiff",
        )

    def _finish(self, job: Job, result: Result) -> Job:
        maps = None if job.region else self._settings.jobs.state / "maps" / f"{job.id}.npz"
        return self._store.finish(
            job.id,
            self._daemon_id,
            verdict=result.judgement.verdict.value,
            reasons=list(result.judgement.reasons),
            metrics=result.metrics,
            output=result.output,
            output_sha256=result.sha256,
            maps=maps,
            provenance={**result.facts, "seconds": {key: round(value, 3) for key, value in result.seconds.items()}},
            model_checksum=result.model_sha256,
        )

    def _needs(self, settings: Settings, plan: SlidePlan) -> list[disk_space.Need]:
        """Return the space that a slide needs in addition to the blocks in its spool."""
        blocks = plan.work.lattice.block_shape[0] * plan.work.lattice.block_shape[1]
        with disk.translate_write_errors(plan.work.spool):
            spooled = sum(1 for _ in plan.work.spool.glob("*.block")) if plan.work.spool.is_dir() else 0
        needs = disk_space.needs(settings, plan.work.width, plan.work.height, max(0.0, 1 - spooled / blocks))
        database = [] if self._store.file is None else [disk_space.Need(self._store.file.parent, _DATABASE_BYTES)]
        return needs + database

    def _end(self, job: Job, error: WsiDenoiseError) -> Job:
        """Store the outcome of an error."""
        jobs = self._settings.jobs
        outcome = outcome_of(
            error,
            attempts=self._store.attempts(job.id),
            number=job.attempts,
            allowed=jobs.attempts,
            retry_seconds=jobs.retry_seconds,
            pauses=self._pauses is not None,
            now=datetime.now(UTC),
        )
        match outcome.decision:
            case Decision.QUARANTINE:
                ended = self._store.quarantine(job.id, error, self._origin, holder=self._daemon_id)
                if self._quarantine is not None:
                    self._note(ended, error)
                return ended
            case Decision.SETTLE:
                return self._store.settle_again(job.id, error, self._origin, holder=self._daemon_id)
            case Decision.RETRY:
                assert outcome.at is not None
                return self._store.retry_later(job.id, error, outcome.at, self._origin, counts=outcome.counts)
            case Decision.FAIL:
                return self._store.fail(job.id, error, self._origin, holder=self._daemon_id)

    def _note(self, job: Job, error: WsiDenoiseError) -> None:
        assert self._quarantine is not None
        slide, relative = Path(job.slide), Path(job.relative)
        try:
            self._quarantine.put(slide, relative, error, job_id=job.id, time=datetime.now(UTC))
        except WsiDenoiseError as failure:
            _log.warning("job %d: %s", job.id, failure)

    def _check_source(self, job: Job) -> tuple[SourceFile, ...]:
        """Compare size and time with those at the fingerprint, and return the files that workers compare with.

        Raises
        ------
        SlideVanished, SourceUnavailable
            From reading the files.
        SlideChanged
        """
        files = slide_files(Path(job.slide))
        # Read before the comparison, so that a replacement in between is detected.
        watched = tuple(as_found(path) for path in files[:FILES_WATCHED])
        if snapshot(files) != Snapshot(job.size_bytes, job.mtime_ns):
            raise SlideChanged(f"job {job.id}")
        return watched

    def progressed(self, job: Job, progress: Progress) -> None:
        """Store the progress of the job, at most once a second."""
        now = time.monotonic()
        if now - self._told < PROGRESS_SECONDS and progress.done != progress.total:
            return
        self._told = now
        self._promises.keep(1 - progress.done / max(1, progress.total))
        try:
            self._store.progress(
                job.id,
                self._daemon_id,
                progress.done,
                progress.total,
                progress.resumed,
                progress.rate,
                progress.seconds_left,
            )
            self._on_change(self._store.job(job.id))
        except LeaseLost:
            raise
        except StoreError as error:
            self._conditions.failed("storing progress", error)
        else:
            self._conditions.works("storing progress")

    def check(self, job: Job) -> None:
        """Raise the error that ends the work: a stop, quiet hours, a lost lease, a hung worker, or a cancellation."""
        if self._stop.is_set():
            raise Interrupted
        if self._pauses is not None and self._pauses.quiet.now():
            raise Interrupted("quiet hours have begun")
        self._heartbeat.check()
        now = time.monotonic()
        if now - self._asked < PROGRESS_SECONDS:
            return
        self._asked = now
        if self._prefetch is not None and self._prefetch.end_hung(self._settings.limits.task_seconds):
            # The tasks of this slide on that worker are lost too, which must not count as its failure.
            raise Interrupted("a worker hung on the next slide and was ended")
        try:
            cancelled = self._store.cancel_requested(job.id)
        except DatabaseReplaced:
            raise
        except StoreError as error:
            self._conditions.failed("asking for a cancellation", error)
            return
        self._conditions.works("asking for a cancellation")
        if cancelled:
            raise JobCancelled


class _Attempt:
    """The events of one job, passed on to its runner."""

    def __init__(self, runner: Runner, job: Job, settings: Settings) -> None:
        self._runner, self._job, self._settings = runner, job, settings
        self.plan: SlidePlan | None = None

    def check(self) -> None:
        self._runner.check(self._job)

    def waiting(self, text: str) -> None:
        self._runner.waiting(self._job, text)

    def planned(self, plan: SlidePlan) -> None:
        self.plan = plan
        self._runner.planned(self._job, self._settings, plan)

    def progressed(self, progress: Progress) -> None:
        self._runner.progressed(self._job, progress)

    def submitted(self) -> None:
        self._runner.submitted()
