"""Workers that hang, vanish or are not there, and tasks that get lost: noticed, said, and mended. On a real cluster."""

import gc
import operator
import os
import signal
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from distributed import Future
from distributed.scheduler import TaskGroup

from support.events import RecordedEvents
from wsi_denoise.errors import NoWorkers, WorkerLost
from wsi_denoise.processing.assemble import assemble, verify
from wsi_denoise.processing.dask import stall, tasks
from wsi_denoise.processing.dask.cluster import Cluster, connect
from wsi_denoise.processing.dask.stall import Watch
from wsi_denoise.processing.plan import plan_slide
from wsi_denoise.processing.spool import Spool
from wsi_denoise.processing.values import BlockLost
from wsi_denoise.settings import LimitSettings, Settings, load

PATIENCE = 120.0


def settings_in(folder: Path, **values: object) -> Settings:
    overrides = {"compute.workers": 1, "compute.threads": 1, "compute.device": "cpu", "limits.worker_memory": "0"}
    named = {name.replace("__", "."): value for name, value in values.items()}
    return load(overrides={**overrides, **named}, folder=folder, environ={}).settings


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with connect(settings_in(tmp_path_factory.mktemp("cluster"))) as connected:
        yield connected


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(stall, "CHECK_SECONDS", 1.0)


class LimitedPatience(RecordedEvents):
    """Ends a test that waits for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.end = time.monotonic() + PATIENCE

    def check(self) -> None:
        assert time.monotonic() < self.end, "it still waits"


def workers_of(cluster: Cluster) -> list[int]:
    return list(cluster.client.run(os.getpid).values())


def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def nap_first(mark: str, seconds: float) -> str:
    """Take long the first time only."""
    file = Path(mark)
    if file.exists():
        return "second"
    file.touch()
    time.sleep(seconds)
    return "first"


def test_a_task_is_done_and_its_error_is_passed_on(cluster):
    watch = Watch(cluster, LimitSettings())
    assert stall.run(watch, operator.add, 1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        stall.run(watch, operator.truediv, 1, 0)
    with pytest.raises(TimeoutError):  # the task's own, not ours
        stall.run(watch, _raise_timeout)


def _raise_timeout() -> None:
    raise TimeoutError("the share did not answer")


def test_a_task_that_got_lost_is_handed_out_again(cluster):
    given = []

    class Losing(Cluster):
        def call(self, function, *args, priority=0):
            given.append(function)
            if len(given) == 1:
                return Future("of which no scheduler ever heard", self.client)
            return super().call(function, *args, priority=priority)

    events = LimitedPatience()
    watch = Watch(Losing(cluster.client, cluster.description), LimitSettings(), events)
    assert stall.run(watch, operator.add, 1, 2) == 3
    assert len(given) == 2
    assert "idle" in events.said[0]


def test_a_worker_that_hangs_is_ended(cluster, tmp_path):
    watch = Watch(cluster, LimitSettings(task_seconds=2), LimitedPatience())
    with pytest.raises(WorkerLost):
        stall.run(watch, nap, 10 * PATIENCE)
    # And there is a new one.
    assert stall.run(watch, operator.add, 1, 2) == 3


def test_a_worker_that_is_stopped_is_ended(cluster):
    """As one that waits in native code with Python's lock held: it answers nothing at all."""
    (pid,) = workers_of(cluster)
    watch = Watch(cluster, LimitSettings(task_seconds=2), LimitedPatience())
    timer = threading.Timer(1.0, os.kill, [pid, signal.SIGSTOP])
    timer.start()
    try:
        with pytest.raises(WorkerLost):
            stall.run(watch, nap, 10 * PATIENCE)
    finally:
        timer.join()
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=PATIENCE)
    assert not psutil.pid_exists(pid)
    assert stall.run(watch, operator.add, 1, 2) == 3


