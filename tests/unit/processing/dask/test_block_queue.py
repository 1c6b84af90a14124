"""Which block of a slide is submitted when, whatever workers do. Without a cluster."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wsi_denoise.processing.dask.batching import LEAST, Group
from wsi_denoise.processing.dask.block_queue import DEATHS, TASKS_PER_THREAD, BlockQueue, BlockState
from wsi_denoise.slide.geometry import BlockIndex

BLOCKS = [BlockIndex(0, column) for column in range(12)]
TISSUE, BACKGROUND = 2 * LEAST, LEAST / 8


def queue_of(costs, done=()) -> BlockQueue:
    blocks = BLOCKS[: len(costs)]
    return BlockQueue(dict(zip(blocks, costs, strict=True)), blocks, done)


def take_all(queue: BlockQueue, slots: int = 1) -> list[Group]:
    return list(iter(lambda: queue.take(slots), None))


@dataclass
class Simulation:
    """A slide on workers that die of guilty blocks, and sometimes without a reason."""

    queue: BlockQueue
    guilty: frozenset[BlockIndex]
    chance: st.DataObject
    runs: list[Group] = field(default_factory=list)

    def run(self, slots: int) -> BlockIndex | None:
        """Run to the end, and return the block that is blamed."""
        tasks: list[Group] = []
        accidents = 6
        while not self.queue.is_finished:
            tasks += take_all(self.queue, slots)
            assert tasks, "nothing is in flight, and nothing is submitted"
            group = tasks[self.chance.draw(st.integers(0, len(tasks) - 1))]
            dies = bool(self.guilty & set(group))
            if not dies and accidents and self.chance.draw(st.booleans()):
                accidents -= 1
                dies = len(tasks) > 1 and self.chance.draw(st.booleans())
                if not dies:
                    tasks.remove(group)
                    self.queue.lose(group)
                    continue
            if not dies:
                tasks.remove(group)
                self.queue.finish(group)
                self.runs.append(group)
                continue
            dead, tasks = tasks, []  # one worker has them all
            for each in dead:
                blamed = self.queue.kill(each)
                if blamed is not None:
                    return blamed
        return None


@given(st.data(), st.lists(st.sampled_from([TISSUE, BACKGROUND]), min_size=1, max_size=12), st.integers(1, 3))
@settings(deadline=None)
def test_every_block_is_done_once_and_only_a_guilty_one_is_blamed(data, costs, slots):
    blocks = BLOCKS[: len(costs)]
    guilty = data.draw(st.frozensets(st.sampled_from(blocks), max_size=2))
    simulation = Simulation(queue_of(costs), guilty, data)
    blamed = simulation.run(slots)
    done = [block for group in simulation.runs for block in group]
    assert len(done) == len(set(done))
    if guilty:
        assert blamed in guilty
        assert not guilty & set(done)
    else:
        assert blamed is None
        assert sorted(done) == blocks
        assert simulation.queue.cost_left == pytest.approx(0, abs=1e-6)


class Model(RuleBasedStateMachine):
    """Any order of events: counts agree with the states, and a trial is alone."""

    @initialize(
        costs=st.lists(st.sampled_from([TISSUE, BACKGROUND]), min_size=1, max_size=12),
        slots=st.integers(1, 3),
        data=st.data(),
    )
    def start(self, costs, slots, data):
        self.cost = dict(zip(BLOCKS, costs, strict=False))
        done = data.draw(st.sets(st.sampled_from(list(self.cost))))
        self.queue, self.slots = queue_of(costs, done), slots
        self.tasks: list[Group] = []
        self.suspected: set[BlockIndex] = set()

    def draw(self, data) -> Group:
        return self.tasks.pop(data.draw(st.integers(0, len(self.tasks) - 1)))

    @rule()
    def submit(self):
        before = len(self.tasks)
        group = self.queue.take(self.slots)
        if group is None:
            return
        self.tasks.append(group)
        if self.suspected:
            assert before == 0, "another task is in flight beside a suspect"
            assert len(group) == 1
            assert group[0] in self.suspected

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def finish(self, data):
        group = self.draw(data)
        self.queue.finish(group)
        self.suspected -= set(group)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def lose(self, data):
        self.queue.lose(self.draw(data))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def kill(self, data):
        group = self.draw(data)
        self.queue.kill(group)
        self.suspected |= set(group)

    @rule(block=st.sampled_from(BLOCKS))
    def forget(self, block):
        if block in self.cost and self.queue.state(block) is BlockState.DONE:
            self.queue.forget(block)

    @invariant()
    def counts_agree(self):
        states = {block: self.queue.state(block) for block in self.cost}
        assert self.queue.done == sum(state is BlockState.DONE for state in states.values())
        left = sum(self.cost[block] for block, state in states.items() if state is not BlockState.DONE)
        assert self.queue.cost_left == pytest.approx(left, abs=1e-6)
        in_flight = {block for group in self.tasks for block in group}
        assert {block for block, state in states.items() if state is BlockState.SUBMITTED} == in_flight
        assert len(self.tasks) <= TASKS_PER_THREAD * self.slots
        assert self.queue.is_finished == (self.queue.done == len(self.cost))
        assert not (self.queue.is_submitted and self.suspected)


Model.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
TestModel = Model.TestCase


def test_a_trial_is_alone_even_when_it_is_the_last_suspect():
    queue = queue_of([TISSUE] * 5)
    tasks = take_all(queue)
    assert len(tasks) == TASKS_PER_THREAD
    for task in tasks[1:]:
        queue.finish(task)
    assert queue.kill(tasks[0]) is None
    assert take_all(queue) == [tasks[0]]
    assert not queue.is_submitted
    queue.finish(tasks[0])
    assert len(take_all(queue)) == 2
    assert queue.is_submitted


def test_a_death_beside_other_tasks_is_not_counted():
    queue = queue_of([TISSUE] * 2)
    for _ in range(DEATHS):
        first, second = take_all(queue)
        queue.finish(second)
        assert queue.kill(first) is None
        assert take_all(queue) == [first]
        queue.finish(first)
        for block in reversed(BLOCKS[:2]):
            queue.forget(block)


def test_a_block_is_blamed_after_so_many_trials():
    queue = queue_of([TISSUE])
    assert queue.kill(take_all(queue)[0]) is None  # alone by chance, but not on trial
    for _ in range(DEATHS - 1):
        assert queue.kill(take_all(queue)[0]) is None
    assert queue.kill(take_all(queue)[0]) == BLOCKS[0]


def test_a_lost_trial_stays_a_suspect():
    queue = queue_of([TISSUE] * 4)
    first, *others = take_all(queue)
    for task in others:
        queue.finish(task)
    queue.kill(first)
    queue.lose(take_all(queue)[0])
    assert queue.state(first[0]) is BlockState.SUSPECT
    assert take_all(queue) == [first]


def test_adopted_tasks_are_in_flight():
    queue = queue_of([TISSUE] * 4, done=[BLOCKS[3]])
    queue.adopt((BLOCKS[1],))
    assert take_all(queue) == [(BLOCKS[0],), (BLOCKS[2],)]
    queue.finish((BLOCKS[1],))
    assert queue.done == 2
