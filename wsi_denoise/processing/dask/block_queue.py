"""Decide which blocks of a slide are submitted next. No I/O."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from enum import Enum, auto

from wsi_denoise.processing.dask.batching import Group, TaskBatcher
from wsi_denoise.slide.geometry import BlockIndex

TASKS_PER_THREAD = 3
"""Tasks in flight: a thread that finishes one must find the next one."""

DEATHS = 3
"""Times that a block may end its worker while it runs alone, before it is blamed."""


class BlockState(Enum):
    """State of a block."""

    WAITING = auto()
    SUBMITTED = auto()
    SUSPECT = auto()
    """It was submitted to a worker that died. It is submitted again alone."""
    DONE = auto()


class BlockQueue:
    """The blocks of a slide and their states.

    A worker that dies takes innocent blocks with it. All of them become suspects, and each is then submitted in a
    trial: a task of one block while nothing else is in flight. A block that ends its worker in a trial is guilty.

    Parameters
    ----------
    cost : mapping
        Cost of every block; see :func:`wsi_denoise.processing.dask.batching.costs`.
    order : iterable of BlockIndex
        Every block, in the order of submission.
    done : collection of BlockIndex
        Finished blocks.
    """

    def __init__(
        self, cost: Mapping[BlockIndex, float], order: Iterable[BlockIndex], done: Collection[BlockIndex] = ()
    ) -> None:
        self._cost = cost
        self._states = {block: BlockState.DONE if block in done else BlockState.WAITING for block in order}
        self._batcher = TaskBatcher(cost, [block for block in self._states if block not in done])
        self._suspects: deque[BlockIndex] = deque()
        self._in_flight: set[Group] = set()
        self._trial: Group | None = None
        self._deaths: Counter[BlockIndex] = Counter()
        self.done = sum(state is BlockState.DONE for state in self._states.values())
        self.cost_left = sum(cost[block] for block, state in self._states.items() if state is not BlockState.DONE)

    def __len__(self) -> int:
        return len(self._states)

    def state(self, block: BlockIndex) -> BlockState:
        """Return the state of a block."""
        return self._states[block]

    @property
    def is_finished(self) -> bool:
        """Whether every block is done."""
        return self.done == len(self._states)

    @property
    def is_submitted(self) -> bool:
        """Whether every block is done or submitted, and none is on trial."""
        return not (self._batcher or self._suspects or self._trial)

    def adopt(self, group: Group) -> None:
        """Note a task with waiting blocks that was submitted before."""
        self._batcher.remove(group)
        self._submit(group)

    def take(self, slots: int, pace: float | None = None) -> Group | None:
        """Return the blocks of the next task, which is in flight from now on; None if no task may be submitted now.

        Parameters
        ----------
        slots : int
            Tasks that run at a time.
        pace : float or None
            Seconds of one thread for a cost of 1, so far.
        """
        if self._suspects and not self._in_flight:
            self._trial = self._submit((self._suspects.popleft(),))
            return self._trial
        if self._suspects or self._trial or not self._batcher or len(self._in_flight) >= TASKS_PER_THREAD * slots:
            return None
        return self._submit(self._batcher.take(slots, pace))

    def finish(self, group: Group) -> None:
        """Note that the blocks of a task are in the spool."""
        self._end(group, BlockState.DONE)
        self.done += len(group)
        self.cost_left -= sum(self._cost[block] for block in group)

    def lose(self, group: Group) -> None:
        """Note that a task was lost: no worker runs it. Its blocks are submitted again."""
        if group == self._trial:
            self._end(group, BlockState.SUSPECT)
            self._suspects.extend(group)
        else:
            self._end(group, BlockState.WAITING)
            self._batcher.put_back(group)

    def kill(self, group: Group) -> BlockIndex | None:
        """Note that the worker of a task died; return the block that is guilty by now, or None."""
        if group == self._trial:
            self._deaths.update(group)
        self._end(group, BlockState.SUSPECT)
        self._suspects.extend(group)
        return next((block for block in group if self._deaths[block] >= DEATHS), None)

    def forget(self, block: BlockIndex) -> None:
        """Note that the file of a finished block is damaged: the block waits again."""
        if self._states[block] is BlockState.DONE:
            self._states[block] = BlockState.WAITING
            self._batcher.put_back((block,))
            self.done -= 1
            self.cost_left += self._cost[block]

    def _submit(self, group: Group) -> Group:
        self._in_flight.add(group)
        self._states.update(dict.fromkeys(group, BlockState.SUBMITTED))
        return group

    def _end(self, group: Group, state: BlockState) -> None:
        self._in_flight.remove(group)
        self._states.update(dict.fromkeys(group, state))
        if group == self._trial:
            self._trial = None
