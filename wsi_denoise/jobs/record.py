"""Changes of a job's state, each checked and stored with an event.

Only ``Record._move`` and the claim in work.py change a state. Measurements of running work (a growing file, finished
blocks, heartbeats) change no state and add no event.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select, true
from sqlalchemy.orm import Session

from wsi_denoise.errors import JobCancelled, LeaseLost, NoSuchJob, WsiDenoiseError
from wsi_denoise.jobs import retry, states
from wsi_denoise.jobs.database.models import AttemptRow, DaemonRow, EventRow, JobRow, SlideRow
from wsi_denoise.jobs.history import History, value
from wsi_denoise.jobs.states import OVER, JobState
from wsi_denoise.jobs.values import Job, iso

LEASE = "lease_seconds"
"""Key in a daemon's facts: the length of its leases in seconds."""


def utc_now() -> datetime:
    """Return the current time in UTC, with its time zone."""
    return datetime.now(UTC)


class Record(History):
    """Transitions of jobs between states.

    Parameters
    ----------
    url : str
        SQLAlchemy URL of an SQLite file or a PostgreSQL database.
    clock : callable, optional
        Returns the current time with a time zone; the system clock by default.
    """

    def __init__(self, url: str, *, clock: Callable[[], datetime] = utc_now) -> None:
        super().__init__(url)
        self._clock = clock

    def _give_back(
        self, session: Session, row: JobRow, origin: str, kind: str, reason: str, next_try: datetime | None = None
    ) -> Job:
        if row.cancel_requested:
            return self._move(session, row, JobState.CANCELLED, origin, reason, error=JobCancelled())
        return self._move(session, row, JobState.QUEUED, origin, reason, kind=kind, next_try=next_try)

    def _after_death(self, session: Session, row: JobRow) -> tuple[str, datetime | None]:
        """Return the end of the event's message after a daemon died at a job, and the next try (None: at once)."""
        attempts = select(AttemptRow).where(AttemptRow.job_id == row.id).order_by(AttemptRow.number)
        count = retry.deaths(session.scalars(attempts).all(), again=True)
        said = f"; {count} in a row before a block was finished" if count > 1 else ""
        return said, retry.after_deaths(count, self._clock())

    def _move(
        self,
        session: Session,
        row: JobRow,
        new: JobState,
        origin: str,
        message: str,
        *,
        kind: str = "",
        error: WsiDenoiseError | None = None,
        next_try: datetime | None = None,
        **data: Any,
    ) -> Job:
        old = row.state
        states.check(old, new)
        kind = kind or new.value
        if old is JobState.RUNNING:
            self._close_attempt(session, row, kind, error)
        row.state = new
        row.daemon_id = row.lease_until = row.seconds_left = None
        row.next_try = next_try
        row.cancel_requested = False
        row.finished = self._clock() if new in OVER else None
        row.error_code, row.error = (error.code, str(error)) if error is not None else (None, None)
        if error is not None:
            data["error_code"] = error.code
        if next_try is not None:
            data["next_try"] = iso(next_try)
        self._record(session, row, origin, kind, message, **{"from": old, "to": new}, **data)
        return value(session, row)

    def _close_attempt(
        self, session: Session, row: JobRow, outcome: str, error: WsiDenoiseError | None
    ) -> AttemptRow | None:
        attempt = open_attempt(session, row)
        if attempt is not None:
            attempt.ended, attempt.outcome = self._clock(), outcome
            if error is not None:
                attempt.error_code, attempt.error = error.code, str(error)
        return attempt

    def _record(self, session: Session, row: JobRow | None, origin: str, kind: str, message: str, **data: Any) -> None:
        session.add(
            EventRow(
                job_id=None if row is None else row.id,
                time=self._clock(),
                origin=origin,
                kind=kind,
                message=message,
                data=data,
            )
        )


def lease_of(session: Session, row: JobRow, default: timedelta) -> timedelta:
    """Return the length of a running job's lease from its daemon's facts, else `default`."""
    daemon = session.get(DaemonRow, row.daemon_id)
    stated = None if daemon is None else daemon.facts.get(LEASE)
    return timedelta(seconds=stated) if isinstance(stated, int | float) else default


