"""Places in the job database: marked folders, the places of slides, and jobs that wait for a place."""

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
    """A folder in the job database.

    Parameters
    ----------
    path : Path
        As in the settings.
    marker : str
        Identifier in its marker file; empty for a default folder, which has no marker file.
    place : str
        A :class:`wsi_denoise.system.mounts.Place`: of its parent folder, or of a default folder itself. Empty if it
        could not be determined.
    """

    path: Path
    marker: str
    place: str


def folder(database: Database, path: Path) -> RecordedFolder | None:
    """Return the entry of a folder, or None."""
    with database.reading() as session:
        row = session.get(FolderRow, str(path))
        return None if row is None else RecordedFolder(Path(row.path), row.marker, row.place)


def folders(database: Database) -> list[RecordedFolder]:
    """Return the entries of all folders."""
    with database.reading() as session:
        rows = session.scalars(select(FolderRow).order_by(FolderRow.path))
        return [RecordedFolder(Path(row.path), row.marker, row.place) for row in rows]


def record(database: Database, recorded: RecordedFolder, origin: str, now: datetime) -> None:
    """Add a folder, or replace its marker and place."""
    with database.writing(lock=f"folder {recorded.path}") as session:
        session.merge(FolderRow(path=str(recorded.path), marker=recorded.marker, place=recorded.place, since=now))
        message = f"{recorded.path} is a folder of this database from now on"
        session.add(EventRow(job_id=None, time=now, origin=origin, kind="folder", message=message, data={}))


def place_of(database: Database, job_id: int) -> str | None:
    """Return the place of a job's slide, or None if it was not recorded."""
    with database.reading() as session:
        return session.scalar(select(SlideRow.place).join(JobRow).where(JobRow.id == job_id))


def note_place(database: Database, job_id: int, place: str) -> None:
    """Change the place of a job's slide, for example after a share was mounted over its folder."""
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
    """Make queued jobs due whose missing place is back, and return their numbers.

    Parameters
    ----------
    origin, reason : str
        Values of the event.
    codes : collection of str
        Error codes of the waiting jobs.
    jobs : collection of int, optional
        Numbers of the jobs to resume; all by default.
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
    """Return the output paths of the newest done jobs below a folder."""
    below = JobRow.output.startswith(f"{path}/", autoescape=True)
    newest = select(JobRow.output).where(JobRow.state == JobState.DONE, below).order_by(JobRow.id.desc()).limit(limit)
    with database.reading() as session:
        return [Path(output) for output in session.scalars(newest) if output is not None]
