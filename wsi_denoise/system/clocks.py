"""Comparison of stored times with a clock that may have been put back since they were stored. Pure.

A machine whose clock is ahead when it dies leaves times in the future: a lease, a heartbeat, a modification time. The
program never waits for such a time. A time that is further ahead than its period counts as expired.
"""

from __future__ import annotations

from datetime import datetime, timedelta

SKEW = timedelta(seconds=30)
"""Tolerance between clocks of machines that share a database; docs/it/service.md requires less than a lease."""


def silence(heard: datetime, now: datetime) -> timedelta:
    """Return the time between a heartbeat and `now`, in the past or in the future.

    Examples
    --------
    >>> silence(datetime(2026, 1, 1, 15), datetime(2026, 1, 1, 12)).total_seconds()
    10800.0
    """
    return abs(now - heard)


def age(seconds: float, now: float) -> float:
    """Return the absolute difference in seconds between a file's time and `now`."""
    return abs(now - seconds)


def is_ahead(end: datetime, length: timedelta, now: datetime) -> bool:
    """Return whether `end` is too late for a period of this length, because the clock was ahead when it was stored.

    Parameters
    ----------
    end : datetime
        With a time zone.
    length : timedelta
        Length of the period, such as a lease. The tolerance is half of it, and at most :data:`SKEW`.
    now : datetime
        With a time zone.

    Examples
    --------
    >>> noon, minute = datetime(2026, 1, 1, 12), timedelta(minutes=1)
    >>> is_ahead(noon + minute, minute, noon), is_ahead(noon + 3 * minute, minute, noon)
    (False, True)
    """
    return end - now > length + min(length / 2, SKEW)
