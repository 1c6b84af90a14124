"""What the store gives out: frozen values, never rows that are tied to a session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from wsi_denoise.jobs.states import JobState

PRIORITIES = range(-999, 1000)
"""What people may set."""

LARGEST = (1 << 63) - 1
"""What a database counts to: there are no larger numbers of jobs, nor more of them."""


def iso(time: datetime | None) -> str | None:
    """Return ISO 8601 in UTC with milliseconds and a final Z, or None."""
    if time is None:
        return None
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    return list(value) if isinstance(value, tuple) else value


class _Value:
    """Gives a frozen dataclass its JSON form: times as ISO 8601 in UTC, tuples as lists."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values that :func:`json.dumps` takes. The keys are in docs/programs/json.md."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Job(_Value):
    """One slide to be denoised in one way, and how far it has come.

    Parameters
    ----------
    id : int
        Number of the job; never used again.
    slide, relative : str
        Absolute path of the slide, and its path under the inbox.
    state : JobState
    verdict : str or None
        ``pass``, ``review`` or ``not_needed`` once done.
    reasons : list of str
        Why the verdict is what it is.
    preset : str
    priority : int
        Higher is earlier.
    progress : float
        0 to 1, from the blocks; 1 once done.
    blocks_done, blocks_total, blocks_resumed : int
        Blocks finished (the resumed ones included), of how many, and taken over from an earlier attempt's spool.
    rate, seconds_left : float or None
        Megapixels per second, and the estimate of what is left.
    created, started, finished, next_try : datetime or None
        When the file was seen, first claimed since it was queued, over; and when a queued job may be tried again. UTC.
    output, output_sha256, maps : str or None
        Path and checksum of the published TIFF, and path of the per-patch maps.
    attempts : int
        How often it was started since it was last queued by intake or by a person.
    error_code, error : str or None
        What went wrong last and what to do.
    metrics : dict of str to (float or None)
        Key names are in docs/programs/json.md.
    fingerprint : str or None
        SHA-256 of the slide's content; None until it has settled.
    size_bytes, mtime_ns : int
        Of all its files: total size, and latest modification in nanoseconds since 1970.
    width, height : int or None
        Pixels at level 0.
    mpp : (float, float) or None
        Micrometres per pixel in x and y; None where the slide does not say.
    facts : dict
        What else the reader found, as plain values.
    settings, settings_hash
        The settings that change pixels when it was queued, and their hash.
    model_checksum : str or None
    origin : str
        Who brought it in, such as ``daemon:3`` or ``person:cli``.
    duplicate_of : int or None
        The job with the same content and settings.
    region : (int, int, int, int) or None
        x, y, width, height at level 0, when only a part is processed.
    provenance : dict
        What made the output: versions, model, device.
    daemon : int or None
        Who holds the lease, while running.
    cancel_requested : bool
        A person wants the running job to stop.
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
    daemon: int | None
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class KnownFile:
    """What the scan has to know about a path: its newest job.

    Parameters
    ----------
    job_id : int
    state : JobState
    size_bytes, mtime_ns : int
        As they were when that job last looked.
    place : str or None
        Where the file was seen (:class:`wsi_denoise.system.mounts.Place`).
    error_code : str or None
        What the job met last.
    waits : bool
        A queued job that is tried again later.
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
    """One entry of the record.

    Parameters
    ----------
    id : int
    job_id : int or None
        None for what concerns the queue or a daemon.
    time : datetime
        UTC.
    origin : str
        Who did it, such as ``daemon:3`` or ``person:cli``.
    kind : str
        Stable name for programs; listed in docs/programs/json.md.
    message : str
    data : dict
        ``from`` and ``to`` for a change of state, and what else belongs to the kind.
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
    """One try of one daemon at a job.

    Parameters
    ----------
    number : int
        From 1, over the job's whole life.
    daemon : int
    started, ended : datetime
        UTC; `ended` is None while it runs.
    outcome : str or None
        The job's state afterwards (``done``, ``failed``, ``quarantined``, ``cancelled``, ``settling``), or
        ``retry_later``, ``released``, ``daemon_died``, ``lease_expired``.
    error_code, error : str or None
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
    id : int
    host : str
    pid : int
    version : str
    device : str or None
    started, heartbeat, stopped : datetime
        UTC; `stopped` is None for one that did not say goodbye, whether it lives or not.
    jobs : list of int
        Running jobs whose lease it holds.
    facts : dict
        What else it said about itself.
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
    """Which jobs are wanted. An empty field does not filter.

    Parameters
    ----------
    states : sequence of JobState
    since, until : datetime or None
        Seen at or after, and before; with a time zone.
    slide : str
        Part of the path; upper and lower case are the same.
    verdict, preset, error_code : str or None
    limit : int or None
        Most jobs to return; None for all.
    offset : int
        Jobs to leave out at the start.
    sort : str
        One of ``created``, ``started``, ``finished``, ``id``, ``slide``, ``size``, ``priority``, ``state``; a leading
        minus turns it round. Jobs that are equal in it come newest first.
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
    """A page of the history.

    Parameters
    ----------
    jobs : list of Job
    total : int
        How many match without limit and offset.
    """

    jobs: list[Job]
    total: int

    def to_json(self) -> dict[str, Any]:
        """Return ``{"jobs": [...], "total": N}``."""
        return {"jobs": [job.to_json() for job in self.jobs], "total": self.total}


@dataclass(frozen=True)
class Scanner:
    """What is kept of the scanner that made a slide; None where the file does not say.

    Parameters
    ----------
    vendor, model : str or None
    serial_hash : str or None
        Tells scanners of one model apart without naming them.
    """

    vendor: str | None
    model: str | None
    serial_hash: str | None

    def __str__(self) -> str:
        named = " ".join(part for part in (self.vendor, self.model) if part)
        return (named or "scanner not named") + (f" #{self.serial_hash[:4]}" if self.serial_hash else "")


@dataclass(frozen=True)
class SlideFigures:
    """Some metrics of one slide that is done.

    Parameters
    ----------
    job_id : int
    relative : str
    created : datetime
        When the slide was seen. UTC.
    verdict : str or None
    scanner : Scanner
    scan_week : str or None
        ISO week that the scanner wrote, such as ``2026-W09``.
    values : dict of str to (float or None)
        By name of the metric; those that the job has.
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
    """One scanner on one day, or in one week.

    Parameters
    ----------
    when : str
        ``2026-03-01`` or ``2026-W09``.
    scanner : Scanner
    mean, low, high : float
        Of the metric, over the slides.
    slides : int
    """

    when: str
    scanner: Scanner
    mean: float
    low: float
    high: float
    slides: int
