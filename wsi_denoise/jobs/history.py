"""Read-only queries about jobs, events, attempts, daemons and pauses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike, fspath
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from wsi_denoise.errors import NoSuchJob, UsageError
from wsi_denoise.jobs.database.models import AttemptRow, DaemonRow, EventRow, JobRow, MetricRow, PauseRow, SlideRow
from wsi_denoise.jobs.figures import Figures, chunks, where
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import Attempt, DaemonInfo, Event, Job, JobPage, JobQuery, KnownFile

_SORTS: dict[str, InstrumentedAttribute[Any]] = {
    "created": JobRow.created,
    "started": JobRow.started,
    "finished": JobRow.finished,
    "id": JobRow.id,
    "slide": SlideRow.path,
    "size": SlideRow.size_bytes,
    "priority": JobRow.priority,
    "state": JobRow.state,
}
SORTS = tuple(_SORTS)
"""Valid sort keys of a `JobQuery`."""

_OF_SLIDES = frozenset({"slide", "size"})


class History(Figures):
    """Read-only queries of the dashboard, the command line and the daemon."""

    def job(self, job_id: int) -> Job:
        """Return one job.

        Raises
        ------
        NoSuchJob
        """
        with self.reading() as session:
            row = session.get(JobRow, job_id)
            if row is None:
                raise NoSuchJob(str(job_id))
            return value(session, row)

    def jobs(self, query: JobQuery | None = None) -> JobPage:
        """Return the jobs that match, and the number of matches without limit and offset.

        Raises
        ------
        UsageError
            For an unknown sort key.
        """
        query = query or JobQuery()
        key = query.sort.removeprefix("-")
        if key not in _SORTS:
            raise UsageError(f"jobs cannot be sorted by {key}; {', '.join(_SORTS)} can")
        descending = query.sort.startswith("-")
        by = _SORTS[key].desc().nulls_last() if descending else _SORTS[key].asc().nulls_last()
        conditions = list(where(query))
        counted = select(func.count()).select_from(JobRow)
        if query.slide:
            counted = counted.join(JobRow.slide)
        # Only the job numbers are sorted: sorting thousands of whole rows is slower.
        page = select(JobRow.id).where(*conditions).order_by(by, JobRow.id.desc())
        if query.slide or key in _OF_SLIDES:
            page = page.join(JobRow.slide)
        with self.reading() as session:
            total = session.scalar(counted.where(*conditions)) or 0
            wanted = list(session.scalars(page.limit(query.limit).offset(query.offset)))
            found = {
                row.id: row
                for part in chunks(wanted)
                for row in session.scalars(select(JobRow).where(JobRow.id.in_(part)))
            }
            # Retention may remove a job between the two queries.
            return JobPage(values(session, [found[job] for job in wanted if job in found]), total)

    def waiting(self, limit: int | None = 100) -> JobPage:
        """Return queued jobs in the order of claiming, then settling jobs.

        A queued job whose next try is in the future keeps its place, although :meth:`claim` skips it until then.
        """
        states = (JobState.QUEUED, JobState.SETTLING)
        order = (JobRow.state == JobState.SETTLING, JobRow.priority.desc(), JobRow.created, JobRow.id)
        page = select(JobRow).join(JobRow.slide).where(JobRow.state.in_(states)).order_by(*order).limit(limit)
        counted = select(func.count()).select_from(JobRow).where(JobRow.state.in_(states))
        with self.reading() as session:
            total = session.scalar(counted) or 0
            return JobPage(values(session, session.scalars(page).all()), total)

    def last_finished(self, limit: int) -> list[Job]:
        """Return the jobs that ended last, in any final state, newest first."""
        # Not filtered by state: the index on `finished` suffices, and the database does not sort every ended job.
        query = select(JobRow).where(JobRow.finished.is_not(None)).order_by(JobRow.finished.desc()).limit(limit)
        with self.reading() as session:
            return values(session, session.scalars(query).all())

    def stream(self, query: JobQuery, *, chunk: int = 500) -> Iterator[Job]:
        """Yield every job that matches, highest number first, with at most one chunk in memory.

        Each chunk is read in its own transaction, so that a slow consumer keeps no transaction open. The query's
        `sort`, `limit` and `offset` are ignored.
        """
        last: int | None = None
        while True:
            page = select(JobRow).join(JobRow.slide).where(*where(query)).order_by(JobRow.id.desc()).limit(chunk)
            with self.reading() as session:
                rows = session.scalars(page if last is None else page.where(JobRow.id < last)).all()
                found = values(session, rows)
            yield from found
            if len(found) < chunk:
                return
            last = found[-1].id

    def choices(self) -> tuple[list[str], list[str]]:
        """Return the presets and the error codes of all jobs, sorted."""
        with self.reading() as session:
            presets = session.scalars(select(JobRow.preset).distinct())
            codes = session.scalars(select(JobRow.error_code).where(JobRow.error_code.is_not(None)).distinct())
            return sorted(presets), sorted(code for code in codes if code is not None)

    def events(self, job_id: int | None = None, *, limit: int | None = None) -> list[Event]:
        """Return events, oldest first: of one job, or of every job, the queue and the daemons.

        Parameters
        ----------
        limit : int or None
            Return only this many, the newest.

        Raises
        ------
        NoSuchJob
        """
        newest = select(EventRow).order_by(EventRow.id.desc()).limit(limit)
        with self.reading() as session:
            if job_id is not None:
                _require(session, job_id)
                newest = newest.where(EventRow.job_id == job_id)
            return [
                Event(
                    id=row.id,
                    job_id=row.job_id,
                    time=row.time,
                    origin=row.origin,
                    kind=row.kind,
                    message=row.message,
                    data=row.data,
                )
                for row in reversed(session.scalars(newest).all())
            ]

    def attempts(self, job_id: int) -> list[Attempt]:
        """Return a job's attempts, oldest first.

        Raises
        ------
        NoSuchJob
        """
        with self.reading() as session:
            _require(session, job_id)
            rows = session.scalars(select(AttemptRow).where(AttemptRow.job_id == job_id).order_by(AttemptRow.number))
            return [
                Attempt(
                    number=row.number,
                    daemon=row.daemon_id,
                    started=row.started,
                    ended=row.ended,
                    outcome=row.outcome,
                    error_code=row.error_code,
                    error=row.error,
                    blocks_done=row.blocks_done,
                    blocks_resumed=row.blocks_resumed,
                )
                for row in rows
            ]

    def details(self, job_id: int) -> dict[str, Any]:
        """Return a job as JSON, with `events` and `attempt_list`, both oldest first.

        Raises
        ------
        NoSuchJob
        """
        return self.job(job_id).to_json() | {
            "events": [event.to_json() for event in self.events(job_id)],
            "attempt_list": [attempt.to_json() for attempt in self.attempts(job_id)],
        }

    def count_by_state(self) -> dict[JobState, int]:
        """Return the number of jobs in each state, zero included."""
        with self.reading() as session:
            rows = session.execute(select(JobRow.state, func.count()).group_by(JobRow.state))
            counts: dict[JobState, int] = {row[0]: row[1] for row in rows}
        return {state: counts.get(state, 0) for state in JobState}

    def count_by_error_code(self) -> dict[str, int]:
        """Return the number of failed and quarantined jobs for each error code."""
        over = (JobState.FAILED, JobState.QUARANTINED)
        counted = select(JobRow.error_code, func.count()).where(JobRow.state.in_(over), JobRow.error_code.is_not(None))
        with self.reading() as session:
            rows = session.execute(counted.group_by(JobRow.error_code).order_by(JobRow.error_code))
            return {str(row[0]): row[1] for row in rows}

    def known(self, paths: Iterable[str | PathLike[str]] | None = None) -> dict[str, KnownFile]:
        """Return the newest job of each path, for the scan. Trials on a region are left out.

        Parameters
        ----------
        paths : iterable of path, optional
            Every path in the database by default.
        """
        whole = JobRow.region.is_(None)
        newest = select(func.max(JobRow.id)).join(JobRow.slide).where(whole).group_by(SlideRow.path)
        slide = (SlideRow.size_bytes, SlideRow.mtime_ns, SlideRow.place)
        job = (JobRow.error_code, JobRow.next_try.is_not(None))
        columns = select(SlideRow.path, JobRow.id, JobRow.state, *slide, *job).join_from(JobRow, SlideRow)
        parts = [newest]
        if paths is not None:
            wanted = [fspath(path) for path in paths]
            parts = [newest.where(SlideRow.path.in_(part)) for part in chunks(wanted)]
        with self.reading() as session:
            return {
                row[0]: KnownFile(*row[1:])
                for part in parts
                for row in session.execute(columns.where(JobRow.id.in_(part)))
            }

    def paused(self) -> str | None:
        """Return the reason of the oldest pause, or None while the queue is not paused."""
        with self.reading() as session:
            row = session.scalar(select(PauseRow).order_by(PauseRow.since))
            return None if row is None else row.reason or f"paused by {row.origin}"

    def pauses(self) -> dict[str, str]:
        """Return the reason of every pause by its origin, oldest first."""
        with self.reading() as session:
            return {row.origin: row.reason for row in session.scalars(select(PauseRow).order_by(PauseRow.since))}

    def cancel_requested(self, job_id: int) -> bool:
        """Return whether a user has requested that a running job stop."""
        with self.reading() as session:
            return bool(session.scalar(select(JobRow.cancel_requested).where(JobRow.id == job_id)))

    def states_of(self, fingerprint: str) -> set[JobState]:
        """Return the states of all jobs whose fingerprint starts with these hexadecimal digits."""
        begins = SlideRow.fingerprint.startswith(fingerprint, autoescape=True)
        with self.reading() as session:
            return set(session.scalars(select(JobRow.state).join(JobRow.slide).where(begins).distinct()))

    def daemons(self, *, stopped: bool = False) -> list[DaemonInfo]:
        """Return the daemons, newest first. Daemons known to have stopped are left out unless `stopped` is true."""
        query = select(DaemonRow).order_by(DaemonRow.id.desc())
        if not stopped:
            query = query.where(DaemonRow.stopped.is_(None))
        held = select(JobRow.daemon_id, JobRow.id).where(JobRow.state == JobState.RUNNING).order_by(JobRow.id)
        with self.reading() as session:
            jobs: dict[int | None, list[int]] = {}
            for daemon, job in session.execute(held):
                jobs.setdefault(daemon, []).append(job)
            return [
                DaemonInfo(
                    id=row.id,
                    host=row.host,
                    pid=row.pid,
                    version=row.version,
                    device=row.device,
                    started=row.started,
                    heartbeat=row.heartbeat,
                    stopped=row.stopped,
                    jobs=jobs.get(row.id, []),
                    facts=row.facts,
                )
                for row in session.scalars(query)
            ]


def value(session: Session, row: JobRow) -> Job:
    """Write pending changes of a row, read it again, and return its value."""
    session.flush()
    session.refresh(row)
    session.refresh(row.slide)
    return values(session, [row])[0]


def values(session: Session, rows: Sequence[JobRow]) -> list[Job]:
    """Return the values of rows, with their metrics, in the same order."""
    metrics: dict[int, dict[str, float | None]] = {row.id: {} for row in rows}
    for part in chunks(list(metrics)):
        wanted = select(MetricRow.job_id, MetricRow.key, MetricRow.value).where(MetricRow.job_id.in_(part))
        for job, key, figure in session.execute(wanted.order_by(MetricRow.key)):
            metrics[job][key] = figure
    return [_value(row, metrics[row.id]) for row in rows]


def _value(row: JobRow, metrics: dict[str, float | None]) -> Job:
    slide = row.slide
    done = 1.0 if row.state is JobState.DONE else row.blocks_done / row.blocks_total if row.blocks_total else 0.0
    return Job(
        id=row.id,
        slide=slide.path,
        relative=slide.relative,
        state=row.state,
        verdict=row.verdict,
        reasons=row.reasons,
        preset=row.preset,
        priority=row.priority,
        progress=min(done, 1.0),
        blocks_done=row.blocks_done,
        blocks_total=row.blocks_total,
        blocks_resumed=row.blocks_resumed,
        rate=row.rate,
        seconds_left=row.seconds_left,
        created=row.created,
        started=row.started,
        finished=row.finished,
        next_try=row.next_try,
        output=row.output,
        output_sha256=row.output_sha256,
        maps=row.maps,
        attempts=row.attempts,
        error_code=row.error_code,
        error=row.error,
        metrics=metrics,
        fingerprint=slide.fingerprint,
        size_bytes=slide.size_bytes,
        mtime_ns=slide.mtime_ns,
        width=slide.width,
        height=slide.height,
        mpp=None if slide.mpp_x is None or slide.mpp_y is None else (slide.mpp_x, slide.mpp_y),
        facts=slide.facts,
        settings=row.settings,
        settings_hash=row.settings_hash,
        model_checksum=row.model_checksum,
        origin=row.origin,
        duplicate_of=row.duplicate_of,
        region=_region(row.region),
        provenance=row.provenance,
        triage=row.provenance.get("triage"),
        daemon=row.daemon_id,
        cancel_requested=row.cancel_requested,
    )


def _region(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    x, y, width, height = map(int, text.split(","))
    return x, y, width, height


def _require(session: Session, job_id: int) -> None:
    if session.scalar(select(JobRow.id).where(JobRow.id == job_id)) is None:
        raise NoSuchJob(str(job_id))
