"""When a file counts as complete. Pure: no file is opened here and no clock is read.

A copy in progress cannot be told from a finished one by one look, nor by size alone (copiers preallocate). So a file
has to stand still for two looks over ``settle_seconds``; then it has to open and its last tile has to read (the
*probe*, made by the caller). A probe that fails may still mean "being copied": it is repeated, less and less often,
until the file has stood still for ``grace_seconds``; only then is it damaged. While the share or the cluster is away,
nothing is: that is waited for without end.

Times are seconds on one monotonic clock, so that the wall clock may jump and a file may carry any time of change, in
the past (``cp -p``, ``rsync -t``) or in the future: only that it *changes* matters.
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
"""What half a slide, or one on a slow share, looks like. Any other fault of the file (too large, unsupported) does not
go away by waiting."""

LONGEST_PAUSE = 300.0
"""Seconds; a file that stands still is probed at least this often while it is given grace."""


class Step(StrEnum):
    """What is to be done with a file now."""

    WAIT = "wait"  # it moved too recently
    PROBE = "probe"  # it stands still: see whether it opens
    READY = "ready"  # it is complete
    GRACE = "grace"  # it does not open, but may still be arriving
    DAMAGED = "damaged"  # it does not open, and nothing arrives any more; by a SlideError, it is the file's fault


@dataclass(frozen=True)
class Decision:
    """A step, and what it rests on.

    Parameters
    ----------
    step : Step
    until : float
        For ``wait`` and ``grace``, when to look again; seconds on the caller's clock.
    error : WsiDenoiseError, optional
        For ``grace`` and ``damaged``, what the last probe found.
    """

    step: Step
    until: float = 0.0
    error: WsiDenoiseError | None = None


@dataclass(frozen=True)
class Rules:
    """The two times that decide, in seconds, and what is at stake.

    Parameters
    ----------
    settle_seconds, grace_seconds : float
        See ``intake.settle_seconds`` and ``intake.grace_seconds``.
    """

    settle_seconds: float
    grace_seconds: float


@dataclass(frozen=True)
class Settling:
    """What has been seen of one file so far; every look and every probe gives a new value.

    Parameters
    ----------
    rules : Rules
    snapshot : Snapshot
        Size and time of change at the last look.
    since : float
        First look that saw this snapshot, in seconds.
    seen : float
        Last look, in seconds.
    looks : int
        Looks that saw this snapshot.
    probed : float, optional
        When it was last probed, in seconds; None if not since it last changed.
    error : WsiDenoiseError, optional
        What the last probe found; None with `probed` set means that all was well.

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
        """Return the state after the first look."""
        return cls(rules, snapshot, since=now, seen=now)

    def look(self, snapshot: Snapshot, now: float) -> Settling:
        """Return the state after another look; any change starts everything again."""
        if snapshot != self.snapshot:
            return Settling.first(self.rules, snapshot, now)
        return replace(self._at(now), looks=self.looks + 1)

    def probe(self, error: WsiDenoiseError | None, now: float) -> Settling:
        """Return the state after a probe of the file as it was at the last look.

        Parameters
        ----------
        error : WsiDenoiseError or None
            None when the file opened and its last tile could be read.
        now : float
            When the probe started, in seconds.
        """
        state = self._at(now)
        return replace(state, probed=state.seen, error=error)

    def decide(self) -> Decision:
        """Return what is to be done, as of the last look."""
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
        # While a share or the cluster is away one cannot say that the file is damaged, however long it takes.
        away = isinstance(error, (SourceError, ClusterError))
        patience = float("inf") if away else self.since + self.rules.grace_seconds
        if probed >= patience:
            return Decision(Step.DAMAGED, error=error)
        again = min(probed + self._pause(probed), patience)
        if self.seen >= again:
            # The last word on a file is always a probe made after its grace, never the memory of an earlier one.
            return Decision(Step.PROBE)
        return Decision(Step.GRACE, until=again, error=error)

    def _pause(self, probed: float) -> float:
        """Return the seconds until the next probe: as long as the file has stood still, so it doubles each time."""
        return min(max(probed - self.since, self.rules.settle_seconds, 1.0), LONGEST_PAUSE)

    def _at(self, now: float) -> Settling:
        """Return the state moved to `now`. Where the clock went backwards no time has passed, and none is lost."""
        back = max(0.0, self.seen - now)
        probed = None if self.probed is None else self.probed - back
        return replace(self, since=self.since - back, probed=probed, seen=now)
