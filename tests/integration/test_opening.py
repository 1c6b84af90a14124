"""Files that hang or kill a reader: the worker is ended, the file named, other slides continue."""

import os
import time
from dataclasses import replace
from functools import partial

import pytest

from wsi_denoise.daemon import service
from wsi_denoise.errors import OpeningKillsWorker, OpeningTooSlow
from wsi_denoise.intake.settling import Rules, Settling, Step
from wsi_denoise.intake.slide_files import Snapshot
from wsi_denoise.processing.dask import remote, worker
from wsi_denoise.processing.dask.cluster import Cluster, connect
from wsi_denoise.settings import load


class Instead(Cluster):
    """A cluster whose workers do something else than open the file."""

    def call(self, function, *args, priority=0):
        return self.client.submit(self.description_call, pure=False, priority=priority)


@pytest.fixture(scope="module")
def connected(tmp_path_factory):
    overrides = {"compute.workers": 1, "compute.threads": 1, "limits.worker_memory": "0", "limits.open_seconds": 3}
    settings = load(overrides=overrides, folder=tmp_path_factory.mktemp("opening"), environ={}).settings
    with connect(settings) as cluster:
        cluster.client.submit(os.getpid).result(timeout=120)
        yield cluster, settings


def with_call(cluster, function):
    made = Instead(**{name: getattr(cluster, name) for name in ("client", "description")})
    object.__setattr__(made, "description_call", function)
    return made


def hang() -> None:
    time.sleep(600)


def die() -> None:
    os._exit(11)


def test_the_network_expects_as_many_callers_as_a_worker_has_threads(tmp_path):
    overrides = {"compute.workers": 1, "compute.threads": 3, "limits.worker_memory": "0"}
    with connect(load(overrides=overrides, folder=tmp_path, environ={}).settings) as cluster:
        assert cluster.call(worker.callers).result(timeout=120) == 3
    assert worker.callers() == 1, "not in a worker"


def test_windows_are_those_that_a_workers_memory_limit_has_room_for(tmp_path):
    overrides = {"compute.workers": 1, "compute.threads": 2, "compute.device": "cpu", "limits.worker_memory": "8GiB"}
    settings = load(overrides=overrides, folder=tmp_path, environ={}).settings
    with connect(settings) as cluster:
        assert cluster.call(worker.room).result(timeout=120) == 4 * 2**30
        said = {
            preset: cluster.call(remote.describe_device, settings.compute, preset).result(timeout=120)
            for preset in ("paper", "fine")
        }
    assert "windows of 16 patches" in said["paper"]
    assert "windows of 8 patches" in said["fine"], "two threads with large ones need 7 GB"
    assert worker.room() is None, "not in a worker"


def test_a_worker_gives_way_to_other_programs_also_after_it_was_started_again(connected):
    cluster, settings = connected
    wanted = max(settings.compute.nice, os.getpriority(os.PRIO_PROCESS, 0))
    ask = partial(cluster.client.submit, os.getpriority, os.PRIO_PROCESS, 0, pure=False)
    assert settings.compute.nice > 0
    assert ask().result(timeout=60) == wanted
    cluster.client.restart()
    assert ask().result(timeout=120) == wanted


def test_a_file_that_hangs_the_reader_is_named_and_its_worker_ended(connected, tmp_path):
    cluster, settings = connected
    before = cluster.client.submit(os.getpid, pure=False).result(timeout=120)
    begun = time.monotonic()
    error = service.probe(with_call(cluster, hang), tmp_path / "slide.svs", settings)
    assert isinstance(error, OpeningTooSlow)
    assert "3 s" in str(error)
    assert time.monotonic() - begun < 300
    # The worker that hung is gone, and another one takes tasks.
    assert cluster.client.submit(os.getpid, pure=False).result(timeout=120) != before


def test_a_file_that_kills_the_reader_is_named(connected, tmp_path):
    cluster, settings = connected
    settings = settings.with_values({"limits.open_seconds": 120.0})
    error = service.probe(with_call(cluster, die), tmp_path / "slide.svs", settings)
    assert isinstance(error, OpeningKillsWorker)
    cluster.client.submit(os.getpid, pure=False).result(timeout=120)


def test_one_that_is_too_slow_gets_its_grace_and_is_then_damaged():
    file = Settling.first(Rules(10, 3600), Snapshot(5, 1), now=0.0).look(Snapshot(5, 1), now=10.0)
    assert file.probe(OpeningTooSlow(), now=11.0).decide().step is Step.GRACE
    late = replace(file, seen=4000.0).probe(OpeningTooSlow(), now=4000.0)
    assert late.decide().step is Step.DAMAGED
    assert file.probe(OpeningKillsWorker(), now=11.0).decide().step is Step.DAMAGED