def test_a_slow_task_is_waited_for_and_done_once(cluster, tmp_path):
    events = LimitedPatience()
    mark = str(tmp_path / "mark")
    assert stall.run(Watch(cluster, LimitSettings(), events), nap_first, mark, 5.0) == "first"
    assert events.said == []


def test_tasks_that_are_over_are_not_kept_in_memory(cluster, monkeypatch):
    """Dask keeps the last hundred computations, and without our doing the groups of all tasks there ever were."""
    monkeypatch.setattr(stall, "_STEP_SECONDS", 0.005)
    watch = Watch(cluster, LimitSettings())
    for number in range(80):
        assert stall.run(watch, operator.add, number, 1) == number + 1
    gc.collect()
    # Not isinstance(), which asks every object for its class: some of torch warn when asked anything.
    assert sum(type(each) is TaskGroup for each in gc.get_objects()) < 20


def test_a_cluster_without_workers_is_said_and_given_up(tmp_path):
    events = LimitedPatience()
    with connect(settings_in(tmp_path)) as cluster:
        cluster.client.cluster.scale(0)
        while cluster.client.scheduler_info()["workers"]:
            events.check()
            time.sleep(0.1)
        watch = Watch(cluster, LimitSettings(no_worker_seconds=3), events)
        with pytest.raises(NoWorkers, match="no worker"):
            stall.run(watch, operator.add, 1, 2)
        assert len(events.said) == 1
        assert cluster.slots() == 1


# -- the spool


@pytest.fixture
def plan(tmp_path, tissue_image):
    """A slide of two blocks, both in the spool."""
    slide = tmp_path / "a.tiff"
    pixels = np.pad(tissue_image, ((0, 0), (0, 900), (0, 0)), mode="reflect")[:300, :1700]
    tifffile.imwrite(slide, pixels, tile=(256, 256), photometric="rgb", compression="adobe_deflate", metadata=None)
    settings = settings_in(tmp_path, output__compression="deflate", tissue__mode="all")
    made = plan_slide(slide, "f" * 64, settings, "paper", tmp_path / "spool")
    for block in made.work.lattice.blocks():
        tasks.block(made.work, block, made.tissue[made.work.lattice.patches(block)])
    return made


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[200:-200:37] = bytes(len(data[200:-200:37]))
    file.write_bytes(data)


def test_a_block_in_the_spool_is_not_done_a_second_time(plan):
    """Its worker died after writing it and before saying so."""
    work = plan.work
    block = next(iter(work.lattice.blocks()))
    file = work.spool / f"{block}.block"
    before = file.stat().st_mtime_ns
    report = tasks.block(work, block, plan.tissue[work.lattice.patches(block)])
    assert report.block == block
    assert file.stat().st_mtime_ns == before

    damage(file)
    tasks.block(work, block, plan.tissue[work.lattice.patches(block)])
    assert file.stat().st_mtime_ns != before
    assert Spool(work.spool).is_sound(block)


def test_a_spool_that_is_damaged_after_assembly_names_its_block(plan, tmp_path):
    target = tmp_path / ".part"
    assemble(plan, target, None)
    assert verify(plan, target, 100)
    block = list(plan.work.lattice.blocks())[1]
    damage(plan.work.spool / f"{block}.block")
    with pytest.raises(BlockLost) as caught:
        verify(plan, target, 100)
    assert caught.value.block == block


@pytest.mark.parametrize(("field", "value"), [(8, 1), (6, 0xFF), (10, 8), (10, 99), (46, ord("x"))])
def test_a_damaged_zip_directory_names_its_block(plan, tmp_path, field, value):
    """Encrypted, of a later version, compressed or of another name, says the directory: one kind of error for all."""
    block = list(plan.work.lattice.blocks())[1]
    file = plan.work.spool / f"{block}.block"
    data = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        directory = archive.start_dir
    data[directory + field] = value
    file.write_bytes(data)
    with pytest.raises(BlockLost) as caught:
        assemble(plan, tmp_path / ".part", None)
    assert caught.value.block == block
    assert block not in Spool(plan.work.spool).finished()
