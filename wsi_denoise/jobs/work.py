"""The part of the job store that daemons use: claim, report, finish and release jobs."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from os import PathLike, fspath
from typing import Any, cast

from sqlalchemy import ColumnElement, Table, and_, bindparam, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from wsi_denoise import __version__
from wsi_denoise.errors import JobCancelled, TransitionRefused, WsiDenoiseError
from wsi_denoise.jobs.database.models import AttemptRow, DaemonRow, JobRow, MetricRow, PauseRow, Utc
from wsi_denoise.jobs.history import value
from wsi_denoise.jobs.record import Record, finite, guard, held, lease_of, open_attempt, row_for, row_of
from wsi_denoise.jobs.retry import RETRY_LONGEST
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import Job
from wsi_denoise.system import clocks


class Work(Record):
    """Methods of the job store for daemons."""

    def register_daemon(
        self,
        *,
        host: str | None = None,
        pid: int | None = None,
        version: str = __version__,
        device: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> int:
        """Register a daemon, by default this process, and return its number, which is never reused."""
        now = self._clock()
        with self.writing() as session:
            row = DaemonRow(
                host=socket.gethostname() if host is None else host,
                pid=os.getpid() if pid is None else pid,
                version=version,
                device=device,
                started=now,
                heartbeat=now,
                facts=dict(facts or {}),
            )
            session.add(row)
            session.flush()
            self._record(session, None, f"daemon:{row.id}", "daemon_started", f"{row.host}, process {row.pid}")
            return row.id

    def note_daemon(self, daemon_id: int, facts: Mapping[str, Any]) -> None:
        """Update the facts of a daemon."""
        with self.writing() as session:
            row = session.get(DaemonRow, daemon_id)
            if row is not None:
                row.facts = {**row.facts, **facts}

    def stop_daemon(
        self, daemon_id: int, *, origin: str | None = None, reason: str = "stopped", died: bool = False
    ) -> list[int]:
        """Mark a daemon as stopped, and queue its running jobs again.

        A stopping daemon calls this for itself. A new daemon on the same machine calls it for one whose process has
        `died`, so that its jobs need not wait for their leases; such deaths are counted
        (:func:`wsi_denoise.jobs.retry.deaths`). A job whose cancellation was requested is cancelled instead.

        Returns
        -------
        list of int
            Numbers of the jobs that it ran.
        """
        who = origin or f"daemon:{daemon_id}"
        with self.writing() as session:
            daemon = session.get(DaemonRow, daemon_id)
            if daemon is None or daemon.stopped is not None:
                return []
            daemon.stopped = self._clock()
            held = select(JobRow).where(JobRow.state == JobState.RUNNING, JobRow.daemon_id == daemon_id)
            rows = session.scalars(held.with_for_update(of=JobRow)).all()
            for row in rows:
                kind, said, next_try = "released", "", None
                if died:
                    kind = "daemon_died"
                    said, next_try = self._after_death(session, row)
                self._give_back(session, row, who, kind, f"daemon {daemon_id} {reason}{said}", next_try)
            self._record(session, None, who, "daemon_stopped", f"daemon {daemon_id} {reason}")
            return [row.id for row in rows]

    def claim(self, daemon_id: int, lease_seconds: float, *, only: int | None = None) -> Job | None:
        """Claim the next job and return it, or return None if no job is due or the queue is paused.

        Running jobs whose lease has expired come first, then queued jobs that are due, by priority (highest first) and
        age. With `only`, claim this job or none, even while the queue is paused: ``wsi-denoise run`` needs it now.
        """
        now = self._clock()
        length = timedelta(seconds=lease_seconds)
        times = {"now": now, "ahead": now + clocks.SKEW, "never": now + _NEVER}
        # Check without the writer's lock first: an idle daemon polls every second and usually finds no job.
        with self.reading() as session:
            if only is None and not session.scalar(_ANYTHING, {**times, "latest": now + length}):
                return None
        with self.writing() as session:
            self._expire_leases_ahead(session, length, now)
            for abandoned in session.scalars(_ABANDONED, {"now": now}).all():
                row = row_of(session, abandoned)
                self._move(
                    session, row, JobState.CANCELLED, f"daemon:{daemon_id}", "lease expired", error=JobCancelled()
                )
            for expired in session.scalars(_EXPIRED, {"now": now}).all():
                row = row_of(session, expired)
                said, next_try = self._after_death(session, row)
                if next_try is not None:
                    message = f"the lease of daemon {row.daemon_id} has expired{said}"
                    self._give_back(session, row, f"daemon:{daemon_id}", "lease_expired", message, next_try)
            bound = {**times, "until": now + length, "daemon": daemon_id}
            taken = session.scalar(_CLAIM, bound) if only is None else session.scalar(_TAKE, {**bound, "only": only})
            if taken is None:
                return None
            row = row_of(session, taken)
            origin = f"daemon:{daemon_id}"
            lost = self._close_attempt(session, row, "lease_expired", None)
            if lost is not None:
                message = f"the lease of daemon {lost.daemon_id} has expired"
                data = {"from": JobState.RUNNING, "to": JobState.QUEUED, "daemon": lost.daemon_id}
                self._record(session, row, origin, "lease_expired", message, **data)
            number = session.scalar(select(func.max(AttemptRow.number)).where(AttemptRow.job_id == row.id)) or 0
            session.add(AttemptRow(job_id=row.id, number=number + 1, daemon_id=daemon_id, started=now))
            message = f"attempt {number + 1}"
            data = {"from": JobState.QUEUED, "to": JobState.RUNNING, "daemon": daemon_id}
            self._record(session, row, origin, "running", message, **data)
            return value(session, row)

    @staticmethod
    def _expire_leases_ahead(session: Session, length: timedelta, now: datetime) -> None:
        """End the leases that a clock ahead of this one stored; see :mod:`wsi_denoise.system.clocks`."""
        found = select(JobRow).where(JobRow.state == JobState.RUNNING, JobRow.lease_until > now + length)
        for row in session.scalars(found.with_for_update(of=JobRow, skip_locked=True)):
            if row.lease_until is not None and clocks.is_ahead(row.lease_until, lease_of(session, row, length), now):
                row.lease_until = now - timedelta(microseconds=1)
        session.flush()

    def next_queued(self) -> Job | None:
        """Return the queued job that :meth:`claim` would take now, without a claim: another daemon may take it."""
        now = self._clock()
        with self.reading() as session:
            number = session.scalar(_NEXT, {"now": now, "ahead": now + clocks.SKEW, "never": now + _NEVER})
            row = None if number is None else session.get(JobRow, number)
            return None if row is None else value(session, row)

    def heartbeat(self, daemon_id: int, job_id: int | None, lease_seconds: float, *, device: str | None = None) -> bool:
        """Store a daemon's heartbeat, and renew its lease on a job.

        Returns
        -------
        bool
            False if the lease is lost. The daemon must then stop the job.
        """
        now = self._clock()
        with self.writing() as session:
            alive = {"heartbeat": now} | ({"device": device} if device is not None else {})
            session.execute(update(DaemonRow).where(DaemonRow.id == daemon_id).values(alive))
            if job_id is None:
                return True
            renewed = (
                update(JobRow)
                .where(JobRow.id == job_id, JobRow.daemon_id == daemon_id, JobRow.state == JobState.RUNNING)
                .values(lease_until=now + timedelta(seconds=lease_seconds))
                .returning(JobRow.id)
            )
            return session.scalar(renewed) is not None

    def progress(
        self,
        job_id: int,
        daemon_id: int,
        blocks_done: int,
        blocks_total: int,
        blocks_resumed: int = 0,
        rate: float | None = None,
        seconds_left: float | None = None,
    ) -> None:
        """Store the progress of a running job. Call it at most once a second.

        Parameters
        ----------
        blocks_done, blocks_total, blocks_resumed : int
            Finished blocks (the resumed ones included), all blocks, and blocks from an earlier attempt's spool.
        rate : float or None
            Megapixels per second.

        Raises
        ------
        LeaseLost
        """
        with self.writing() as session:
            row = held(session, job_id, daemon_id)
            row.blocks_done, row.blocks_total, row.blocks_resumed = blocks_done, blocks_total, blocks_resumed
            row.rate, row.seconds_left = finite(rate), finite(seconds_left)
            attempt = open_attempt(session, row)
            if attempt is not None:
                attempt.blocks_done, attempt.blocks_resumed = blocks_done, blocks_resumed

    def set_slide_facts(
        self,
        job_id: int,
        width: int,
        height: int,
        mpp: tuple[float, float] | None,
        facts: Mapping[str, Any] | None = None,
        *,
        holder: int | None = None,
    ) -> None:
        """Store the reader's values: pixels at level 0, micrometres per pixel (x, y), and others in JSON types.

        Raises
        ------
        LeaseLost
            If `holder`, the number of a daemon, no longer holds the job.
        """
        with self.writing() as session:
            row = row_for(session, job_id, holder)
            slide = row.slide
            slide.width, slide.height = width, height
            slide.mpp_x, slide.mpp_y = mpp or (None, None)
            slide.facts = dict(facts or {})
            resolution = f"{mpp[0]:g} x {mpp[1]:g} um/px" if mpp else "resolution unknown"
            who = f"daemon:{row.daemon_id}" if row.daemon_id is not None else "intake"
            self._record(session, row, who, "slide", f"{width} x {height} px, {resolution}")

    def remark(self, job_id: int, daemon_id: int, message: str) -> None:
        """Add an event that says why a running job waits.

        Raises
        ------
        LeaseLost
        """
        with self.writing() as session:
            row = held(session, job_id, daemon_id)
            self._record(session, row, f"daemon:{daemon_id}", "waiting", message)

    def finish(
        self,
        job_id: int,
        daemon_id: int,
        *,
        verdict: str,
        reasons: Sequence[str],
        metrics: Mapping[str, float | None],
        output: str | PathLike[str],
        output_sha256: str,
        maps: str | PathLike[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        model_checksum: str | None = None,
    ) -> Job:
        """End a job whose output is verified and published. Metrics that are not finite are stored as NULL.

        Raises
        ------
        LeaseLost
        """
        with self.writing() as session:
            row = held(session, job_id, daemon_id)
            row.verdict, row.reasons = verdict, list(reasons)
            row.output, row.output_sha256 = fspath(output), output_sha256
            row.maps = None if maps is None else fspath(maps)
            row.provenance, row.model_checksum = dict(provenance or {}), model_checksum
            session.execute(delete(MetricRow).where(MetricRow.job_id == job_id))
            session.add_all(MetricRow(job_id=job_id, key=key, value=finite(item)) for key, item in metrics.items())
            row.blocks_done = row.blocks_total
            return self._move(session, row, JobState.DONE, f"daemon:{daemon_id}", f"verdict {verdict}", verdict=verdict)

    def retry_later(
        self, job_id: int, error: WsiDenoiseError, next_try: datetime, origin: str, *, counts: bool = True
    ) -> Job:
        """Queue a running job again, with a next try (:func:`wsi_denoise.jobs.retry.retry_at`).

        Without `counts` this attempt does not count: the job waits for a resource such as disk space. A job whose
        cancellation was requested is cancelled instead.

        Raises
        ------
        TransitionRefused
            If the job is not running. Only :meth:`retry` queues an ended job, because it checks for the same work.
        LeaseLost
        """
        with self.writing() as session:
            row = row_of(session, job_id)
            guard(row, origin)
            if row.state is not JobState.RUNNING:
                raise TransitionRefused(f"job {job_id} is {row.state} and not running")
            if row.cancel_requested:
                return self._move(session, row, JobState.CANCELLED, origin, str(error), error=JobCancelled())
            if not counts:
                row.attempts = max(row.attempts - 1, 0)
            return self._move(
                session, row, JobState.QUEUED, origin, str(error), kind="retry_later", error=error, next_try=next_try
            )

    def release(self, job_id: int, daemon_id: int, reason: str) -> Job:
        """Queue an unfinished job again, as at shutdown. The attempt does not count.

        A job whose cancellation was requested is cancelled instead.

        Raises
        ------
        LeaseLost
        """
        with self.writing() as session:
            row = held(session, job_id, daemon_id)
            row.attempts = max(row.attempts - 1, 0)
            return self._give_back(session, row, f"daemon:{daemon_id}", "released", reason)

    def cancelled(self, job_id: int, daemon_id: int) -> Job:
        """Cancel a running job after its work has stopped.

        Raises
        ------
        LeaseLost
        """
        with self.writing() as session:
            row = held(session, job_id, daemon_id)
            origin = f"daemon:{daemon_id}"
            return self._move(session, row, JobState.CANCELLED, origin, "stopped as asked", error=JobCancelled())


_JOBS = cast("Table", JobRow.__table__)
_NEVER = 2 * RETRY_LONGEST
_NOW = bindparam("now", type_=Utc())
_PAUSED = exists().where(PauseRow.origin.is_not(None))


def _expired(jobs: Any) -> ColumnElement[bool]:
    return and_(jobs.c.state == JobState.RUNNING, jobs.c.lease_until < _NOW)


def _late(jobs: Any) -> ColumnElement[bool]:
    return and_(jobs.c.state == JobState.RUNNING, jobs.c.lease_until > bindparam("latest", type_=Utc()))


def _due(jobs: Any) -> ColumnElement[bool]:
    # A next try is stored when an attempt ends. If one of the two times is too far in the future, the clock was put
    # back after that, and the job is due.
    ended = (
        select(AttemptRow.ended)
        .where(AttemptRow.job_id == jobs.c.id)
        .order_by(AttemptRow.number.desc())
        .limit(1)
        .scalar_subquery()
    )
    put_back = or_(jobs.c.next_try > bindparam("never", type_=Utc()), ended > bindparam("ahead", type_=Utc()))
    due = or_(jobs.c.next_try.is_(None), jobs.c.next_try <= _NOW, put_back)
    return and_(jobs.c.state == JobState.QUEUED, due)


def _ordered(condition: Callable[[Any], ColumnElement[bool]]) -> Any:
    jobs = _JOBS.alias()
    return (
        select(jobs.c.id)
        .where(condition(jobs), ~jobs.c.cancel_requested)
        .order_by(jobs.c.priority.desc(), jobs.c.created, jobs.c.id)
        .limit(1)
    )


def _first(condition: Callable[[Any], ColumnElement[bool]]) -> Any:
    return _ordered(condition).with_for_update(skip_locked=True).scalar_subquery()


# Built once: building these statements takes longer than running them, and would happen under the writer's lock.
_ANYTHING = select(
    exists().where(
        or_(
            and_(or_(_expired(_JOBS), _late(_JOBS)), or_(_JOBS.c.cancel_requested, ~_PAUSED)),
            and_(_due(_JOBS), ~_PAUSED),
        )
    )
)
_NEXT = _ordered(_due).where(~_PAUSED)
_ABANDONED = select(_JOBS.c.id).where(_expired(_JOBS), _JOBS.c.cancel_requested).with_for_update(skip_locked=True)
_EXPIRED = select(_JOBS.c.id).where(_expired(_JOBS), ~_PAUSED).with_for_update(skip_locked=True)
_TAKING: dict[str, Any] = {
    "state": JobState.RUNNING,
    "daemon_id": bindparam("daemon"),
    "lease_until": bindparam("until"),
    "started": func.coalesce(_JOBS.c.started, _NOW),
    "next_try": None,
    "error_code": None,
    "error": None,
    "attempts": _JOBS.c.attempts + 1,
}
_CLAIM = (
    update(_JOBS)
    .where(_JOBS.c.id == func.coalesce(_first(_expired), _first(_due)), ~_PAUSED)
    .values(_TAKING)
    .returning(_JOBS.c.id)
)
_TAKE = (
    update(_JOBS)
    .where(_JOBS.c.id == bindparam("only"), or_(_expired(_JOBS), _due(_JOBS)), ~_JOBS.c.cancel_requested)
    .values(_TAKING)
    .returning(_JOBS.c.id)
)
