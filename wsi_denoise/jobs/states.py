"""What a job can be, what may follow what, and when it is tried again. Pure: no clock, no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from wsi_denoise.errors import TransitionRefused

if TYPE_CHECKING:
    from wsi_denoise.jobs.database.models import AttemptRow
    from wsi_denoise.jobs.values import Attempt

RETRY_FACTOR = 2.0
RETRY_LONGEST = timedelta(hours=1)

DEATHS = 20
"""Daemons that die in a row at one slide before a block of it is finished: then the slide is blamed.

With the waits below these take half a day, in which other slides go first: whoever only restarts a machine often, or
has a daemon ended from outside, does not get there.
"""

_DEATHS_AT_ONCE = 2
_DEATH_SECONDS = 10.0
_DIED = frozenset({"daemon_died", "lease_expired"})


class JobState(StrEnum):
    """Where a job stands."""

    SETTLING = "settling"  # the file was seen; nobody knows yet whether it is complete
    QUEUED = "queued"  # complete and fingerprinted, waits for a daemon; may carry the time of its next try
    RUNNING = "running"  # a daemon holds its lease
    DONE = "done"  # output verified and published
    FAILED = "failed"  # not the file's fault; will not be tried again by itself
    QUARANTINED = "quarantined"  # the file is at fault
    CANCELLED = "cancelled"  # a person asked for it, or the file went away before it settled
    DUPLICATE = "duplicate"  # the same content with the same settings is queued, running or done


_AGAIN = frozenset({JobState.QUEUED, JobState.SETTLING})

ALLOWED: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        JobState.SETTLING: frozenset(
            {JobState.QUEUED, JobState.DUPLICATE, JobState.QUARANTINED, JobState.FAILED, JobState.CANCELLED}
        ),
        # Back to settling: the file changed after it had been fingerprinted.
        JobState.QUEUED: frozenset(
            {JobState.RUNNING, JobState.SETTLING, JobState.QUARANTINED, JobState.FAILED, JobState.CANCELLED}
        ),
        # Back to queued: tried again later, lease expired, or the daemon stopped.
        JobState.RUNNING: frozenset(
            {
                JobState.DONE,
                JobState.QUEUED,
                JobState.SETTLING,
                JobState.QUARANTINED,
                JobState.FAILED,
                JobState.CANCELLED,
            }
        ),
        # The same content with the same settings gives the same output: again only when that output is gone.
        JobState.DONE: frozenset({JobState.QUEUED}),
        # A person may insist. Without a fingerprint the file has to settle first.
        JobState.FAILED: _AGAIN,
        JobState.QUARANTINED: _AGAIN,
        JobState.CANCELLED: _AGAIN,
        JobState.DUPLICATE: _AGAIN,
    }
)
"""The states that may follow each state. There is no other list of them."""

OVER = frozenset({JobState.DONE, JobState.FAILED, JobState.QUARANTINED, JobState.CANCELLED, JobState.DUPLICATE})
"""States in which nothing more happens by itself; such a job has a `finished` time."""


def check(old: JobState, new: JobState) -> None:
    """Let a transition pass, or refuse it.

    Raises
    ------
    TransitionRefused
        When `new` is not among ``ALLOWED[old]``.
    """
    if new not in ALLOWED[old]:
        raise TransitionRefused(f"a job that is {old} cannot become {new}")


def failures(attempts: Sequence[Attempt]) -> int:
    """Return how often in a row a job failed without getting on, from its attempts, oldest first.

    An attempt that finished a block begins a new count. One that was given back, or whose daemon died, says nothing
    about the job: a machine may be restarted as often as it likes.
    """
    count = 0
    for attempt in attempts:
        if attempt.blocks_done > attempt.blocks_resumed:
            count = 0
        if attempt.outcome == "retry_later":
            count += 1
    return count


def deaths(attempts: Sequence[Attempt | AttemptRow], *, again: bool = False) -> int:
    """Return how many daemons died in a row at a job, none having finished a block, from its attempts, oldest first.

    An attempt that is under way says nothing yet, unless its daemon has died `again`.
    """
    count = 0
    for attempt in attempts:
        died = again if attempt.outcome is None else attempt.outcome in _DIED
        if died and attempt.blocks_done <= attempt.blocks_resumed:
            count += 1
        elif died or attempt.outcome is not None:
            count = 0
    return count


def after_deaths(count: int, now: datetime) -> datetime | None:
    """Return when a job is taken up again after so many deaths in a row; None is at once, as after a power cut."""
    return retry_at(count - _DEATHS_AT_ONCE, _DEATH_SECONDS, now) if count > _DEATHS_AT_ONCE else None


def retry_at(attempt: int, base_seconds: float, now: datetime) -> datetime:
    """Return when a job is tried again after its `attempt`-th attempt failed.

    The wait is ``min(base_seconds * RETRY_FACTOR ** (attempt - 1), RETRY_LONGEST)``: with the default of 30 seconds
    30, 60, 120, 240 seconds and so on, never more than an hour.

    Parameters
    ----------
    attempt : int
        How many attempts there have been, from 1.
    base_seconds : float
        Wait after the first one, in seconds.
    now : datetime
        Time of the failure, with a time zone.
    """
    longest = RETRY_LONGEST.total_seconds()
    # 2 ** 64 seconds is past any limit; without this bound a large number of attempts overflows a float.
    wait = base_seconds * RETRY_FACTOR ** min(max(attempt, 1) - 1, 64)
    return now + timedelta(seconds=min(wait, longest))
