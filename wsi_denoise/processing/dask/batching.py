"""How many blocks are one task: pure decisions.

Dask takes some 20 ms for a task, whatever is in it. A block of tissue takes a second on one core, a block of glass a
twentieth of that, and on a GPU a block of either takes milliseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np

from wsi_denoise.processing.values import SlidePlan
from wsi_denoise.slide.geometry import BlockIndex

GLASS_COST = 0.1
"""Of a patch of glass, which is read, measured in part and encoded; a patch that is denoised as well costs 1 more."""

LEAST = 8 * 256 * GLASS_COST
"""Cost of a task before anything is known of the pace: a block with some tissue, or eight of glass."""

TASK_SECONDS = 1.5
"""What a task is to take: longer ones would make progress jump, and keep a shutdown waiting."""

SHARES = 2
"""Parts that each thread is to get of what is left: tasks become smaller towards the end, so that all end together."""

Group = tuple[BlockIndex, ...]
"""Blocks that are one task, done one after the other."""


def costs(plan: SlidePlan) -> dict[BlockIndex, float]:
    """Return what each block costs, in patches that go through the network."""
    everything = plan.work.background == "denoise"
    found = {}
    for block in plan.work.lattice.blocks():
        tissue = plan.tissue[plan.work.lattice.patches(block)]
        found[block] = GLASS_COST * tissue.size + (tissue.size if everything else int(np.count_nonzero(tissue)))
    return found


def budget(waiting: float, slots: int, pace: float | None) -> float:
    """Return the cost that a task is to have.

    Parameters
    ----------
    waiting : float
        Cost of all blocks that no worker was given yet.
    slots : int
        Tasks that run at a time.
    pace : float or None
        Seconds of one thread for a cost of 1, so far.
    """
    most = LEAST if not pace else max(LEAST, TASK_SECONDS / pace)
    return min(most, waiting / (SHARES * slots))


class Backlog:
    """The blocks that wait, in the order in which they are handed out.

    Parameters
    ----------
    cost : mapping of BlockIndex to float
    order : iterable of BlockIndex
    """

    def __init__(self, cost: Mapping[BlockIndex, float], order: Iterable[BlockIndex]) -> None:
        self._cost = cost
        self._order = deque(order)
        self._left = sum(cost[block] for block in self._order)

    def __bool__(self) -> bool:
        return bool(self._order)

    def take(self, slots: int, pace: float | None = None) -> Group:
        """Take the blocks of the next task: as many as come nearest to what :func:`budget` says, and at least one."""
        wanted = budget(self._left, slots, pace)
        group: list[BlockIndex] = []
        cost = 0.0
        while self._order and (not group or cost + self._cost[self._order[0]] / 2 <= wanted):
            block = self._order.popleft()
            group.append(block)
            cost += self._cost[block]
        self._left -= cost
        return tuple(group)

    def put_back(self, group: Group) -> None:
        """Have blocks done next: whoever had them is gone."""
        self._order.extendleft(reversed(group))
        self._left += sum(self._cost[block] for block in group)
