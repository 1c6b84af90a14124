"""Decide when a file counts as complete. Pure: no file is opened and no clock is read.

One check cannot distinguish a copy in progress from a finished one. Neither can the size, as some copiers preallocate.
So a file must be unchanged for two checks over ``settle_seconds``. Then it must open, and its last tile must be
readable (the *probe*, made by the caller). A probe that fails may still mean that the file is being copied. It is
repeated, less and less often, until the file was unchanged for ``grace_seconds``. Only then does the file count as
damaged. While the share or the cluster is unreachable, no file counts as damaged, without a time limit.

Times are seconds on one monotonic clock, so the wall clock may jump. A file may carry any modification time, in the
past (``cp -p``, ``rsync -t``) or in the future: only its changes matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from wsi_denoise.errors import (
    ClusterError,
    EmptyFile,
    IncompleteSlide,
    NoPermission,
    NotASlide,
    OpeningTooSlow,
    SlideError,
    SourceError,
    TruncatedSlide,
    UnreadableTile,
    WsiDenoiseError,
)
from wsi_denoise.intake.slide_files import Snapshot

PERHAPS_BEING_COPIED = (
    *(EmptyFile, IncompleteSlide, NoPermission, NotASlide, OpeningTooSlow, TruncatedSlide, UnreadableTile),
)
"""Errors of a slide that is not complete, or on a slow share. Waiting does not help with other faults of a file (too
large, unsupported)."""

LONGEST_PAUSE = 300.0
"""Longest pause, in seconds, between probes of an unchanged file during its grace period."""


class Step(StrEnum):
    """What to do with a file now."""

    WAIT = "wait"  # it changed too recently
    PROBE = "probe"  # it is unchanged: probe whether it opens
    READY = "ready"  # it is complete
    GRACE = "grace"  # it does not open, but may still be arriving
    DAMAGED = "damaged"  # it does not open and no longer changes; with a SlideError, the file is at fault


@dataclass(frozen=True)
class Decision:
    """A step and its reason.

    Parameters
    ----------
    until : float
        For ``wait`` and ``grace``, the time of the next check; seconds on the caller's clock.
    error : WsiDenoiseError, optional
        For ``grace`` and ``damaged``, the error of the last probe.
    """

    step: Step
    until: float = 0.0
    error: WsiDenoiseError | None = None


@dataclass(frozen=True)
class Rules:
    """The two times that decide, in seconds, and whether a mistake does harm.

    Parameters
    ----------
    settle_seconds, grace_seconds : float
        See ``intake.settle_seconds`` and ``intake.grace_seconds``.
    """

    settle_seconds: float
    grace_seconds: float


@dataclass(frozen=True)
class Settling:
    """Observations of one file. Every check and every probe returns a new value.

    Parameters
    ----------
    snapshot : Snapshot
        Size and modification time at the last check.
    since : float
        First check with this snapshot, in seconds.
    seen : float
        Last check, in seconds.
    looks : int
        Checks with this snapshot.
    probed : float, optional
        Last probe, in seconds; None if it was not probed since its last change.
    error : WsiDenoiseError, optional
        Error of the last probe; None with `probed` set means success.

    Examples
    --------
    >>> file = Settling.first(Rules(settle_seconds=10, grace_seconds=60), Snapshot(5, 1), now=0.0)
    >>> file.decide().step, file.look(Snapshot(5, 1), now=10.0).decide().step
    (<Step.WAIT: 'wait'>, <Step.PROBE: 'probe'>)
    >>> file.look(Snapshot(5, 1), now=10.0).probe(None, now=11.0).decide().step
    <Step.READY: 'ready'>
    """

    rules: Rules
    snapshot: Snapshot
    since: float
    seen: float
    looks: int = 1
    probed: float | None = None
    error: WsiDenoiseError | None = None

    @classmethod
    def first(cls, rules: Rules, snapshot: Snapshot, now: float) -> Settling:
        """Return the state after the first check."""
        return cls(rules, snapshot, since=now, seen=now)

    def look(self, snapshot: Snapshot, now: float) -> Settling:
        """Return the state after another check; any change starts everything again."""
        if snapshot != self.snapshot:
            return Settling.first(self.rules, snapshot, now)
        return replace(self._at(now), looks=self.looks + 1)

    def probe(self, error: WsiDenoiseError | None, now: float) -> Settling:
        """Return the state after a probe of the file as it was at the last check.

        Parameters
        ----------
        error : WsiDenoiseError or None
            None when the file opened and its last tile could be read.
        now : float
            Start of the probe, in seconds.
        """
        state = self._at(now)
        return replace(state, probed=state.seen, error=error)

    def decide(self) -> Decision:
        """Return what to do, as of the last check."""
        settled = self.since + self.rules.settle_seconds
        if self.looks < 2 or self.seen < settled:
            return Decision(Step.WAIT, until=max(settled, self.seen))
        if self.probed is None:
            return Decision(Step.PROBE)
        if self.error is None:
            return Decision(Step.READY)
        return self._after_failed_probe(self.error, self.probed)

    def _after_failed_probe(self, error: WsiDenoiseError, probed: float) -> Decision:
        lasting = isinstance(error, SlideError) and not isinstance(error, PERHAPS_BEING_COPIED)
        if lasting:
            return Decision(Step.DAMAGED, error=error)
        # While the share or the cluster is unreachable, damage cannot be determined: wait without a limit.
        away = isinstance(error, (SourceError, ClusterError))
        patience = float("inf") if away else self.since + self.rules.grace_seconds
        if probed >= patience:
            return Decision(Step.DAMAGED, error=error)
        again = min(probed + self._pause(probed), patience)
        if self.seen >= again:
            # The final decision always rests on a probe after the grace period, not on the result of an earlier one.
            return Decision(Step.PROBE)
        return Decision(Step.GRACE, until=again, error=error)

    def _pause(self, probed: float) -> float:
        """Return the seconds until the next probe: the time that the file was unchanged, so that it doubles."""
        return min(max(probed - self.since, self.rules.settle_seconds, 1.0), LONGEST_PAUSE)

    def _at(self, now: float) -> Settling:
        """Return the state moved to `now`. If the clock went backwards, no time has passed, and none is lost."""
        back = max(0.0, self.seen - now)
        probed = None if self.probed is None else self.probed - back
        return replace(self, since=self.since - back, probed=probed, seen=now)
