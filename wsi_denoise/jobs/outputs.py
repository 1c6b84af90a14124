"""Checks of whether the outputs in the job database still exist."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Protocol

from sqlalchemy import select

from wsi_denoise.jobs import places
from wsi_denoise.jobs.database.engine import Database
from wsi_denoise.jobs.database.models import JobRow, SlideRow
from wsi_denoise.jobs.history import value
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import Job
from wsi_denoise.system.mounts import is_on_same_mount, read_marker

_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR})


class WithOutput(Protocol):
    """The part of a job that these functions use."""

    @property
    def output(self) -> str | None: ...  # noqa: D102


def done(database: Database, fingerprint: str) -> list[Job]:
    """Return the done jobs of a slide's content."""
    wanted = select(JobRow).join(JobRow.slide).where(JobRow.state == JobState.DONE)
    with database.reading() as session:
        rows = session.scalars(wanted.where(SlideRow.fingerprint == fingerprint).order_by(JobRow.id)).all()
        return [value(session, row) for row in rows]


def with_checksum(database: Database, sha256: str) -> Job | None:
    """Return the newest done job that wrote a file of this content, wherever the file is now."""
    wanted = select(JobRow).where(JobRow.state == JobState.DONE, JobRow.output_sha256 == sha256)
    with database.reading() as session:
        row = session.scalar(wanted.order_by(JobRow.id.desc()).limit(1))
        return None if row is None else value(session, row)


def is_removed(database: Database, job: WithOutput) -> bool:
    """Return whether a job's output was removed: the file is missing, and its folder exists.

    An output on a share that is not mounted does not count as removed.
    """
    output = Path(job.output or "")
    return job.output is not None and _is_missing(output) and _is_there(database, output) and _is_missing(output)


def whereabouts(database: Database, job: WithOutput) -> str:
    """Return a sentence that says where a job's output is, or why that is unknown."""
    if job.output is None or not _is_missing(Path(job.output)):
        return f"its output is {job.output}"
    if is_removed(database, job):
        return f"its output {job.output} was removed"
    return f"its output {job.output} is not to be seen: its folder is not there, or its share not mounted"


def _is_missing(output: Path) -> bool:
    try:
        output.lstat()
    except OSError as error:
        return error.errno in _MISSING
    return False


def _is_there(database: Database, output: Path) -> bool:
    known = [folder for folder in places.folders(database) if output.is_relative_to(folder.path)]
    if known:
        nearest = max(known, key=lambda folder: len(folder.path.parts))
        if not nearest.marker:  # a default folder, which users delete as a whole
            return is_on_same_mount(nearest.path, nearest.place, any_host=database.file is not None)
        try:
            return read_marker(nearest.path) == nearest.marker
        except OSError:
            return False
    if output.parent == output.parent.parent:
        return False
    try:
        # Older versions did not mark folders. An empty folder may be the mount point of an unmounted share.
        with os.scandir(output.parent) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
