"""The events of a slide: calls from its processing to the job that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from wsi_denoise.processing.values import SlidePlan


class Interrupted(Exception):
    """The daemon stops this job. Blocks in flight may finish, and the job is queued again."""


@dataclass(frozen=True)
class Progress:
    """Progress of a slide.

    Parameters
    ----------
    done, total, resumed : int
        Blocks: finished ones with the resumed ones, all, and those found in the spool.
    rate : float or None
        Megapixels of level 0 per second in this attempt.
    seconds_left : float or None
        Estimate, by the cost of the remaining blocks.
    """

    done: int
    total: int
    resumed: int
    rate: float | None = None
    seconds_left: float | None = None


class WaitEvents(Protocol):
    """Events while a task runs."""

    def check(self) -> None:
        """Raise JobCancelled or Interrupted to stop. Called several times a second."""

    def waiting(self, text: str) -> None:
        """Report why the slide waits, as a sentence."""


class SlideEvents(WaitEvents, Protocol):
    """Events of a slide."""

    def planned(self, plan: SlidePlan) -> None:
        """Report the plan."""

    def progressed(self, progress: Progress) -> None:
        """Report the number of finished blocks."""

    def submitted(self) -> None:
        """Report that every block is submitted: from now on workers become idle."""


class NoEvents:
    """Ignore all events, and never stop."""

    def check(self) -> None:
        """Continue."""

    def waiting(self, text: str) -> None:
        """Ignore why the slide waits, which is also logged."""

    def planned(self, plan: SlidePlan) -> None:
        """Ignore the plan."""

    def progressed(self, progress: Progress) -> None:
        """Ignore the progress."""

    def submitted(self) -> None:
        """Ignore that every block is submitted."""
