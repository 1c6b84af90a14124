"""Removal of old jobs from the job database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import aliased

from wsi_denoise.jobs.database.engine import Database
from wsi_denoise.jobs.database.models import AttemptRow, EventRow, JobRow, MetricRow, SlideRow
from wsi_denoise.jobs.figures import chunks
from wsi_denoise.jobs.history import value
from wsi_denoise.jobs.states import OVER
from wsi_denoise.jobs.values import Job


def over_since(database: Database, before: datetime) -> list[tuple[Job, bool]]:
    """Return the jobs that ended before a time and that no other job refers to, lowest number first.

    Returns
    -------
    list of (Job, bool)
        Each job, and whether a newer job of the same path exists that is not a trial.
    """
    newer, other = aliased(JobRow), aliased(SlideRow)
    stands = (newer.id > JobRow.id, newer.region.is_(None))  # a trial does not represent the file
    has_newer = exists().where(newer.slide_id == other.id, other.path == SlideRow.path, *stands)
    referring = aliased(JobRow)
    rows = (
        select(JobRow, has_newer)
        .join(JobRow.slide)
        .where(JobRow.state.in_(OVER), JobRow.finished < before, ~exists().where(referring.duplicate_of == JobRow.id))
        .order_by(JobRow.id)
    )
    with database.reading() as session:
        return [(value(session, row), bool(superseded)) for row, superseded in session.execute(rows)]


def remove(database: Database, job_ids: Sequence[int], origin: str, now: datetime) -> int:
    """Delete ended jobs with their events, attempts and metrics from the database, and return how many.

    Output files are kept. The removal adds an event of kind ``tidied``.
    """
    removed = 0
    for part in chunks(list(job_ids)):
        with database.writing() as session:
            gone = list(session.scalars(select(JobRow.id).where(JobRow.id.in_(part), JobRow.state.in_(OVER))))
            slides = list(session.scalars(select(JobRow.slide_id).where(JobRow.id.in_(gone))))
            for table in (MetricRow, EventRow, AttemptRow):
                session.execute(delete(table).where(table.job_id.in_(gone)))
            session.execute(delete(JobRow).where(JobRow.id.in_(gone)))
            unused = ~exists().where(JobRow.slide_id == SlideRow.id)
            session.execute(delete(SlideRow).where(SlideRow.id.in_(slides), unused))
            removed += len(gone)
            if gone:
                message = f"{len(gone)} old jobs were removed from the job database"
                what = {"origin": origin, "kind": "tidied", "message": message, "data": {"jobs": len(gone)}}
                session.add(EventRow(job_id=None, time=now, **what))
    return removed
