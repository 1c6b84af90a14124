"""A slide that is interrupted goes on where it was, and ends with the same pixels."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from wsi_denoise.jobs.states import JobState

LONG = os.environ.get("WSI_DENOISE_LONG") == "1"
SIZE = (10_000, 10_000) if LONG else (5000, 3300)
BLOCKS = -(-SIZE[0] // 1536) * -(-SIZE[1] // 1536)
PATIENCE = 3600 if LONG else 600
SETTINGS = {"output": {"compression": "deflate"}, "compute": {"workers": 2}}
NAME = "large.tiff"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * PATIENCE)]


@pytest.fixture(scope="module")
def slide(tmp_path_factory, save_slide, tiled_tissue, add_noise) -> Path:
    return save_slide(tmp_path_factory.mktemp("slide") / NAME, add_noise(tiled_tissue(*SIZE), 25, seed=1))


@pytest.fixture(scope="module")
def undisturbed(open_workplace, slide, copy_in, tiles_of) -> list[list[bytes]]:
    """The tiles of an output that nothing happened to."""
    with open_workplace(SETTINGS) as place:
        copy_in(slide, place.inbox / NAME)
        place.start()
        job = place.done(NAME, PATIENCE)
        assert (job.blocks_done, job.blocks_total, job.blocks_resumed) == (BLOCKS, BLOCKS, 0)
        place.stop()
        return tiles_of(job.output)


def spooled(place) -> dict[str, int]:
    """Return when each finished block was written."""
    files = {}
    for file in (place.folder / ".wsi-denoise" / "spool").glob("*/*.block"):
        files[file.name] = file.stat().st_mtime_ns
    return files


def started(place, slide, copy_in, *, blocks: int):
    """Start a daemon on the slide, and wait until some blocks are finished."""
    copy_in(slide, place.inbox / NAME)
    place.start()
    place.wait(lambda: len(spooled(place)) >= blocks, f"{blocks} blocks", PATIENCE)
    job = place.wait_for(NAME, JobState.RUNNING)
    assert len(spooled(place)) < BLOCKS, "it was not in the middle any more"
    return job


def check_whole(place, tiles_of, undisturbed):
    """Compare the output with the undisturbed one, and see that nothing lies about."""
    (job,) = place.jobs_of(NAME)
    assert job.state is JobState.DONE
    assert job.blocks_done == BLOCKS
    assert tiles_of(job.output) == undisturbed
    assert [file.name for file in place.output.iterdir()] == [f"{NAME}.denoised.tiff"]
    spool = place.folder / ".wsi-denoise" / "spool"  # goes after the record says done
    place.wait(lambda: not list(spool.iterdir()), "the spool is empty")
    return job


def test_killed_daemon_goes_on_where_it_was(workplace, slide, copy_in, tiles_of, undisturbed):
    place = workplace(SETTINGS)
    started(place, slide, copy_in, blocks=BLOCKS // 3)
    place.kill()
    assert not place.processes()
    finished = spooled(place)
    assert BLOCKS // 3 <= len(finished) < BLOCKS
    assert not list(place.output.rglob("*.denoised.tiff"))

    place.start()
    job = place.wait(
        lambda: (job := place.job(NAME)) and (job.blocks_resumed or job.finished) and job, "the job goes on", PATIENCE
    )
    assert job.blocks_resumed == len(finished)
    again = place.wait(lambda: len(now := spooled(place)) > len(finished) and now, "another block", PATIENCE)
    assert {name: again[name] for name in finished} == finished  # not one was written again
    place.done(NAME, PATIENCE)
    place.stop()

    job = check_whole(place, tiles_of, undisturbed)
    assert job.blocks_resumed == len(finished)
    first, second = place.store.attempts(job.id)
    assert (first.outcome, second.outcome) == ("daemon_died", "done")
    assert second.blocks_done == BLOCKS
    assert second.blocks_resumed == len(finished)
    assert place.json("verify", job.output)["ok"]


def test_lost_worker_costs_only_its_own_blocks(workplace, slide, copy_in, tiles_of, undisturbed):
    place = workplace(SETTINGS)
    started(place, slide, copy_in, blocks=BLOCKS // 4)
    finished = spooled(place)
    workers = place.workers()
    assert len(workers) == 2
    workers[0].send_signal(signal.SIGKILL)
    job = place.done(NAME, PATIENCE)
    assert job.attempts == 1
    place.stop()
    check_whole(place, tiles_of, undisturbed)
    assert len(finished) >= BLOCKS // 4


def test_workers_do_not_outlive_their_daemon(workplace, slide, copy_in):
    place = workplace(SETTINGS)
    started(place, slide, copy_in, blocks=1)
    place.process.kill()
    place.process.wait()
    _, alive = psutil.wait_procs(place.processes(), timeout=60)
    assert not alive


def test_shutdown_in_the_middle_gives_the_job_back(workplace, slide, copy_in, tiles_of, undisturbed):
    place = workplace(SETTINGS)
    started(place, slide, copy_in, blocks=BLOCKS // 4)
    place.stop(20)
    _, alive = psutil.wait_procs(place.processes(), timeout=60)  # multiprocessing's own helper ends after its parent
    assert not alive
    (job,) = place.jobs()
    assert job.state is JobState.QUEUED
    assert job.next_try is None
    finished = spooled(place)
    assert len(finished) >= BLOCKS // 4
    assert not list(place.output.rglob("*"))

    place.start()
    place.done(NAME, PATIENCE)
    place.stop()
    job = check_whole(place, tiles_of, undisturbed)
    assert job.blocks_resumed >= len(finished)
    # A shutdown does not count as an attempt that failed.
    assert job.attempts == 1
