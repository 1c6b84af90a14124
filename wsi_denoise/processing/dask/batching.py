"""Decide how many blocks form one task. No I/O.

Dask needs about 20 ms per task, whatever its size. On one core, a block of tissue takes a second and a block of
background a twentieth of that. On a GPU, any block takes milliseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np

from wsi_denoise.processing.values import SlidePlan
from wsi_denoise.slide.geometry import BlockIndex

GLASS_COST = 0.1
"""Cost of a background patch, which is read, measured in part and encoded. A denoised patch costs 1 more."""

LEAST = 8 * 256 * GLASS_COST
"""Cost of a task while the pace is unknown: a block with some tissue, or eight background blocks."""

TASK_SECONDS = 1.5
"""Target duration of a task. Longer tasks would make progress jump and delay a shutdown."""

SHARES = 2
"""Tasks per thread into which the remaining blocks are divided: tasks shrink, so that all threads end together."""

Group = tuple[BlockIndex, ...]
"""Blocks of one task, processed one after the other."""


def costs(plan: SlidePlan) -> dict[BlockIndex, float]:
    """Return the cost of each block, in patches that go through the network."""
    everything = plan.work.background == "denoise"
    found = {}
    for block in plan.work.lattice.blocks():
        tissue = plan.tissue[plan.work.lattice.patches(block)]
        found[block] = GLASS_COST * tissue.size + (tissue.size if everything else int(np.count_nonzero(tissue)))
    return found


def budget(waiting: float, slots: int, pace: float | None) -> float:
    """Return the target cost of the next task.

    Parameters
    ----------
    waiting : float
        Cost of all blocks that were not submitted yet.
    slots : int
        Tasks that run at a time.
    pace : float or None
        Seconds of one thread for a cost of 1, so far.
    """
    most = LEAST if not pace else max(LEAST, TASK_SECONDS / pace)
    return min(most, waiting / (SHARES * slots))


class TaskBatcher:
    """The blocks that wait, in the order of submission."""

    def __init__(self, cost: Mapping[BlockIndex, float], order: Iterable[BlockIndex]) -> None:
        self._cost = cost
        self._order = deque(order)
        self._left = sum(cost[block] for block in self._order)

    def __bool__(self) -> bool:
        return bool(self._order)

    def take(self, slots: int, pace: float | None = None) -> Group:
        """Take the blocks of the next task: at least one, with a cost as close as possible to :func:`budget`."""
        wanted = budget(self._left, slots, pace)
        group: list[BlockIndex] = []
        cost = 0.0
        while self._order and (not group or cost + self._cost[self._order[0]] / 2 <= wanted):
            block = self._order.popleft()
            group.append(block)
            cost += self._cost[block]
        self._left -= cost
        return tuple(group)

    def remove(self, group: Group) -> None:
        """Remove blocks that were submitted before."""
        self._order = deque(block for block in self._order if block not in group)
        self._left -= sum(self._cost[block] for block in group)

    def put_back(self, group: Group) -> None:
        """Put the blocks of a lost task in front of the waiting ones."""
        self._order.extendleft(reversed(group))
        self._left += sum(self._cost[block] for block in group)
