"""Measure the rate of a slide, and estimate its remaining time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping

from wsi_denoise.processing.dask.block_queue import BlockQueue
from wsi_denoise.processing.events import Progress
from wsi_denoise.processing.values import BlockReport
from wsi_denoise.slide.geometry import BlockIndex


class ProgressMeter:
    """Rate and times of the blocks of one attempt.

    Parameters
    ----------
    cost : mapping
        Cost of every block.
    resumed : int
        Blocks that were in the spool.
    uncounted : collection of BlockIndex
        Blocks that were finished before the clock starts; they do not count for the rate.
    clock : callable
        Seconds on a monotonic clock.

    Attributes
    ----------
    seconds : dict of str to float
        Wall-clock time per stage, summed over blocks.
    """

    def __init__(
        self,
        cost: Mapping[BlockIndex, float],
        resumed: int,
        uncounted: Collection[BlockIndex] = (),
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._cost, self.resumed, self._uncounted = cost, resumed, uncounted
        self._clock, self._start = clock, clock()
        self._pixels = 0
        self._spent = self._measured = 0.0
        self.seconds: dict[str, float] = {}

    def count(self, reports: Iterable[BlockReport]) -> None:
        """Add finished blocks."""
        for report in reports:
            cost = self._cost[report.block]
            if report.block not in self._uncounted:
                self._pixels += report.pixels
                self._spent += cost
            if report.seconds:  # empty for a block whose file existed already
                self._measured += cost
                for stage, seconds in report.seconds.items():
                    self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @property
    def pace(self) -> float | None:
        """Seconds of one thread for a cost of 1; None while it is unknown."""
        return sum(self.seconds.values()) / self._measured if self._measured else None

    def progress(self, queue: BlockQueue) -> Progress:
        """Return the progress of a slide."""
        elapsed = self._clock() - self._start
        return Progress(
            queue.done,
            len(queue),
            self.resumed,
            rate=self._pixels / elapsed / 1e6 if self._pixels else None,
            seconds_left=queue.cost_left / self._spent * elapsed if self._spent else None,
        )
