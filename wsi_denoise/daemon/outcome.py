"""How a job ends after an error: quarantined, settling again, retried, or failed. Pure: no clock, no database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from wsi_denoise.errors import DiskFull, SlideChanged, SlideError, WsiDenoiseError
from wsi_denoise.jobs.retry import Tried, failures, retry_at


class Decision(StrEnum):
    """What happens to a job after an error."""

    QUARANTINE = "quarantine"
    SETTLE = "settle"
    RETRY = "retry"
    FAIL = "fail"


@dataclass(frozen=True)
class Outcome:
    """How a job ends.

    Parameters
    ----------
    decision : Decision
    at : datetime or None
        Time of the next attempt, for :attr:`Decision.RETRY` only.
    counts : bool
        Whether the attempt counts as a failure of the job.
    """

    decision: Decision
    at: datetime | None = None
    counts: bool = True


def outcome_of(
    error: WsiDenoiseError,
    *,
    attempts: Sequence[Tried],
    number: int,
    allowed: int,
    retry_seconds: float,
    pauses: bool,
    now: datetime,
) -> Outcome:
    """Decide how a job ends after an error.

    Parameters
    ----------
    error : WsiDenoiseError
        What ended the attempt.
    attempts : sequence of Tried
        All attempts of the job, oldest first, the one that ended included.
    number : int
        Number of attempts since the job was last queued by the intake or by a user.
    allowed : int
        Attempts before a job fails (``jobs.attempts``).
    retry_seconds : float
        Wait after the first failure, in seconds (``jobs.retry_seconds``).
    pauses : bool
        Whether the queue pauses on a full disk, and resumes with this job when there is room.
    now : datetime
        Time of the error, with a time zone.
    """
    if isinstance(error, SlideError):
        return Outcome(Decision.QUARANTINE)
    if isinstance(error, SlideChanged):
        return Outcome(Decision.SETTLE)
    if isinstance(error, DiskFull) and pauses:
        return Outcome(Decision.RETRY, now, counts=False)
    failed = failures(attempts) + 1
    if error.outlasts or (error.retry and min(failed, number) < allowed):
        return Outcome(Decision.RETRY, retry_at(failed, retry_seconds, now), counts=not error.outlasts)
    return Outcome(Decision.FAIL)
