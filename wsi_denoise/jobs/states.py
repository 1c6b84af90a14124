"""The states of a job, and the transitions between them. Pure: no clock, no database."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from wsi_denoise.errors import TransitionRefused


class JobState(StrEnum):
    """The state of a job."""

    SETTLING = "settling"  # the file was found; it may still be incomplete
    QUEUED = "queued"  # complete and fingerprinted, waits for a daemon; may have the time of its next try
    RUNNING = "running"  # a daemon holds its lease
    DONE = "done"  # output verified and published
    FAILED = "failed"  # the file is not at fault; not retried automatically
    QUARANTINED = "quarantined"  # the file is at fault
    CANCELLED = "cancelled"  # by a user, or because the file disappeared or a newer job replaces this one
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
        # Back to queued: a later retry, an expired lease, or a daemon that stopped.
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
        # The same content with the same settings gives the same output: only if that output was removed.
        JobState.DONE: frozenset({JobState.QUEUED}),
        # By a user's retry. Without a fingerprint the file has to settle first.
        JobState.FAILED: _AGAIN,
        JobState.QUARANTINED: _AGAIN,
        JobState.CANCELLED: _AGAIN,
        JobState.DUPLICATE: _AGAIN,
    }
)
"""The states that may follow each state. This is the only list of transitions."""

OVER = frozenset({JobState.DONE, JobState.FAILED, JobState.QUARANTINED, JobState.CANCELLED, JobState.DUPLICATE})
"""Final states: no automatic transition leaves them. A job in one of them has a `finished` time."""


def check(old: JobState, new: JobState) -> None:
    """Check that a transition is allowed.

    Raises
    ------
    TransitionRefused
        If `new` is not in ``ALLOWED[old]``.
    """
    if new not in ALLOWED[old]:
        raise TransitionRefused(f"a job that is {old} cannot become {new}")
