"""A Dask scheduler that is away until Dask closes its client, and comes back."""

import threading
import time
from types import SimpleNamespace

import pytest
from distributed import LocalCluster

from wsi_denoise.daemon.service import Daemon, probe
from wsi_denoise.errors import SchedulerUnreachable
from wsi_denoise.jobs.states import JobState
from wsi_denoise.processing.dask import cluster as cluster_module
from wsi_denoise.processing.dask import inspection, stall
from wsi_denoise.processing.dask.cluster import connect
from wsi_denoise.settings import load

WAIT = 60.0


def scheduler(port=0):
    """A scheduler with one worker, both in this process."""
    return LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        scheduler_port=port,
        dashboard_address=None,
        # Without this the scheduler takes port 8787, and warns where another program has it.
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        worker_dashboard_address=None,
    )


def until(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


class Lent:
    """A scheduler that can be taken away, and put back at the same address."""

    def __init__(self):
        self.cluster = scheduler()
        self.address = self.cluster.scheduler_address

    def take_away(self):
        self.cluster.close()

    def put_back(self):
        self.cluster = scheduler(int(self.address.rpartition(":")[2]))


@pytest.fixture
def lent(monkeypatch):
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 1.0)  # Dask's timeout
    made = Lent()
    yield made
    made.take_away()


@pytest.fixture
def settings(tmp_path, lent):
    overrides = {"compute.scheduler": lent.address, "intake.scan_seconds": 0.2, "intake.settle_seconds": 0.1}
    return load(overrides=overrides, folder=tmp_path, environ={}).settings


def test_a_closed_client_is_a_scheduler_that_is_away(settings, lent, tmp_path):
    with connect(settings) as cluster:
        assert not cluster.is_closed()
        future = cluster.call(time.sleep, 600)
        lent.take_away()
        until(cluster.is_closed)
        assert not cluster.is_there()
        assert cluster.slots() == 1
        assert not inspection.ask(cluster).answered
        assert not inspection.end_task(cluster, future)
        inspection.restart(cluster, [lent.address])
        with pytest.raises(SchedulerUnreachable):
            stall.result(future)
        with pytest.raises(SchedulerUnreachable):
            cluster.call(time.sleep, 0)
        with pytest.raises(SchedulerUnreachable):
            probe(cluster, tmp_path / "a.tiff", settings)
        cluster.drop([future])


def test_an_idle_daemon_connects_anew(settings, store, lent, monkeypatch):
    monkeypatch.setattr(Daemon, "_device", lambda *_: None)  # it would import torch
    monkeypatch.setattr("wsi_denoise.daemon.service.remote.probe", lambda *_: None)
    origins = {"output.folder": "default", "intake.quarantine": "default"}
    daemon = Daemon(SimpleNamespace(settings=settings, origins=origins), store, say=print)
    trouble = []

    def serve(leave):
        try:
            daemon._serve(leave)
        except SchedulerUnreachable as error:
            trouble.append(error)

    leave = threading.Event()
    thread = threading.Thread(target=serve, args=(leave,), daemon=True)
    thread.start()
    until(lambda: any("cluster" in one.facts for one in store.daemons()))
    lent.take_away()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert trouble
    lent.put_back()

    leave = threading.Event()
    thread = threading.Thread(target=serve, args=(leave,), daemon=True)
    thread.start()
    slide = settings.intake.inbox[0] / "a.tiff"
    slide.parent.mkdir(exist_ok=True)
    slide.write_bytes(b"slide")
    try:
        until(lambda: store.jobs().jobs and store.jobs().jobs[0].state is not JobState.SETTLING)
    finally:
        leave.set()
        thread.join(WAIT)
    assert len(trouble) == 1
