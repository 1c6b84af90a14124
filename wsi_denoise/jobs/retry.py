"""Times of retries, and counts of a job's failures. Pure: no clock, no database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

RETRY_FACTOR = 2.0
RETRY_LONGEST = timedelta(hours=1)

DEATHS = 20
"""Consecutive daemons that die at one slide, without finishing a block of it, before the slide is quarantined.

With the waits below these take half a day, in which other slides are processed first. Frequent restarts of a machine
do not reach this number.
"""

_DEATHS_AT_ONCE = 2
_DEATH_SECONDS = 10.0
_DIED = frozenset({"daemon_died", "lease_expired"})


class Tried(Protocol):
    """The values of an attempt that the counts use."""

    @property
    def outcome(self) -> str | None:
        """Outcome of the attempt; None while it runs."""

    @property
    def blocks_done(self) -> int:
        """Finished blocks, those of earlier attempts included."""

    @property
    def blocks_resumed(self) -> int:
        """Blocks that earlier attempts finished."""


def failures(attempts: Sequence[Tried]) -> int:
    """Count the consecutive failures of a job without progress, from its attempts, oldest first.

    An attempt that finished a block resets the count. One that was given back, or whose daemon died, is not counted:
    restarts of a machine are not failures of the job.
    """
    count = 0
    for attempt in attempts:
        if attempt.blocks_done > attempt.blocks_resumed:
            count = 0
        if attempt.outcome == "retry_later":
            count += 1
    return count


def deaths(attempts: Sequence[Tried], *, again: bool = False) -> int:
    """Count the consecutive daemons that died at a job without finishing a block, from its attempts, oldest first.

    A running attempt is not counted, unless its daemon has died `again`.
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
    """Return the time of the next try after `count` consecutive deaths; None means at once, as after a power cut."""
    return retry_at(count - _DEATHS_AT_ONCE, _DEATH_SECONDS, now) if count > _DEATHS_AT_ONCE else None


def retry_at(attempt: int, base_seconds: float, now: datetime) -> datetime:
    """Return the time of the next try after the `attempt`-th failure.

    The wait is ``min(base_seconds * RETRY_FACTOR ** (attempt - 1), RETRY_LONGEST)``: with the default of 30 seconds
    30, 60, 120, 240 seconds and so on, never more than an hour.

    Parameters
    ----------
    attempt : int
        Number of failures so far, from 1.
    base_seconds : float
        Wait after the first failure, in seconds.
    now : datetime
        Time of the failure, with a time zone.
    """
    longest = RETRY_LONGEST.total_seconds()
    # Without this bound a large number of attempts overflows a float.
    wait = base_seconds * RETRY_FACTOR ** min(max(attempt, 1) - 1, 64)
    return now + timedelta(seconds=min(wait, longest))
