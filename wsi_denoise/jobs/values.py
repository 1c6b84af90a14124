"""Results of the job store: frozen values that are independent of a database session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from wsi_denoise.jobs.states import JobState

PRIORITIES = range(-999, 1000)
"""Priorities that users may set."""

LARGEST = (1 << 63) - 1
"""The largest integer of a database: the limit of job numbers and counts."""


def iso(time: datetime | None) -> str | None:
    """Return a time as ISO 8601 in UTC with milliseconds and a final Z, or None."""
    if time is None:
        return None
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    return list(value) if isinstance(value, tuple) else value


class _Value:
    """Base of the dataclasses with a JSON form: times as ISO 8601 in UTC, tuples as lists."""

    def to_json(self) -> dict[str, Any]:
        """Return values for :func:`json.dumps`. The keys are in docs/programs/json.md."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Job(_Value):
    """One slide with one preset and one set of settings, and its progress.

    Parameters
    ----------
    id : int
        Number of the job; never reused.
    slide, relative : str
        Absolute path of the slide, and its path under the inbox.
    verdict : str or None
        ``pass``, ``review`` or ``not_needed`` once done.
    reasons : list of str
        Reasons for the verdict.
    priority : int
        Higher is earlier.
    progress : float
        0 to 1, from the blocks; 1 once done.
    blocks_done, blocks_total, blocks_resumed : int
        Finished blocks (the resumed ones included), all blocks, and blocks from an earlier attempt's spool.
    rate, seconds_left : float or None
        Megapixels per second, and the estimate of the remaining time.
    created, started, finished, next_try : datetime or None
        UTC. The file was found; a daemon first claimed the job since it was queued; the job ended; a queued job is
        not claimed before this.
    output, output_sha256, maps : str or None
        Path and checksum of the published TIFF, and path of the per-patch maps.
    attempts : int
        Attempts since intake or a user last queued it. An attempt that was released, or that waited for a resource
        such as disk space, does not count.
    error_code, error : str or None
        Stable name and text of the last error.
    metrics : dict of str to (float or None)
        Key names are in docs/programs/json.md.
    fingerprint : str or None
        SHA-256 of the slide's content; None until it has settled.
    size_bytes, mtime_ns : int
        Total size and latest modification time of the slide's files, in nanoseconds since 1970.
    width, height : int or None
        Pixels at level 0.
    mpp : (float, float) or None
        Micrometres per pixel in x and y; None if the slide does not state it.
    facts : dict
        Other values from the reader, in JSON types.
    settings, settings_hash
        The settings that change pixels, at the time of queueing, and their hash.
    origin : str
        Author of the job, such as ``daemon:3`` or ``person:cli``.
    duplicate_of : int or None
        The job with the same content and settings.
    region : (int, int, int, int) or None
        x, y, width, height in level-0 pixels, for a trial.
    provenance : dict
        Versions, model and device that made the output.
    triage : dict or None
        The decision before the work; see :class:`wsi_denoise.quality.triage.Triage`.
    daemon : int or None
        Number of the daemon that holds the lease, while running.
    cancel_requested : bool
        A user has requested that the running job stop.
    """

    id: int
    slide: str
    relative: str
    state: JobState
    verdict: str | None
    reasons: list[str]
    preset: str
    priority: int
    progress: float
    blocks_done: int
    blocks_total: int
    blocks_resumed: int
    rate: float | None
    seconds_left: float | None
    created: datetime
    started: datetime | None
    finished: datetime | None
    next_try: datetime | None
    output: str | None
    output_sha256: str | None
    maps: str | None
    attempts: int
    error_code: str | None
    error: str | None
    metrics: dict[str, float | None]
    fingerprint: str | None
    size_bytes: int
    mtime_ns: int
    width: int | None
    height: int | None
    mpp: tuple[float, float] | None
    facts: dict[str, Any]
    settings: dict[str, Any]
    settings_hash: str
    model_checksum: str | None
    origin: str
    duplicate_of: int | None
    region: tuple[int, int, int, int] | None
    provenance: dict[str, Any]
    triage: dict[str, Any] | None
    daemon: int | None
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class KnownFile:
    """The newest job of a path, for the scan.

    Parameters
    ----------
    size_bytes, mtime_ns : int
        As stored with that job.
    place : str or None
        Where the file is (:class:`wsi_denoise.system.mounts.Place`).
    error_code : str or None
        Last error of the job.
    waits : bool
        The job is queued with a time of its next try.
    """

    job_id: int
    state: JobState
    size_bytes: int
    mtime_ns: int
    place: str | None = None
    error_code: str | None = None
    waits: bool = False


