"""Comparison of stored times with a clock that may have been put back since they were stored. Pure.

A machine whose clock is ahead when it dies leaves times in the future: a lease, a heartbeat, a time of change. Such a
time is never waited for. A time that is further ahead than the period it belongs to counts as expired.
"""

from __future__ import annotations

from datetime import datetime, timedelta

SKEW = timedelta(seconds=30)
"""Machines that share a database may differ by this much; docs/it/service.md asks for less than a lease."""


def silence(heard: datetime, now: datetime) -> timedelta:
    """Return how far a sign of life is from `now`, in the past or in the future.

    Examples
    --------
    >>> silence(datetime(2026, 1, 1, 15), datetime(2026, 1, 1, 12)).total_seconds()
    10800.0
    """
    return abs(now - heard)


def age(seconds: float, now: float) -> float:
    """Return the seconds between a file's time and `now`, whichever is later."""
    return abs(now - seconds)


def is_ahead(end: datetime, length: timedelta, now: datetime) -> bool:
    """Return whether a period of this length cannot end as late as `end`: the clock was ahead when it was stored.

    Parameters
    ----------
    end : datetime
        With a time zone.
    length : timedelta
        Of the period, such as a lease. A difference of half of it, and at most of :data:`SKEW`, is tolerated.
    now : datetime
        With a time zone.

    Examples
    --------
    >>> noon, minute = datetime(2026, 1, 1, 12), timedelta(minutes=1)
    >>> is_ahead(noon + minute, minute, noon), is_ahead(noon + 3 * minute, minute, noon)
    (False, True)
    """
    return end - now > length + min(length / 2, SKEW)
