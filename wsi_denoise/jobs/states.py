"""The states of a job, and the transitions between them. Pure: no clock, no database."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from wsi_denoise.errors import TransitionRefused


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
