"""Rate and remaining time of a slide."""

import pytest

from wsi_denoise.processing.dask.block_queue import BlockQueue
from wsi_denoise.processing.dask.progress import ProgressMeter
from wsi_denoise.processing.events import Progress
from wsi_denoise.processing.values import BlockReport
from wsi_denoise.slide.geometry import BlockIndex

BLOCKS = [BlockIndex(0, column) for column in range(4)]
COST = dict(zip(BLOCKS, (100.0, 300.0, 100.0, 500.0), strict=True))


class Slide:
    """A slide of four blocks whose first one is in the spool, and a clock."""

    def __init__(self, uncounted=()) -> None:
        self.now = 5.0
        self.queue = BlockQueue(COST, BLOCKS, done=BLOCKS[:1])
        self.meter = ProgressMeter(COST, 1, uncounted, clock=lambda: self.now)

    def finish(self, block: BlockIndex, seconds: dict[str, float]) -> None:
        self.queue.adopt((block,))
        self.queue.finish((block,))
        self.meter.count([BlockReport(block, 2_000_000, 0, 0, seconds)])

    @property
    def progress(self) -> Progress:
        return self.meter.progress(self.queue)


def test_nothing_is_estimated_before_the_first_block():
    slide = Slide()
    assert slide.progress == Progress(1, 4, 1)
    assert slide.meter.pace is None


def test_the_remaining_time_follows_the_cost():
    slide = Slide()
    slide.finish(BLOCKS[1], {"read": 1.0, "network": 5.0})
    slide.now += 6
    assert slide.progress == Progress(2, 4, 1, rate=pytest.approx(2 / 6), seconds_left=pytest.approx(600 / 300 * 6))
    assert slide.meter.pace == pytest.approx(6 / 300)
    slide.finish(BLOCKS[2], {"read": 2.0})
    assert slide.meter.seconds == {"read": 3.0, "network": 5.0}


def test_blocks_that_were_ready_at_the_start_do_not_count_for_the_rate():
    slide = Slide(uncounted=BLOCKS[1:2])
    slide.finish(BLOCKS[1], {"network": 6.0})
    slide.now += 1
    assert slide.progress == Progress(2, 4, 1)
    assert slide.meter.pace == pytest.approx(6 / 300), "its time is known, though"


def test_a_block_whose_file_existed_has_no_pace():
    slide = Slide()
    slide.finish(BLOCKS[1], {})
    assert slide.meter.pace is None
