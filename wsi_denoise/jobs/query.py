"""Parsing of job queries from text, for the command line and the dashboard."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from wsi_denoise.errors import UsageError
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import LARGEST, JobQuery

VERDICTS = ("pass", "review", "not_needed")
_AGO = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def job_query(
    *,
    states: Iterable[str] = (),
    since: str | None = None,
    until: str | None = None,
    slide: str = "",
    verdict: str | None = None,
    preset: str | None = None,
    error_code: str | None = None,
    limit: int = 100,
    offset: int = 0,
    sort: str = "-created",
    now: datetime | None = None,
) -> JobQuery:
    """Return the query for arguments in text form.

    Parameters
    ----------
    states : iterable of str
        Names of states; an item may be a comma-separated list.
    since, until : str, optional
        Times, in the forms of :func:`moment`.
    limit : int
        0 for all jobs.
    now : datetime, optional
        With a time zone; the current time by default.

    Raises
    ------
    UsageError
        For an invalid state, verdict, time or count.
    """
    now = now or datetime.now(UTC)
    names = [name.strip() for text in states for name in text.split(",") if name.strip()]
    known = [state.value for state in JobState]
    for name in names:
        if name not in known:
            raise UsageError(f"{name} is not a state; {', '.join(known)} are")
    if verdict and verdict not in VERDICTS:
        raise UsageError(f"{verdict} is not a verdict; {', '.join(VERDICTS)} are")
    for name, count in (("limit", limit), ("offset", offset)):
        if not 0 <= count <= LARGEST:
            raise UsageError(f"{name} {count} is not a count of jobs")
    return JobQuery(
        states=tuple(JobState(name) for name in names),
        since=moment(since, now=now) if since else None,
        until=moment(until, now=now, end=True) if until else None,
        slide=slide,
        verdict=verdict or None,
        preset=preset or None,
        error_code=error_code or None,
        limit=limit or None,
        offset=offset,
        sort=sort,
    )


def moment(text: str, *, now: datetime, end: bool = False) -> datetime:
    """Parse a time and return it in UTC.

    Parameters
    ----------
    text : str
        ``90m``, ``24h``, ``7d`` or ``2w`` before `now`; or an ISO 8601 date, or date and time. The default time zone is
        that of this machine.
    now : datetime
        With a time zone.
    end : bool
        Return the end of the day, not its start, for a date without a time.

    Raises
    ------
    UsageError
        For any other text.
    """
    text = text.strip()
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return now.astimezone(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        if len(text) == len("2026-01-31"):
            day = date.fromisoformat(text) + timedelta(days=1 if end else 0)
            return datetime(day.year, day.month, day.day).astimezone(UTC)
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text} is not a time; 7d, 24h, 2026-01-31 and 2026-01-31T08:00 are") from error
