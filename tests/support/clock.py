"""A clock that tests set and move."""

from datetime import UTC, datetime, timedelta


class Clock:
    """Return a time that stands still, or that moves by `step` seconds at each call."""

    def __init__(self, start: datetime | None = None, *, step: float = 0.0) -> None:
        self.now = start or datetime.now(UTC)
        self._step = timedelta(seconds=step)

    def __call__(self) -> datetime:
        self.now += self._step
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
