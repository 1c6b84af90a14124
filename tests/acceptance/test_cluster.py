"""A scheduler and workers as processes of their own: a worker that joins is used, one that dies is survived."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.slides import add_noise, tiled_tissue, tiles_of, write_slide
from support.started import environment, started
from wsi_denoise.jobs.states import JobState

SIZE = (3400, 2400)
BLOCKS = 3 * 2
PATIENCE = 600
NAME = "slide.tiff"
SETTINGS = {"output": {"compression": "deflate"}}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * PATIENCE)]


class Cluster:
    """`dask scheduler` and `dask worker`, as an operator starts them, on loopback."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "scheduler.json"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(self._file))

    def _start(self, kind: str, *arguments: str, around: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        with (self._folder / f"{kind}.log").open("ab") as log:
            process = subprocess.Popen(
                [*around, Path(sys.executable).parent / "dask", kind, *arguments, "--no-dashboard"],
                cwd=self._folder,
                env={
                    **{name: value for name, value in os.environ.items() if not name.startswith("WSI_DENOISE_")},
                    **environment(),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    @property
    def address(self) -> str | None:
        """Where the scheduler listens, once it does."""
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            return str(json.loads(self._file.read_text())["address"])
        return None

    def worker(self, *around: str) -> subprocess.Popen[bytes]:
        """Start a worker of one thread without a nanny; `around` is a command in front of it."""
        arguments = ("--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
        return self._start("worker", "--scheduler-file", str(self._file), *arguments, around=around)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path) -> Iterator[Cluster]:
    started = Cluster(tmp_path)
    try:
        yield started
    finally:
        started.close()


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / NAME, add_noise(tiled_tissue(*SIZE), 25, seed=2))


@pytest.fixture(scope="module")
def undisturbed(open_workplace, slide) -> list[list[bytes]]:
    """Return the tiles of an output made by workers of the program's own."""
    with open_workplace(SETTINGS) as place:
        return tiles_of(place.json("run", slide)["jobs"][0]["output"])


def at_work(place) -> set[int]:
    """Return the processes that run a block at this moment."""
    return set(started(place.folder / ".wsi-denoise" / "spool").values())


def finished(place) -> int:
    return len(list((place.folder / ".wsi-denoise" / "spool").glob("*/*.block")))


def test_workers_come_and_go(workplace, cluster, slide, copy_in, undisturbed):
    place = workplace(SETTINGS)
    first, second = cluster.worker(), cluster.worker()
    place.wait(lambda: cluster.address, "the scheduler listens")
    place.start("--scheduler", cluster.address)
    copy_in(slide, place.inbox / NAME)

    seen: set[int] = set()

    def watched(condition):
        def looked():
            seen.update(at_work(place))
            return condition()

        return looked

    place.wait(watched(lambda: {first.pid, second.pid} <= seen), "both workers have a block", PATIENCE)
    for process in (first, second):  # so that there is something left to do for the one that joins
        process.send_signal(signal.SIGSTOP)
    third = cluster.worker()
    place.wait(watched(lambda: third.pid in seen), "the worker that joined has a block", PATIENCE)
    first.send_signal(signal.SIGKILL)
    second.send_signal(signal.SIGCONT)
    job = place.wait(watched(lambda: (job := place.job(NAME)) and job.finished and job), "the slide is done", PATIENCE)
    assert (job.state, job.blocks_done, job.attempts) == (JobState.DONE, BLOCKS, 1), place.report()
    assert not place.workers(), "a daemon with a scheduler of others starts no worker"
    assert tiles_of(job.output) == undisturbed
    assert place.json("verify", job.output)["ok"]
    place.stop()
    assert [process.poll() for process in (second, third)] == [None, None], (
        "a daemon ends no worker that is not its own"
    )


def test_a_scheduler_that_goes_away_costs_the_blocks_in_flight(workplace, cluster, slide, copy_in):
    place = workplace(SETTINGS)
    cluster.worker()
    place.wait(lambda: cluster.address, "the scheduler listens")
    place.start("--scheduler", cluster.address)
    copy_in(slide, place.inbox / NAME)
    place.wait(lambda: finished(place) >= 2, "two blocks", PATIENCE)
    cluster.close()
    waiting = place.wait_for(NAME, JobState.QUEUED, seconds=PATIENCE)
    assert waiting.error_code in {"scheduler_unreachable", "no_workers", "worker_lost"}, waiting.error
    place.stop()

    place.start()
    job = place.done(NAME, PATIENCE)
    assert job.blocks_resumed >= 2


def without(*folders: Path) -> list[str]:
    """Return a command in front of another one for which these folders are empty, and written to without effect."""
    mounts = " && ".join(f"mount -t tmpfs none {shlex.quote(str(folder))}" for folder in folders)
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{mounts} && exec "$@"', "sh"]


def test_results_travel_from_a_worker_that_sees_no_folder_of_ours(workplace, cluster, slide, copy_in, undisturbed):
    place = workplace(SETTINGS)
    hidden = [place.folder / ".wsi-denoise", place.folder / "denoised"]
    for folder in hidden:
        folder.mkdir(exist_ok=True)
    around = without(*hidden)
    if subprocess.run([*around, "true"], capture_output=True, check=False).returncode:
        around = []  # not allowed to: then that no worker leaves a mark in the spool has to do
    cluster.worker(*around)
    place.wait(lambda: cluster.address, "the scheduler listens")
    place.start("--scheduler", cluster.address, "--set", "compute.results=travel")
    copy_in(slide, place.inbox / NAME)
    marks: set[int] = set()

    def finished_one():
        marks.update(at_work(place))
        return (job := place.job(NAME)) and job.finished and job

    job = place.wait(finished_one, "the slide is done", PATIENCE)
    assert (job.state, job.blocks_done, job.attempts) == (JobState.DONE, BLOCKS, 1), place.report()
    assert not marks, "a worker wrote to the state folder"
    assert tiles_of(job.output) == undisturbed
    place.stop()


def test_an_absent_scheduler_is_reported_at_once(workplace):
    place = workplace()
    place.start("--scheduler", "tcp://127.0.0.1:9")
    assert place.process.wait(120) == 1
    assert "scheduler_unreachable" not in place.report()  # messages are in words
    assert "The Dask scheduler cannot be reached: tcp://127.0.0.1:9" in place.report()