def row_of(session: Session, job_id: int) -> JobRow:
    """Return a job's row, locked until the transaction ends, or raise NoSuchJob."""
    row = session.get(JobRow, job_id, with_for_update={"of": JobRow})
    if row is None:
        raise NoSuchJob(str(job_id))
    return row


def held(session: Session, job_id: int, daemon_id: int) -> JobRow:
    """Return the row of a running job if this daemon holds its lease, or raise LeaseLost."""
    row = row_of(session, job_id)
    if row.state is not JobState.RUNNING or row.daemon_id != daemon_id:
        raise LeaseLost(f"job {job_id} is {row.state}, daemon {daemon_id} does not hold it")
    return row


def guard(row: JobRow, origin: str) -> None:
    """Raise LeaseLost if `origin` is a daemon and another daemon runs the job."""
    if row.state is JobState.RUNNING and origin.startswith("daemon:") and origin != f"daemon:{row.daemon_id}":
        raise LeaseLost(f"job {row.id} is held by daemon {row.daemon_id}, not by {origin}")


def row_for(session: Session, job_id: int, holder: int | None) -> JobRow:
    """Return the row of a job, or raise LeaseLost if a `holder` is given that no longer holds it."""
    return row_of(session, job_id) if holder is None else held(session, job_id, holder)


def row_to_end(session: Session, job_id: int, origin: str, holder: int | None) -> JobRow:
    """Return the row of a job that is to end, or raise LeaseLost if another daemon runs it or `holder` lost it."""
    row = row_for(session, job_id, holder)
    guard(row, origin)
    return row


def open_attempt(session: Session, row: JobRow) -> AttemptRow | None:
    """Return the running attempt of a job."""
    return session.scalar(select(AttemptRow).where(AttemptRow.job_id == row.id, AttemptRow.ended.is_(None)))


def same_key(row: JobRow) -> tuple[str | None, str, str, str | None]:
    """Return the values that two jobs of the same work share: fingerprint, settings hash, preset, region."""
    return row.slide.fingerprint, row.settings_hash, row.preset, row.region


def same_work(
    session: Session, row: JobRow, among: Sequence[JobState], *, without: Collection[int] = ()
) -> JobRow | None:
    """Return the oldest other job of the same work in one of the states `among`, except those in `without`."""
    fingerprint, settings_hash, preset, region = same_key(row)
    if fingerprint is None:
        return None
    # The weights of a job are unknown if an older version made it or they could not be read. It matches any weights.
    unknown = JobRow.model_checksum.is_(None)
    model = or_(unknown, JobRow.model_checksum == row.model_checksum) if row.model_checksum else true()
    same = (
        select(JobRow)
        .join(JobRow.slide)
        .where(
            model,
            SlideRow.fingerprint == fingerprint,
            JobRow.settings_hash == settings_hash,
            JobRow.preset == preset,
            JobRow.region.is_not_distinct_from(region),
            JobRow.state.in_(among),
            JobRow.id.not_in({row.id, *without}),
        )
        .order_by(JobRow.id)
        .limit(1)
    )
    return session.scalar(same)


def newer_job(session: Session, row: JobRow) -> int | None:
    """Return the number of the newest later job of the same path that is not a trial, or None."""
    newer = (SlideRow.path == row.slide.path, JobRow.id > row.id, JobRow.region.is_(None))
    return session.scalar(select(func.max(JobRow.id)).join(JobRow.slide).where(*newer))


def detach(session: Session, row: JobRow) -> None:
    """Give a job its own slide row if other jobs share it, so that theirs keep the old content's fingerprint."""
    slide = row.slide
    if session.scalar(select(JobRow.id).where(JobRow.slide_id == slide.id, JobRow.id != row.id).limit(1)) is not None:
        size = {"size_bytes": slide.size_bytes, "mtime_ns": slide.mtime_ns}
        row.slide = SlideRow(path=slide.path, relative=slide.relative, place=slide.place, **size)


def region_text(region: tuple[int, int, int, int] | None) -> str | None:
    """Return a region (x, y, width, height) in the form of its database column."""
    return None if region is None else ",".join(map(str, region))


def finite(figure: float | None) -> float | None:
    """Return a number, or None for NaN and infinity, which JSON cannot represent."""
    return figure if figure is not None and math.isfinite(figure) else None
