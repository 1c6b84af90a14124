"""What a look at a cluster means, and what follows from it. With a real one: tests/integration/test_recovery.py."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from wsi_denoise.errors import NoWorkers, SchedulerUnreachable, WorkerLost
from wsi_denoise.processing.dask.stall import AGAIN, IDLE_LOOKS, LOOK_SECONDS, SILENT_LOOKS, Seen, Watch, judge
from wsi_denoise.settings import LimitSettings

RUNNING = {"tcp://a": "running", "tcp://b": "running"}


@dataclass(frozen=True)
class Task:
    key: str


TASKS = [Task("one"), Task("two")]


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (Seen(answered=False), "silent"),
        (Seen(answered=True), "no_workers"),
        (Seen(answered=True, workers=RUNNING, executing={"one": "network.py:7"}), "busy"),
        (Seen(answered=True, workers=RUNNING, executing={"of another daemon": "network.py:7"}), "busy"),
        (Seen(answered=True, workers=RUNNING, silent=["tcp://a"]), "busy"),
        (Seen(answered=True, workers=RUNNING), "idle"),
        (Seen(answered=True, workers=RUNNING, placed={"one": "tcp://a"}), "idle"),
        (Seen(answered=True, workers={"tcp://a": "paused"}), "paused"),
        (Seen(answered=True, workers={"tcp://a": "paused", "tcp://b": "running"}), "idle"),
    ],
)
def test_a_look_means(seen, kind):
    finding = judge(seen, {"one", "two"})
    assert finding.kind == kind
    assert finding.text


class Story:
    """A watch whose clock goes on by the time between two looks, and what it said."""

    def __init__(self, *seen: Seen, **limits: float) -> None:
        self.now, self.said, self.seen = 0.0, [], list(seen)
        self.watch = Watch(
            SimpleNamespace(),
            LimitSettings(**limits),
            self.said.append,
            clock=lambda: self.now,
            look=lambda _cluster: self.seen.pop(0) if len(self.seen) > 1 else self.seen[0],
        )

    def look(self):
        self.now += LOOK_SECONDS
        return self.watch.look(TASKS)


def test_nobody_is_asked_while_blocks_finish():
    story = Story(Seen(answered=False))
    for _ in range(20):
        story.now += LOOK_SECONDS / 2
        assert story.watch.look(TASKS) == []
        story.watch.moved()
    assert story.said == []


def test_a_scheduler_that_never_answers_is_given_up():
    story = Story(Seen(answered=False))
    for _ in range(SILENT_LOOKS - 1):
        assert story.look() == []
    with pytest.raises(SchedulerUnreachable):
        story.look()
    assert len(story.said) == 1


def test_a_scheduler_that_answers_again_is_not():
    story = Story(*[Seen(answered=False), Seen(answered=True, workers=RUNNING, executing={"one": "x"})] * 5)
    for _ in range(9):
        assert story.look() == []


def test_a_cluster_without_workers_is_said_once_and_given_up_later():
    story = Story(Seen(answered=True), no_worker_seconds=10 * LOOK_SECONDS)
    for _ in range(9):
        assert story.look() == []
    assert len(story.said) == 1
    assert "no worker" in story.said[0]
    with pytest.raises(NoWorkers):
        story.look()


def test_workers_that_are_gone_after_a_long_task_are_waited_for_as_long_as_any():
    at_work = Seen(answered=True, workers=RUNNING, executing={"two": "assemble.py:1"})
    story = Story(*[at_work] * 30, Seen(answered=True), no_worker_seconds=5 * LOOK_SECONDS)
    for _ in range(30 + 4):
        assert story.look() == []
    with pytest.raises(NoWorkers, match=f"for {5 * LOOK_SECONDS:.0f} s "):
        story.look()


def test_slow_workers_are_waited_for():
    story = Story(Seen(answered=True, workers=RUNNING, executing={"two": "decode.py:1"}), task_seconds=1e9)
    for _ in range(1000):
        assert story.look() == []
    assert story.said == []


def test_tasks_that_nobody_is_at_are_handed_out_again_and_not_for_ever():
    story = Story(Seen(answered=True, workers=RUNNING))
    for _ in range(AGAIN):
        for _ in range(IDLE_LOOKS - 1):
            assert story.look() == []
        assert story.look() == TASKS
    for _ in range(IDLE_LOOKS - 1):
        assert story.look() == []
    with pytest.raises(WorkerLost):
        story.look()
    assert len(story.said) == 1


def test_one_idle_look_between_two_tasks_means_nothing():
    story = Story(
        *[Seen(answered=True, workers=RUNNING), Seen(answered=True, workers=RUNNING, executing={"one": "x"})] * 9
    )
    for _ in range(17):
        assert story.look() == []
    assert story.said == []


def test_something_that_finished_starts_everything_anew():
    story = Story(Seen(answered=True, workers=RUNNING))
    for _ in range(3 * AGAIN):
        for _ in range(IDLE_LOOKS - 1):
            story.look()
        assert story.look() == TASKS
        story.watch.moved()
