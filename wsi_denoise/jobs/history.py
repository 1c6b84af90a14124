"""Every question about jobs; nothing here changes anything."""

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
"""What jobs can be sorted by."""

_OF_SLIDES = frozenset({"slide", "size"})


class History(Figures):
    """What is asked of the store, by page, command line and daemon."""

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
        """Return the jobs that match, and how many there are without limit and offset.

        Raises
        ------
        UsageError
            For a sort that does not exist.
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
        # Numbers first: what is sorted are thousands of numbers then, and not thousands of whole rows.
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
            # Retention may have removed one between the two questions.
            return JobPage(values(session, [found[job] for job in wanted if job in found]), total)

    def waiting(self, limit: int | None = 100) -> JobPage:
        """Return what waits, in the order in which it will be claimed; then what is still settling.

        A queued job whose next try has not come keeps its place, although it is passed over until then.
        """
        states = (JobState.QUEUED, JobState.SETTLING)
        order = (JobRow.state == JobState.SETTLING, JobRow.priority.desc(), JobRow.created, JobRow.id)
        page = select(JobRow).join(JobRow.slide).where(JobRow.state.in_(states)).order_by(*order).limit(limit)
        counted = select(func.count()).select_from(JobRow).where(JobRow.state.in_(states))
        with self.reading() as session:
            total = session.scalar(counted) or 0
            return JobPage(values(session, session.scalars(page).all()), total)

    def last_finished(self, limit: int) -> list[Job]:
        """Return what was over last, in whatever way, newest first."""
        # By the index on this column alone: with the states as well, every job that is over would be sorted.
        query = select(JobRow).where(JobRow.finished.is_not(None)).order_by(JobRow.finished.desc()).limit(limit)
        with self.reading() as session:
            return values(session, session.scalars(query).all())

    def stream(self, query: JobQuery, *, chunk: int = 500) -> Iterator[Job]:
        """Yield every job that matches, newest number first, without ever holding more than a chunk.

        Each chunk is a look of its own: a reader that takes its time keeps no transaction open. Sort, limit and offset
        of the query are not looked at.
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
        """Return the presets and the error codes that occur among the jobs, in order."""
        with self.reading() as session:
            presets = session.scalars(select(JobRow.preset).distinct())
            codes = session.scalars(select(JobRow.error_code).where(JobRow.error_code.is_not(None)).distinct())
            return sorted(presets), sorted(code for code in codes if code is not None)

    def events(self, job_id: int | None = None, *, limit: int | None = None) -> list[Event]:
        """Return a job's events, oldest first; without a job, those of every job, the queue and the daemons.

        Parameters
        ----------
        job_id : int or None
        limit : int or None
            Only the newest so many.

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
        """Return how many jobs there are in each state, zero included."""
        with self.reading() as session:
            rows = session.execute(select(JobRow.state, func.count()).group_by(JobRow.state))
            counts: dict[JobState, int] = {row[0]: row[1] for row in rows}
        return {state: counts.get(state, 0) for state in JobState}

    def count_by_error_code(self) -> dict[str, int]:
        """Return how many failed and quarantined jobs there are for each error code."""
        over = (JobState.FAILED, JobState.QUARANTINED)
        counted = select(JobRow.error_code, func.count()).where(JobRow.state.in_(over), JobRow.error_code.is_not(None))
        with self.reading() as session:
            rows = session.execute(counted.group_by(JobRow.error_code).order_by(JobRow.error_code))
            return {str(row[0]): row[1] for row in rows}

    def known(self, paths: Iterable[str | PathLike[str]] | None = None) -> dict[str, KnownFile]:
        """Return the newest job of each path, for the scan. A trial on a region does not stand for the slide.

        Parameters
        ----------
        paths : iterable of path, optional
            Only these; without it every path that ever had a job.
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
        """Return why the queue is paused, or None when it is not."""
        with self.reading() as session:
            row = session.scalar(select(PauseRow).order_by(PauseRow.since))
            return None if row is None else row.reason or f"paused by {row.origin}"

    def pauses(self) -> dict[str, str]:
        """Return every pause: who asked for it, and why."""
        with self.reading() as session:
            return {row.origin: row.reason for row in session.scalars(select(PauseRow).order_by(PauseRow.since))}

    def cancel_requested(self, job_id: int) -> bool:
        """Return whether a person wants a running job to stop."""
        with self.reading() as session:
            return bool(session.scalar(select(JobRow.cancel_requested).where(JobRow.id == job_id)))

    def states_of(self, fingerprint: str) -> set[JobState]:
        """Return the states of all jobs whose slide's fingerprint begins like this, in hexadecimal digits."""
        begins = SlideRow.fingerprint.startswith(fingerprint, autoescape=True)
        with self.reading() as session:
            return set(session.scalars(select(JobRow.state).join(JobRow.slide).where(begins).distinct()))

    def daemons(self, *, stopped: bool = False) -> list[DaemonInfo]:
        """Return the daemons, newest first; those that said goodbye only when asked for."""
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
    """Return the value of one row, as it is in the database."""
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
