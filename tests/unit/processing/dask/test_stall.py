"""What a check of a cluster means, and what follows from it. With a real one: tests/integration/test_recovery.py."""

from dataclasses import dataclass

import pytest

from support.events import RecordedEvents
from wsi_denoise.errors import NoWorkers, SchedulerUnreachable, WorkerLost
from wsi_denoise.processing.dask.cluster import Cluster
from wsi_denoise.processing.dask.inspection import Seen
from wsi_denoise.processing.dask.stall import (
    CHECK_SECONDS,
    IDLE_CHECKS,
    RESUBMISSIONS,
    SILENT_CHECKS,
    Watch,
    diagnose,
)
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
def test_a_check_means(seen, kind):
    finding = diagnose(seen, {"one", "two"})
    assert finding.kind == kind
    assert finding.text


class Story:
    """A watch whose clock advances by the time between two checks, and what it said."""

    def __init__(self, *seen: Seen, **limits: float) -> None:
        self.now, self.seen, self.events = 0.0, list(seen), RecordedEvents()
        self.watch = Watch(
            Cluster(None, "never asked"),
            LimitSettings(**limits),
            self.events,
            clock=lambda: self.now,
            ask=lambda _cluster: self.seen.pop(0) if len(self.seen) > 1 else self.seen[0],
        )

    def check(self):
        self.now += CHECK_SECONDS
        return self.watch.check(TASKS)


def test_the_cluster_is_not_asked_while_blocks_finish():
    story = Story(Seen(answered=False))
    for _ in range(20):
        story.now += CHECK_SECONDS / 2
        assert story.watch.check(TASKS) == []
        story.watch.moved()
    assert story.events.said == []


def test_a_scheduler_that_never_answers_is_given_up():
    story = Story(Seen(answered=False))
    for _ in range(SILENT_CHECKS - 1):
        assert story.check() == []
    with pytest.raises(SchedulerUnreachable):
        story.check()
    assert len(story.events.said) == 1


def test_a_scheduler_that_answers_again_is_not():
    story = Story(*[Seen(answered=False), Seen(answered=True, workers=RUNNING, executing={"one": "x"})] * 5)
    for _ in range(9):
        assert story.check() == []


def test_a_cluster_without_workers_is_said_once_and_given_up_later():
    story = Story(Seen(answered=True), no_worker_seconds=10 * CHECK_SECONDS)
    for _ in range(9):
        assert story.check() == []
    assert len(story.events.said) == 1
    assert "no worker" in story.events.said[0]
    with pytest.raises(NoWorkers):
        story.check()


def test_workers_that_are_gone_after_a_long_task_get_the_whole_timeout():
    at_work = Seen(answered=True, workers=RUNNING, executing={"two": "assemble.py:1"})
    story = Story(*[at_work] * 30, Seen(answered=True), no_worker_seconds=5 * CHECK_SECONDS)
    for _ in range(30 + 4):
        assert story.check() == []
    with pytest.raises(NoWorkers, match=f"for {5 * CHECK_SECONDS:.0f} s "):
        story.check()


def test_slow_workers_are_waited_for():
    story = Story(Seen(answered=True, workers=RUNNING, executing={"two": "decode.py:1"}), task_seconds=1e9)
    for _ in range(1000):
        assert story.check() == []
    assert story.events.said == []


def test_tasks_that_no_worker_runs_are_resubmitted_a_few_times():
    story = Story(Seen(answered=True, workers=RUNNING))
    for _ in range(RESUBMISSIONS):
        for _ in range(IDLE_CHECKS - 1):
            assert story.check() == []
        assert story.check() == TASKS
    for _ in range(IDLE_CHECKS - 1):
        assert story.check() == []
    with pytest.raises(WorkerLost):
        story.check()
    assert len(story.events.said) == 1


def test_one_idle_check_between_two_tasks_means_nothing():
    story = Story(
        *[Seen(answered=True, workers=RUNNING), Seen(answered=True, workers=RUNNING, executing={"one": "x"})] * 9
    )
    for _ in range(17):
        assert story.check() == []
    assert story.events.said == []


def test_a_finished_task_resets_every_count():
    story = Story(Seen(answered=True, workers=RUNNING))
    for _ in range(3 * RESUBMISSIONS):
        for _ in range(IDLE_CHECKS - 1):
            story.check()
        assert story.check() == TASKS
        story.watch.moved()
