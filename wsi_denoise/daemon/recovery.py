"""Clean up after daemons that died: jobs, finished blocks, partial outputs, missing quarantine notes.

Runs at the start of a daemon and logs what it does. Files that a job may still need are kept. A file that this database
does not know may belong to another program: it is removed only after a day without a change.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from wsi_denoise.errors import SourceError, WsiDenoiseError, every_error
from wsi_denoise.intake.quarantine import Quarantine
from wsi_denoise.intake.scan import lies_in
from wsi_denoise.intake.slide_files import is_unchanged
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import DaemonInfo, Job, JobQuery
from wsi_denoise.settings import Settings
from wsi_denoise.system import clocks
from wsi_denoise.system.process import identity, is_gone

_log = logging.getLogger(__name__)

STRANGE_SECONDS = 24 * 3600.0
ELSEWHERE = timedelta(seconds=30)
"""A daemon of an earlier boot, or of another machine of the same name, counts as dead after this silence."""

_WANT_BLOCKS = frozenset({JobState.SETTLING, JobState.QUEUED, JobState.RUNNING, JobState.FAILED, JobState.CANCELLED})
"""A user may retry a failed or cancelled job, which then resumes from its blocks. Retention removes old ones."""
_WANT_PARTIAL = frozenset({JobState.RUNNING})
"""A partial output belongs to one attempt. Later attempts do not resume from it."""

_SPOOL = re.compile(r"(?P<slide>[0-9a-f]{20})-[0-9a-f]{20}")
_PARTIAL = re.compile(rf"\.{_SPOOL.pattern}(\.[0-9a-f]{{8}}-[0-9a-f]{{8}})?\.part")
"""Earlier versions omitted the optional group."""


def recover(store: JobStore) -> list[int]:
    """Release the jobs of daemons of this machine that died, and return the numbers of these jobs.

    Their leases need not expire then. If a death is uncertain, the lease decides, as for daemons on other machines.
    """
    freed: list[int] = []
    for daemon in store.daemons():
        if daemon.host == socket.gethostname() and is_dead(daemon, datetime.now(UTC)):
            jobs = store.stop_daemon(daemon.id, origin="recovery", reason="died without a word", died=True)
            if jobs:
                _log.warning(
                    "daemon %d died; taken up again: %s", daemon.id, ", ".join(f"job {number}" for number in jobs)
                )
            freed += jobs
    return freed


def is_dead(daemon: DaemonInfo, now: datetime) -> bool:
    """Return whether the process of a daemon of this machine has certainly ended."""
    here, there = identity(), daemon.facts
    if there.get("boot") and there["boot"] != here["boot"]:
        return clocks.silence(daemon.heartbeat, now) > ELSEWHERE
    if there.get("namespace") and there["namespace"] != here["namespace"]:
        return False  # a container has its own process numbers
    return is_gone(daemon.pid, there)


def sweep(
    settings: Settings,
    store: JobStore,
    stop: threading.Event | None = None,
    *,
    quarantine: Quarantine | None = None,
) -> list[str]:
    """Remove files that no job needs, write missing notes, and return sentences about what was done.

    Raises
    ------
    StoreError
    """
    stop = stop or threading.Event()
    done = []
    for folder in sorted((settings.jobs.state / "spool").glob("*")):
        if stop.is_set():
            break
        match = _SPOOL.fullmatch(folder.name)
        if match and not _is_wanted(folder, match["slide"], store, _WANT_BLOCKS):
            shutil.rmtree(folder, ignore_errors=True)
            done.append(f"removed the finished blocks of a slide without a job: {folder.name}")
    for file, slide in _partials(settings.output.folder, stop):
        if not _is_wanted(file, slide, store, _WANT_PARTIAL):
            file.unlink(missing_ok=True)
            done.append(f"removed a partial output: {file.name}")
    quarantine = quarantine or Quarantine(settings.intake.quarantine)
    done += write_notes(settings, store, quarantine, stop)
    for line in done:
        _log.warning("found after a crash: %s", line)
    return done


def write_notes(settings: Settings, store: JobStore, quarantine: Quarantine, stop: threading.Event) -> list[str]:
    """Write the missing notes of quarantined slides, and return sentences about what was done.

    Raises
    ------
    StoreError
    """
    return [
        f"wrote the missing quarantine note of job {job.id}"
        for job in _quarantined(settings, store)
        if not stop.is_set() and _put_note(quarantine, job)
    ]


def _is_wanted(path: Path, slide: str, store: JobStore, wanted: frozenset[JobState]) -> bool:
    states = store.states_of(slide)
    if states:
        return not wanted.isdisjoint(states)
    try:
        return clocks.age(path.stat().st_mtime, time.time()) < STRANGE_SECONDS
    except OSError:
        return True


def _partials(folder: Path, stop: threading.Event) -> Iterator[tuple[Path, str]]:
    for here, _, names in os.walk(folder):
        if stop.is_set():
            return
        for name in names:
            match = _PARTIAL.fullmatch(name)
            if match:
                yield Path(here) / name, match["slide"]


def _quarantined(settings: Settings, store: JobStore) -> Iterator[Job]:
    """Yield quarantined jobs whose files are in an inbox, unchanged: a later file of the same name is not at fault."""
    jobs = store.jobs(JobQuery(states=(JobState.QUARANTINED,), limit=None)).jobs
    newest = {known.job_id for known in store.known([job.slide for job in jobs]).values()}
    for job in jobs:
        if job.id in newest and lies_in(Path(job.slide), settings.intake.inbox) and _is_as_it_was(job):
            yield job


def _is_as_it_was(job: Job) -> bool:
    try:
        return is_unchanged(Path(job.slide), job.size_bytes, job.mtime_ns)
    except SourceError:
        return False


def _put_note(quarantine: Quarantine, job: Job) -> bool:
    slide, relative = Path(job.slide), Path(job.relative)
    if quarantine.has_note(slide, relative):
        return False
    try:
        quarantine.put(
            slide,
            relative,
            error_of(job),
            job_id=job.id,
            time=job.finished or datetime.now(UTC),
        )
    except WsiDenoiseError as failure:
        _log.warning("job %d: %s", job.id, failure)
        return False
    return True


def error_of(job: Job) -> WsiDenoiseError:
    """Return the error that a job ended with, from its code and text in the job database."""
    kind = next((each for each in every_error() if each.code == job.error_code), WsiDenoiseError)
    detail = (job.error or "").removeprefix(kind.happened).removesuffix(kind.advice)
    return kind(detail.strip().removeprefix(":").removesuffix(".").strip())
