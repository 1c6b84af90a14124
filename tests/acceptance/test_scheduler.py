"""An external Dask cluster: scheduler and worker as processes of their own, on loopback."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest


@pytest.fixture
def cluster(tmp_path):
    """Address of a scheduler with one worker, and the processes."""
    file = tmp_path / "scheduler.json"
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WSI_DENOISE_")}
    # A worker's own page listens on all addresses by default.
    worker = ["worker", "--scheduler-file", str(file), "--nthreads", "2", "--no-dashboard", "--host", "127.0.0.1"]
    commands = {
        "scheduler": ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-show", "--no-dashboard",
                      "--scheduler-file", str(file)],
        "worker": [*worker, "--local-directory", str(tmp_path), "--memory-limit", "0"],
    }  # fmt: skip
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-m", "dask", *command],
            cwd=tmp_path, env=environment, start_new_session=True, **quiet,
        )
        for name, command in commands.items()
    }  # fmt: skip
    try:
        end = time.monotonic() + 120
        while not file.exists():
            assert processes["scheduler"].poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        yield json.loads(file.read_text())["address"], processes
    finally:
        for process in processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_slide_is_done_by_a_cluster_elsewhere(workplace, cluster, save_slide, tiled_tissue, add_noise):
    address, processes = cluster
    place = workplace()
    save_slide(place.inbox / "slide.tiff", add_noise(tiled_tissue(1700, 900), 25, seed=3))
    place.start("--scheduler", address)
    job = place.done("slide.tiff")
    assert job.blocks_done == 2
    assert not place.workers()  # none of its own
    assert place.json("verify", job.output)["ok"]
    place.stop()
    # What was lent is left running.
    assert all(process.poll() is None for process in processes.values())


def test_no_scheduler_is_told_at_once(workplace):
    place = workplace()
    place.start("--scheduler", "tcp://127.0.0.1:9")
    assert place.process.wait(120) == 1
    assert "scheduler_unreachable" not in place.report()  # people are told in words
    assert "The Dask scheduler cannot be reached: tcp://127.0.0.1:9" in place.report()
