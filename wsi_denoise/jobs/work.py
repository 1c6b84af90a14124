"""What a daemon does with jobs: claim, report, finish, give back."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from os import PathLike, fspath
from typing import Any

from sqlalchemy import and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import aliased

from wsi_denoise import __version__
from wsi_denoise.errors import JobCancelled, TransitionRefused, WsiDenoiseError
from wsi_denoise.jobs.history import value
from wsi_denoise.jobs.models import AttemptRow, DaemonRow, JobRow, MetricRow, PauseRow
from wsi_denoise.jobs.record import Record, finite, guard, held, open_attempt, row_of
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import Job


class Work(Record):
    """The side of the store that daemons use."""

    def register_daemon(
        self,
        *,
        host: str | None = None,
        pid: int | None = None,
        version: str = __version__,
        device: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> int:
        """Note a new daemon, by default this process, and return its number, never used before."""
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

    def stop_daemon(self, daemon_id: int, *, origin: str | None = None, reason: str = "stopped") -> list[int]:
        """Note that a daemon is gone, and give back what it still held.

        A daemon says so itself, or its successor on the same machine that sees its process gone: then nobody has to
        wait for the leases.

        Returns
        -------
        list of int
            Jobs that were given back.
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
                self._give_back(session, row, who, "released", f"daemon {daemon_id} {reason}")
            self._record(session, None, who, "daemon_stopped", f"daemon {daemon_id} {reason}")
            return [row.id for row in rows]

    def claim(self, daemon_id: int, lease_seconds: float) -> Job | None:
        """Take the next job, or None when there is nothing to do or the queue is paused.

        First come running jobs whose lease has expired, then the queued ones whose next try has come, by priority
        (highest first) and age.
        """
        now = self._clock()
        # Asking first, without the writer's lock: a waiting daemon asks every second, and mostly in vain.
        with self.reading() as session:
            if not session.scalar(select(exists().where(_claimable(JobRow, now)))):
                return None
        with self.writing() as session:
            abandoned = select(JobRow).where(_expired(JobRow, now), JobRow.cancel_requested).with_for_update(of=JobRow)
            for row in session.scalars(abandoned).all():
                self._move(
                    session, row, JobState.CANCELLED, f"daemon:{daemon_id}", "lease expired", error=JobCancelled()
                )
            taken = session.scalar(_claim(daemon_id, now, now + timedelta(seconds=lease_seconds)))
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

    def heartbeat(self, daemon_id: int, job_id: int | None, lease_seconds: float, *, device: str | None = None) -> bool:
        """Say that a daemon lives, and renew its lease on a job.

        Returns
        -------
        bool
            False when the lease is lost: the job was taken over, and this daemon must stop working on it.
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
        """Note how far a running job is. The caller limits itself to once a second.

        Parameters
        ----------
        blocks_done, blocks_total, blocks_resumed : int
            Blocks finished (the resumed ones included), of how many, and taken from an earlier attempt's spool.
        rate : float or None
            Megapixels per second.
        seconds_left : float or None

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
        origin: str | None = None,
    ) -> None:
        """Note what the reader found: pixels at level 0, micrometres per pixel (x, y), and other plain values."""
        with self.writing() as session:
            row = row_of(session, job_id)
            slide = row.slide
            slide.width, slide.height = width, height
            slide.mpp_x, slide.mpp_y = mpp or (None, None)
            slide.facts = dict(facts or {})
            resolution = f"{mpp[0]:g} x {mpp[1]:g} um/px" if mpp else "resolution unknown"
            who = origin or (f"daemon:{row.daemon_id}" if row.daemon_id is not None else "intake")
            self._record(session, row, who, "slide", f"{width} x {height} px, {resolution}")

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
        """End a job whose output has been verified and published. A figure that is not finite is kept as None.

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

    def retry_later(self, job_id: int, error: WsiDenoiseError, next_try: datetime, origin: str) -> Job:
        """Queue a running job again, not before a time (:func:`wsi_denoise.jobs.states.retry_at`).

        Raises
        ------
        TransitionRefused
            When the job is not running. What is over is queued again by a person's ``retry`` only, which
            looks whether another job does the same work.
        LeaseLost
        """
        with self.writing() as session:
            row = row_of(session, job_id)
            guard(row, origin)
            if row.state is not JobState.RUNNING:
                raise TransitionRefused(f"job {job_id} is {row.state} and not running")
            if row.cancel_requested:
                return self._move(session, row, JobState.CANCELLED, origin, str(error), error=JobCancelled())
            return self._move(
                session, row, JobState.QUEUED, origin, str(error), kind="retry_later", error=error, next_try=next_try
            )

    def release(self, job_id: int, daemon_id: int, reason: str) -> Job:
        """Give a running job back unfinished, as at shutdown. It does not count as an attempt.

        Raises
        ------
        LeaseLost
        """
        with self.writing() as session:
            row = held(session, job_id, daemon_id)
            row.attempts = max(row.attempts - 1, 0)
            return self._give_back(session, row, f"daemon:{daemon_id}", "released", reason)

    def cancelled(self, job_id: int, daemon_id: int) -> Job:
        """End a running job that a person wanted to stop, once the work has stopped.

        Raises
        ------
        LeaseLost
        """
        with self.writing() as session:
            row = held(session, job_id, daemon_id)
            origin = f"daemon:{daemon_id}"
            return self._move(session, row, JobState.CANCELLED, origin, "stopped as asked", error=JobCancelled())


def _expired(job: Any, now: datetime) -> Any:
    return and_(job.state == JobState.RUNNING, job.lease_until < now)


def _due(job: Any, now: datetime) -> Any:
    return and_(job.state == JobState.QUEUED, or_(job.next_try.is_(None), job.next_try <= now))


def _claimable(job: Any, now: datetime) -> Any:
    return or_(_expired(job, now), and_(_due(job, now), ~exists().where(PauseRow.origin.is_not(None))))


def _claim(daemon_id: int, now: datetime, until: datetime) -> Any:
    """Return the one statement that takes a job; two subqueries, so that each one uses the index."""

    def first(condition: Callable[[Any, datetime], Any]) -> Any:
        job = aliased(JobRow)
        return (
            select(job.id)
            .where(condition(job, now), ~job.cancel_requested)
            .order_by(job.priority.desc(), job.created, job.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )

    return (
        update(JobRow)
        .where(JobRow.id == func.coalesce(first(_expired), first(_due)), ~exists().where(PauseRow.origin.is_not(None)))
        .values(
            state=JobState.RUNNING,
            daemon_id=daemon_id,
            lease_until=until,
            started=func.coalesce(JobRow.started, now),
            next_try=None,
            error_code=None,
            error=None,
            attempts=JobRow.attempts + 1,
        )
        .returning(JobRow.id)
        .execution_options(synchronize_session=False)
    )
