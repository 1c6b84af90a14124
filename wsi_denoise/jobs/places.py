"""Places in the job database: marked folders, where slides were seen, and jobs that wait for a place."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import select

from wsi_denoise.jobs.database.engine import Database
from wsi_denoise.jobs.database.models import EventRow, FolderRow, JobRow, SlideRow
from wsi_denoise.jobs.figures import chunks
from wsi_denoise.jobs.states import JobState


@dataclass(frozen=True)
class RecordedFolder:
    """A folder that was marked.

    Parameters
    ----------
    path : Path
        As the settings name it.
    marker : str
        Identifier in its marker file; empty for our own default, which has none.
    place : str
        A :class:`wsi_denoise.system.mounts.Place`: of the folder above it, or of the default itself. Empty where that
        could not be determined.
    """

    path: Path
    marker: str
    place: str


def folder(database: Database, path: Path) -> RecordedFolder | None:
    """Return what is recorded of a folder, or None."""
    with database.reading() as session:
        row = session.get(FolderRow, str(path))
        return None if row is None else RecordedFolder(Path(row.path), row.marker, row.place)


def folders(database: Database) -> list[RecordedFolder]:
    """Return every marked folder."""
    with database.reading() as session:
        rows = session.scalars(select(FolderRow).order_by(FolderRow.path))
        return [RecordedFolder(Path(row.path), row.marker, row.place) for row in rows]


def record(database: Database, recorded: RecordedFolder, origin: str, now: datetime) -> None:
    """Record a marked folder, or its new marker."""
    with database.writing(lock=f"folder {recorded.path}") as session:
        session.merge(FolderRow(path=str(recorded.path), marker=recorded.marker, place=recorded.place, since=now))
        message = f"{recorded.path} is a folder of this database from now on"
        session.add(EventRow(job_id=None, time=now, origin=origin, kind="folder", message=message, data={}))


def place_of(database: Database, job_id: int) -> str | None:
    """Return the place that a job's slide was seen in; None where it was not recorded."""
    with database.reading() as session:
        return session.scalar(select(SlideRow.place).join(JobRow).where(JobRow.id == job_id))


def note_place(database: Database, job_id: int, place: str) -> None:
    """Record that a slide is now seen in another place, such as a share that was mounted over its folder."""
    with database.writing() as session:
        row = session.get(JobRow, job_id)
        if row is not None:
            row.slide.place = place


def resume(
    database: Database,
    origin: str,
    reason: str,
    now: datetime,
    *,
    codes: Collection[str],
    jobs: Collection[int] | None = None,
) -> list[int]:
    """Make queued jobs due that wait because of a place that is there again, and return their numbers.

    Parameters
    ----------
    database : Database
    origin, reason : str
        Of the event.
    now : datetime
    codes : collection of str
        Error codes that the jobs wait with.
    jobs : collection of int, optional
        Only these.
    """
    due: list[int] = []
    waiting = select(JobRow).where(
        JobRow.state == JobState.QUEUED, JobRow.next_try.is_not(None), JobRow.error_code.in_(codes)
    )
    for part in [None] if jobs is None else chunks(sorted(jobs)):
        wanted = waiting if part is None else waiting.where(JobRow.id.in_(part))
        with database.writing() as session:
            for row in session.scalars(wanted.order_by(JobRow.id).with_for_update(of=JobRow)):
                row.next_try = None
                event = {"origin": origin, "kind": "retry", "message": f"tried now: {reason}"}
                session.add(EventRow(job_id=row.id, time=now, data={}, **event))
                due.append(row.id)
    return due


def outputs_below(database: Database, path: Path, *, limit: int) -> list[Path]:
    """Return the outputs of the newest done jobs that were written below a folder."""
    below = JobRow.output.startswith(f"{path}/", autoescape=True)
    newest = select(JobRow.output).where(JobRow.state == JobState.DONE, below).order_by(JobRow.id.desc()).limit(limit)
    with database.reading() as session:
        return [Path(output) for output in session.scalars(newest) if output is not None]
