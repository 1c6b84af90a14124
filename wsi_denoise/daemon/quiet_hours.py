"""Pause the queue in quiet hours: times of the day at which users need the machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_denoise.jobs.store import JobStore

_log = logging.getLogger(__name__)

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LOOK_SECONDS = 5.0


def until(text: str, now: datetime) -> datetime | None:
    """Return when the quiet hours around `now` end, or None outside of them.

    Parameters
    ----------
    text : str
        ``compute.quiet_hours``: ``08:00-18:00``, ``Mon-Fri 08:00-18:00, Sat 09:00-12:00``, or ``22:00-06:00``. The
        last one crosses midnight and belongs to the day on which it begins.
    now : datetime
        Local time of the machine, without a time zone.

    Examples
    --------
    >>> until("Mon-Fri 08:00-18:00", datetime(2026, 11, 23, 9, 30)).hour
    18
    >>> until("Mon-Fri 08:00-18:00", datetime(2026, 11, 22, 9, 30)) is None
    True
    """
    ends = [
        end
        for days, start, length in _parsed(text)
        for back in (0, 1)
        if (day := now - timedelta(days=back)).weekday() in days
        for begin in [day.replace(hour=0, minute=0, second=0, microsecond=0) + start]
        if begin <= now < (end := begin + length)
    ]
    return max(ends, default=None)


def _parsed(text: str) -> Iterator[tuple[frozenset[int], timedelta, timedelta]]:
    """Yield (days of the week from Monday as 0, start, length) of each entry."""
    for entry in filter(None, (part.strip() for part in text.split(","))):
        *days, hours = entry.split()
        start, end = (_minutes(part) for part in hours.split("-"))
        length = (end - start) % (24 * 60) or 24 * 60
        yield _days(days), timedelta(minutes=start), timedelta(minutes=length)


def _days(words: list[str]) -> frozenset[int]:
    if not words:
        return frozenset(range(7))
    first, _, last = words[0].lower().partition("-")
    start, end = DAYS.index(first), DAYS.index(last or first)
    return frozenset((start + step) % 7 for step in range((end - start) % 7 + 1))


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)


class Quiet:
    """Pause the queue in quiet hours, unless the user lifts the pause.

    Parameters
    ----------
    text : str
        ``compute.quiet_hours``; empty for none.
    wall : callable
        Returns the local time.
    """

    def __init__(
        self, store: JobStore, daemon_id: int, text: str, *, wall: Callable[[], datetime] = datetime.now
    ) -> None:
        self._store, self._text, self._wall = store, text, wall
        self._origin = f"daemon:{daemon_id}:quiet"
        self._paused = self._lifted = False
        self._looked = float("-inf")

    def now(self) -> bool:
        """Return whether quiet hours pause the queue now, without reading the database: fast enough for every block.

        The result is that of the last :meth:`look`, or True if quiet hours have begun since.
        """
        return self._paused or (not self._lifted and until(self._text, self._wall()) is not None)

    def look(self) -> bool:
        """Begin or end the pause by the clock, and return whether it is active.

        Raises
        ------
        StoreError
            When the pause cannot be stored. The next call tries again.
        """
        end = until(self._text, self._wall())
        if end is None:
            if self._paused:
                self._store.lift(self._origin)
                _log.info("the quiet hours are over")
            self._paused = self._lifted = False
            return False
        if self._lifted:
            return False
        if not self._paused:
            self._store.pause(self._origin, f"quiet hours until {end:%H:%M} (compute.quiet_hours)")
            _log.info("quiet hours until %s", f"{end:%H:%M}")
            self._paused, self._looked = True, time.monotonic()
        elif time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            if self._origin not in self._store.pauses():
                _log.info("a user has lifted the quiet hours")
                self._paused, self._lifted = False, True
                return False
        return True
