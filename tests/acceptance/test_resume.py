"""An interrupted slide resumes, and ends with the same pixels."""

import signal
from pathlib import Path

import psutil
import pytest

from support.slides import add_noise, tiled_tissue, tiles_of, write_slide
from wsi_denoise.jobs.states import JobState

SIZE = (4000, 3300)
BLOCKS = 3 * 3
PATIENCE = 600
SETTINGS = {"output": {"compression": "deflate"}, "compute": {"workers": 2}}
NAME = "large.tiff"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * PATIENCE)]


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / NAME, add_noise(tiled_tissue(*SIZE), 25, seed=1))


@pytest.fixture(scope="module")
def undisturbed(open_workplace, slide) -> list[list[bytes]]:
    """Return the tiles of an output that was made without interruption."""
    with open_workplace(SETTINGS) as place:
        (job,) = place.json("run", slide)["jobs"]
        assert (job["blocks_done"], job["blocks_total"], job["blocks_resumed"]) == (BLOCKS, BLOCKS, 0)
        return tiles_of(job["output"])


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


def check_whole(place, undisturbed):
    """Compare the output with the undisturbed one, and see that nothing lies about."""
    (job,) = place.jobs_of(NAME)
    assert job.state is JobState.DONE
    assert job.blocks_done == BLOCKS
    assert tiles_of(job.output) == undisturbed
    assert [file.name for file in place.output.iterdir()] == [f"{NAME}.denoised.tiff"]
    spool = place.folder / ".wsi-denoise" / "spool"  # removed after the job is done
    place.wait(lambda: not list(spool.iterdir()), "the spool is empty")
    return job


def test_a_daemon_continues_after_a_shutdown_and_after_a_kill(workplace, slide, copy_in, undisturbed):
    place = workplace(SETTINGS)
    started(place, slide, copy_in, blocks=BLOCKS // 4)
    place.stop(20)
    _, alive = psutil.wait_procs(place.processes(), timeout=60)  # multiprocessing's own helper ends after its parent
    assert not alive
    (job,) = place.jobs()
    assert (job.state, job.next_try) == (JobState.QUEUED, None)
    after_stop = spooled(place)
    assert BLOCKS // 4 <= len(after_stop) < BLOCKS
    assert not list(place.output.rglob("*"))

    place.start()
    job = resumed(place)
    assert job.blocks_resumed == len(after_stop)
    # A shutdown does not count as an attempt that failed.
    assert job.attempts == 1
    place.wait(lambda: len(spooled(place)) > len(after_stop), "another block", PATIENCE)
    place.process.kill()
    place.process.wait()
    _, alive = psutil.wait_procs(place.processes(), timeout=60)
    assert not alive, "workers outlive their daemon"
    after_kill = spooled(place)
    assert len(after_stop) < len(after_kill) < BLOCKS
    assert not list(place.output.rglob("*.denoised.tiff"))

    place.start()
    assert resumed(place, after=job.blocks_resumed).blocks_resumed == len(after_kill)
    again = place.wait(lambda: len(now := spooled(place)) > len(after_kill) and now, "another block", PATIENCE)
    assert {name: again[name] for name in after_stop} == after_stop  # no block was written again
    assert {name: again[name] for name in after_kill} == after_kill
    place.done(NAME, PATIENCE)
    place.stop()

    job = check_whole(place, undisturbed)
    assert job.blocks_resumed == len(after_kill)
    *_, killed, last = place.store.attempts(job.id)
    assert (killed.outcome, last.outcome) == ("daemon_died", "done")
    assert (last.blocks_done, last.blocks_resumed) == (BLOCKS, len(after_kill))
    assert place.json("verify", job.output)["ok"]


def resumed(place, *, after: int = 0):
    """Wait until the job has taken more blocks from the spool than an attempt before."""
    return place.wait(lambda: (job := place.job(NAME)) and job.blocks_resumed > after and job, "it resumes", PATIENCE)


def test_lost_worker_costs_only_its_own_blocks(workplace, slide, copy_in, undisturbed):
    place = workplace(SETTINGS)
    started(place, slide, copy_in, blocks=BLOCKS // 4)
    workers = place.workers()
    assert len(workers) == 2
    workers[0].send_signal(signal.SIGKILL)
    job = place.done(NAME, PATIENCE)
    assert job.attempts == 1
    place.stop()
    check_whole(place, undisturbed)
