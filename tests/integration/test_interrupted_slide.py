"""A slide that is interrupted: workers die, blocks are damaged, the job is cancelled or stopped."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from support.events import RecordedEvents
from support.slide_case import FIRST, SECOND, Case, noisy, settings_in, write_slide
from support.started import mark, marking, started
from wsi_denoise.errors import (
    BlockKillsWorker,
    JobCancelled,
    UnreadableTile,
)
from wsi_denoise.processing.dask.cluster import connect
from wsi_denoise.processing.events import Interrupted
from wsi_denoise.processing.values import SlidePlan
from wsi_denoise.slide.verify import sha256


def test_a_worker_that_dies_costs_nothing_but_time(strip, killer):
    death = killer(FIRST, 1)
    result = strip.run(death)
    assert len(death.killed) == 1
    assert sha256(strip.output) == result.sha256
    assert strip.seen[-1].done == 2
    undisturbed = strip.pixels()
    for file in strip.spooled.iterdir():
        file.unlink()
    strip.run()
    np.testing.assert_array_equal(strip.pixels(), undisturbed)


@pytest.mark.slow
def test_a_block_that_always_kills_its_worker_is_named_and_the_others_are_kept(strip, killer):
    deaths = killer(SECOND, 10)
    with pytest.raises(BlockKillsWorker) as caught:
        strip.run(deaths)
    assert f"block {SECOND}, at x 1536, y 0" in str(caught.value)
    assert len(deaths.killed) >= 3
    assert not strip.output.exists()
    deaths.stop()
    strip.run()
    assert strip.seen[0].resumed == 1


def test_a_spooled_block_that_was_cut_off_is_done_again(strip):
    strip.run()
    before = strip.pixels()
    file = strip.spooled / f"{SECOND}.block"
    os.truncate(file, file.stat().st_size // 2)
    strip.run()
    assert (strip.seen[0].done, strip.seen[0].resumed) == (1, 1)
    assert strip.seen[-1].done == 2
    np.testing.assert_array_equal(strip.pixels(), before)


@pytest.mark.parametrize("member", ["0/0/2", "reduced", "evidence.npz"])
def test_a_flipped_bit_in_the_spool_is_found_and_done_again(strip, member):
    strip.run()
    before = strip.pixels()
    file = strip.spooled / f"{FIRST}.block"
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(member)
    content = bytearray(file.read_bytes())
    content[info.header_offset + 30 + len(info.filename) + info.file_size // 2] ^= 1
    file.write_bytes(content)
    strip.run()
    # Every finished block is read completely before the slide resumes from it.
    assert strip.seen[0].done == 1
    assert [progress.done for progress in strip.seen][-2:] == [1, 2]
    np.testing.assert_array_equal(strip.pixels(), before)


def test_a_block_that_vanishes_while_the_slide_is_done_is_done_again(strip):
    removed: list[Path] = []

    class Removes(RecordedEvents):
        def check(self) -> None:
            if not removed and self.progress and self.progress[-1].done == 2:
                removed.append(strip.spooled / f"{FIRST}.block")
                removed[0].unlink()

    strip.run(Removes())
    assert removed
    assert [progress.done for progress in strip.seen][-2:] == [1, 2]
    assert strip.output.is_file()


def test_a_cancelled_slide_stops_and_publishes_nothing(strip):
    class Cancelled(RecordedEvents):
        def check(self) -> None:
            if self.progress and self.progress[-1].done:
                raise JobCancelled

    with pytest.raises(JobCancelled):
        strip.run(Cancelled())
    assert not strip.output.exists()
    assert strip.left_over() == []
    strip.run()
    assert strip.seen[0].resumed >= 1
    assert strip.output.is_file()


def test_a_slide_can_be_cancelled_before_anything_is_done(strip):
    class Cancelled(RecordedEvents):
        def check(self) -> None:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        strip.run(Cancelled())
    assert strip.seen == []


def test_a_shutdown_lets_the_running_block_finish(cluster, clean, tmp_path):
    # Four blocks: as one ends, the worker is at the next one when the main process is asked again, however fast it is.
    slide = write_slide(tmp_path / "a.tiff", noisy(clean, 15))
    square = Case(cluster, tmp_path, slide, settings_in(tmp_path))
    running: list[Path] = []

    class Stopped(RecordedEvents):
        def check(self) -> None:
            if self.plans and not running:
                running.extend(started(square.spooled))
                if running:
                    raise Interrupted

    with pytest.raises(Interrupted):
        square.run(Stopped())
    assert running[0].with_suffix(".block").is_file()
    assert not square.output.exists()
    square.run()
    assert square.seen[0].resumed >= 1


def test_nothing_works_on_a_bad_slide_any_more_when_that_is_told(clean, tmp_path):
    slide = write_slide(tmp_path / "a.tiff", noisy(clean, 15))
    with tifffile.TiffFile(slide) as tiff:
        page = tiff.pages.first
        offset, length = page.dataoffsets[0], page.databytecounts[0]

    class Damages(RecordedEvents):
        def planned(
            self, plan: SlidePlan
        ) -> None:  # not before: the thumbnail of a slide of one level needs every tile
            super().planned(plan)
            with slide.open("r+b") as file:
                file.seek(offset)
                file.write(bytes(length))

    settings = settings_in(tmp_path, compute__threads=2)
    with marking(), connect(settings) as two:
        square = Case(two, tmp_path, slide, settings, watched=False)  # the damage is made here, and changes the time
        with pytest.raises(UnreadableTile):
            square.run(Damages())
        assert list(started(square.spooled)) in ([], [mark(square.spooled, FIRST)])
        assert two.client.submit(os.getpid).result(timeout=60), "and the worker is there for the next one"
