"""The next slide is started while the current one is finished."""

import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.events import RecordedEvents
from support.slide_case import SECOND, Case, noisy, settings_in, write_slide
from wsi_denoise.errors import (
    NoSuchPreset,
)
from wsi_denoise.processing.dask import remote
from wsi_denoise.processing.dask.cluster import Cluster
from wsi_denoise.processing.dask.prefetch import Prefetch
from wsi_denoise.processing.events import Interrupted
from wsi_denoise.processing.spool import THUMBNAIL
from wsi_denoise.processing.values import SlidePlan


@pytest.fixture
def prefetch(cluster) -> Iterator[Prefetch]:
    prefetch = Prefetch(cluster)
    yield prefetch
    prefetch.drop()


class Starts(RecordedEvents):
    """Starts another slide ahead as soon as workers become idle."""

    def __init__(self, prefetch: Prefetch, following: "Case") -> None:
        super().__init__()
        self._prefetch, self._planning = prefetch, following.request().planning

    def submitted(self) -> None:
        super().submitted()
        self._prefetch.start(*self._planning)


def another(strip: Case, clean: np.ndarray) -> Case:
    """A second slide, in a folder of its own."""
    folder = strip.folder / "next"
    folder.mkdir()
    slide = write_slide(folder / "a.tiff", noisy(clean[300:500, :400], 15))
    return Case(strip.cluster, folder, slide, settings_in(folder))


class Listed(Cluster):
    """A cluster that lists the submitted tasks."""

    def call(self, function, *arguments, priority=0):
        future = super().call(function, *arguments, priority=priority)
        self.tasks.append((function, future))
        return future

    @cached_property
    def tasks(self) -> list[tuple[Callable[..., object], Any]]:
        return []

    @property
    def calls(self) -> list[Callable[..., object]]:
        return [function for function, _ in self.tasks]

    def statuses(self, wanted: Callable[..., object]) -> list[str]:
        """Return the states of all tasks of this function."""
        return [future.status for function, future in self.tasks if function is wanted]


def test_the_next_slide_is_planned_while_the_last_blocks_run(strip, clean, prefetch):
    following = another(strip, clean)
    strip.run(Starts(prefetch, following), prefetch=prefetch)
    following.cluster = Listed(strip.cluster.client, "")
    following.run(prefetch=prefetch)
    assert (following.spooled / THUMBNAIL).is_file()
    assert remote.plan_slide not in following.cluster.calls, "it was planned a second time"
    assert remote.assemble in following.cluster.calls
    before = following.pixels()
    following.run()
    assert remote.plan_slide in following.cluster.calls
    np.testing.assert_array_equal(following.pixels(), before)


def wait_until(condition: Callable[[], object]) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen in 20 s")


def blocks_in(case: Case) -> list[Path]:
    return list((case.folder / ".wsi-denoise" / "spool").glob("*/*.block"))


def test_the_first_blocks_of_the_next_slide_are_done_while_this_one_ends(strip, clean, prefetch):
    following = another(strip, clean)
    strip.run(Starts(prefetch, following), prefetch=prefetch)
    wait_until(lambda: blocks_in(following))
    (block,) = blocks_in(following)
    made = block.stat().st_mtime_ns
    result = following.run(prefetch=prefetch)
    assert following.seen[-1].resumed == 0, "it is this attempt's own work"
    assert result.seconds["network"] > 0
    assert block.stat().st_mtime_ns == made, "it was done a second time"
    before = following.pixels()
    following.run()
    np.testing.assert_array_equal(following.pixels(), before)


def test_blocks_begun_for_another_slide_are_not_taken(strip, clean, prefetch):
    following = another(strip, clean)
    prefetch.start(*following.request().planning)
    wait_until(lambda: blocks_in(following))
    strip.run(prefetch=prefetch)
    assert (strip.seen[-1].done, strip.seen[-1].total) == (2, 2)
    following.run(prefetch=prefetch)
    assert following.seen[-1].resumed == 1, "the block is in the spool although its result was lost"


def test_a_block_ahead_that_failed_is_done_again(strip, clean):
    following = another(strip, clean)
    listed = Listed(strip.cluster.client, "")
    prefetch = Prefetch(listed)
    spool = following.folder / ".wsi-denoise" / "spool"
    spool.parent.mkdir(exist_ok=True)
    spool.write_text("in the way")
    prefetch.start(*following.request().planning)
    wait_until(lambda: listed.statuses(remote.blocks) == ["error"])
    spool.unlink()
    following.run(prefetch=prefetch)
    assert following.output.is_file()


def test_a_guess_that_was_wrong_or_failed_costs_nothing(strip, clean, prefetch):
    following = another(strip, clean)
    prefetch.start(*following.request().planning)
    strip.run(prefetch=prefetch)
    whole = strip.slide.read_bytes()
    strip.slide.write_bytes(b"no slide at all" * 100)
    prefetch.start(*strip.request().planning)
    strip.slide.write_bytes(whole)
    following.run(prefetch=prefetch)
    with pytest.raises(NoSuchPreset):
        strip.run(prefetch=prefetch, preset="nonsense")


class Hanging(Cluster):
    """A cluster whose workers hang on what they are given, as on a file of a share that went away."""

    def call(self, _function, *_arguments, priority=0):
        return self.client.submit(time.sleep, 600, pure=False, priority=priority)


def test_a_plan_made_ahead_that_hangs_is_ended_and_not_begun_again(strip, cluster):
    hanging = Prefetch(Hanging(cluster.client, ""))

    class Hangs(Starts):
        def check(self) -> None:
            if hanging.end_hung(2.0):
                raise Interrupted

    # The only worker hangs before the output is put together.
    with pytest.raises(Interrupted):
        strip.run(Hangs(hanging, strip))
    strip.run(Hangs(hanging, strip))
    assert strip.seen[0].resumed == 2
    assert strip.events.tails == 1
    assert strip.output.is_file()


def test_a_worker_that_dies_with_a_plan_made_ahead_loses_only_that(strip, clean, prefetch, killer):
    following = another(strip, clean)
    death = killer(SECOND, 1)

    class StartsAndDies(Starts):
        def planned(self, plan: SlidePlan) -> None:
            super().planned(plan)
            death.planned(plan)

    strip.run(StartsAndDies(prefetch, following), prefetch=prefetch)
    assert len(death.killed) == 1
    assert strip.seen[-1].done == 2
    following.run(prefetch=prefetch)
    assert following.output.is_file()
