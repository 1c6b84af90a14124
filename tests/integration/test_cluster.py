"""Worker processes of this machine, started and ended."""

import logging

import psutil
import pytest
from distributed import Client, LocalCluster

from wsi_denoise.processing.dask.cluster import connect
from wsi_denoise.settings import load


@pytest.mark.parametrize("kind", [Client, LocalCluster])
def test_an_error_while_dask_closes_does_not_fail_finished_work(kind, tmp_path, monkeypatch, caplog):
    close = kind.close

    def failing(self, *args, **named):
        close(self, *args, **named)
        raise OSError("Timed out during handshake")

    settings = load(folder=tmp_path, environ={}, overrides={"compute.workers": 1}).settings
    with connect(settings) as cluster:
        future = cluster.call(sum, [1, 2])
        assert future.result(timeout=60) == 3
        workers = psutil.Process().children(recursive=True)
        monkeypatch.setattr(kind, "close", failing)
    monkeypatch.undo()
    assert "Timed out during handshake" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not [process for process in alive if "spawn_main" in " ".join(process.cmdline())]
