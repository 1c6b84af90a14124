"""Remove the finished blocks of ended jobs, and old jobs, after the periods in the settings.

Originals and outputs are never removed. A job whose slide is still in its place is kept, as the slide would otherwise
count as new. A job whose output still exists is kept, as the output could not be verified otherwise.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from wsi_denoise.intake.scan import is_gone
from wsi_denoise.jobs import places, pruning
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import Job
from wsi_denoise.settings import Settings
from wsi_denoise.system import clocks
from wsi_denoise.system.mounts import Places

_log = logging.getLogger(__name__)

EVERY = timedelta(days=1)
_SPOOL = re.compile(r"([0-9a-f]{20})-[0-9a-f]{20}")
_NEEDED = frozenset({JobState.SETTLING, JobState.QUEUED, JobState.RUNNING})


@dataclass(frozen=True)
class Tidied:
    """What was removed, or would be removed.

    Parameters
    ----------
    spools : tuple of Path
        Folders of finished blocks.
    size : int
        Bytes in them.
    jobs : tuple of int
        Numbers of the jobs removed from the job database.
    """

    spools: tuple[Path, ...] = ()
    size: int = 0
    jobs: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.spools or self.jobs)

    def __str__(self) -> str:
        return f"{len(self.spools)} folders of finished blocks ({self.size / 1e6:.1f} MB), {len(self.jobs)} old jobs"


def tidy(settings: Settings, store: JobStore, now: datetime, *, origin: str, dry: bool = False) -> Tidied:
    """Remove what is older than the periods in the settings.

    Parameters
    ----------
    settings : Settings
        Uses ``jobs.keep_spool_days`` and ``jobs.keep_days``; 0 keeps indefinitely.
    now : datetime
        With a time zone.
    origin : str
        Origin of the event.
    dry : bool
        Only return what would be removed.

    Raises
    ------
    StoreError
    """
    spool_end, jobs_end = (_before(now, days) for days in (settings.jobs.keep_spool_days, settings.jobs.keep_days))
    if not dry:
        _date_anew(settings.jobs.state / "spool", now)
    spools = list(_old_spools(settings, store, spool_end)) if spool_end else []
    jobs = list(_old_jobs(settings, store, jobs_end)) if jobs_end else []
    found = Tidied(tuple(spools), sum(_size(folder) for folder in spools), tuple(job.id for job in jobs))
    if dry or not found:
        return found
    for folder in spools:
        shutil.rmtree(folder, ignore_errors=True)
    if jobs:
        pruning.remove(store, found.jobs, origin, now)
        for job in jobs:
            for file in _made_for(settings, job):
                with suppress(OSError):
                    file.unlink(missing_ok=True)
    _log.info("tidied: %s", found)
    return found


class Tidying:
    """Tidy once a day while a daemon runs."""

    def __init__(self, settings: Settings, store: JobStore, origin: str) -> None:
        self._settings, self._store, self._origin = settings, store, origin
        self._last: datetime | None = None

    def look(self, now: datetime | None = None) -> None:
        """Tidy if a day has passed since the last time.

        Raises
        ------
        StoreError
        """
        now = now or datetime.now(UTC)
        if self._last is not None and self._last <= now < self._last + EVERY:
            return
        self._last = now
        tidy(self._settings, self._store, now, origin=self._origin)


def _before(now: datetime, days: float) -> datetime | None:
    """Return the time `days` ago; None for 0, which keeps everything, and for times before the calendar begins."""
    try:
        return now - timedelta(days=days) if days else None
    except OverflowError:
        return None


def _date_anew(spools: Path, now: datetime) -> None:
    """Set the time of folders from the future to now: they would otherwise be kept years too long."""
    latest = (now + clocks.SKEW).timestamp()
    for folder in spools.glob("*"):
        with suppress(OSError):
            if folder.lstat().st_mtime > latest:
                os.utime(folder, follow_symlinks=False)


def _old_spools(settings: Settings, store: JobStore, before: datetime) -> Iterator[Path]:
    for folder in sorted((settings.jobs.state / "spool").glob("*")):
        match = _SPOOL.fullmatch(folder.name)
        if match and _changed(folder) < before.timestamp() and _NEEDED.isdisjoint(store.states_of(match[1])):
            yield folder


def _old_jobs(settings: Settings, store: JobStore, before: datetime) -> Iterator[Job]:
    for job, superseded in pruning.over_since(store, before):
        output = Path(job.output) if job.output else None
        output_is_gone = output is None or (
            not os.path.lexists(output) and _was_taken_from(output, [settings.output.folder])
        )
        slide = Path(job.slide)
        original_is_gone = superseded or (
            is_gone(slide)
            and _was_taken_from(slide, settings.intake.inbox)
            and not Places(settings.intake.inbox).doubt(slide, places.place_of(store, job.id))
        )
        if output_is_gone and original_is_gone:
            yield job


def _was_taken_from(missing: Path, roots: Iterable[Path]) -> bool:
    """Return whether a missing file was removed, rather than its share unmounted.

    If the share is unmounted, its folders are missing, and the mount point is empty or missing too.
    """
    return missing.parent.is_dir() and not any(_is_empty(root) for root in roots if missing.is_relative_to(root))


def _is_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def _made_for(settings: Settings, job: Job) -> Iterator[Path]:
    """Yield the files in the state folder that belong to a job."""
    for folder in ("maps", "overviews"):
        for name in (f"{job.id}.*", f".{job.id}.*"):  # and what a killed process left half written
            yield from (settings.jobs.state / folder).glob(name)


def _changed(folder: Path) -> float:
    try:
        return folder.lstat().st_mtime
    except OSError:
        return float("inf")


def _size(folder: Path) -> int:
    total = 0
    with suppress(OSError):
        total = sum(file.stat().st_size for file in folder.iterdir())
    return total