@dataclass(frozen=True)
class Event(_Value):
    """One event of a job, the queue or a daemon.

    Parameters
    ----------
    job_id : int or None
        None for an event of the queue or a daemon.
    time : datetime
        UTC.
    origin : str
        Author of the event, such as ``daemon:3`` or ``person:cli``.
    kind : str
        Stable name for programs; listed in docs/programs/json.md.
    data : dict
        ``from`` and ``to`` for a change of state, and other values of this kind.
    """

    id: int
    job_id: int | None
    time: datetime
    origin: str
    kind: str
    message: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Attempt(_Value):
    """One attempt of a daemon at a job.

    Parameters
    ----------
    number : int
        From 1; continues after a user's retry.
    started, ended : datetime
        UTC; `ended` is None while it runs.
    outcome : str or None
        The job's state afterwards (``done``, ``failed``, ``quarantined``, ``cancelled``, ``settling``), or
        ``retry_later``, ``released``, ``daemon_died``, ``lease_expired``.
    blocks_done, blocks_resumed : int
        As last reported in this attempt.
    """

    number: int
    daemon: int
    started: datetime
    ended: datetime | None
    outcome: str | None
    error_code: str | None
    error: str | None
    blocks_done: int
    blocks_resumed: int


@dataclass(frozen=True)
class DaemonInfo(_Value):
    """A daemon that registered.

    Parameters
    ----------
    started, heartbeat, stopped : datetime
        UTC; `stopped` is None for a daemon that runs, or that died without a successor that noticed.
    jobs : list of int
        Running jobs whose lease it holds.
    facts : dict
        Other values that it reported about itself.
    """

    id: int
    host: str
    pid: int
    version: str
    device: str | None
    started: datetime
    heartbeat: datetime
    stopped: datetime | None
    jobs: list[int]
    facts: dict[str, Any]


@dataclass(frozen=True)
class JobQuery:
    """Filter, order and page of a job list. An empty field does not filter.

    Parameters
    ----------
    since, until : datetime or None
        First time, and the time after the last one, at which the file was found; with a time zone.
    slide : str
        Part of the path, in upper or lower case.
    limit : int or None
        Maximum number of jobs; None for all.
    offset : int
        Number of jobs to skip.
    sort : str
        One of ``created``, ``started``, ``finished``, ``id``, ``slide``, ``size``, ``priority``, ``state``; a leading
        minus reverses it. Jobs with equal keys are in descending order of number.
    """

    states: Sequence[JobState] = ()
    since: datetime | None = None
    until: datetime | None = None
    slide: str = ""
    verdict: str | None = None
    preset: str | None = None
    error_code: str | None = None
    limit: int | None = 100
    offset: int = 0
    sort: str = "-created"


@dataclass(frozen=True)
class JobPage:
    """One page of a job list.

    Parameters
    ----------
    total : int
        Number of matches without limit and offset.
    """

    jobs: list[Job]
    total: int

    def to_json(self) -> dict[str, Any]:
        """Return ``{"jobs": [...], "total": N}``."""
        return {"jobs": [job.to_json() for job in self.jobs], "total": self.total}


@dataclass(frozen=True)
class Scanner:
    """The scanner that made a slide; None for values that the file does not state.

    Parameters
    ----------
    serial_hash : str or None
        Distinguishes scanners of one model without storing a serial number.
    """

    vendor: str | None
    model: str | None
    serial_hash: str | None

    def __str__(self) -> str:
        named = " ".join(part for part in (self.vendor, self.model) if part)
        return (named or "scanner not named") + (f" #{self.serial_hash[:4]}" if self.serial_hash else "")


@dataclass(frozen=True)
class SlideFigures:
    """Selected metrics of one done slide.

    Parameters
    ----------
    created : datetime
        UTC; the time at which the slide was found.
    scan_week : str or None
        ISO week of the scan, such as ``2026-W09``.
    values : dict of str to (float or None)
        Values by name of the metric; a metric that the job lacks is omitted.
    """

    job_id: int
    relative: str
    created: datetime
    verdict: str | None
    scanner: Scanner
    scan_week: str | None
    values: dict[str, float | None]


@dataclass(frozen=True)
class TrendPoint:
    """A metric of one scanner on one day or in one week.

    Parameters
    ----------
    when : str
        ``2026-03-01`` or ``2026-W09``.
    mean, low, high : float
        Mean, minimum and maximum over the slides.
    """

    when: str
    scanner: Scanner
    mean: float
    low: float
    high: float
    slides: int
