"""Worker processes of this machine, started and ended."""

import logging

import psutil
from distributed import Client

from wsi_denoise.processing.dask.cluster import connect
from wsi_denoise.settings import load


def test_an_error_while_a_client_closes_does_not_fail_finished_work(tmp_path, monkeypatch, caplog):
    close = Client.close

    def failing(self, *args, **named):
        close(self, *args, **named)
        raise OSError("Timed out during handshake")

    before = set(psutil.Process().children(recursive=True))  # of earlier tests
    settings = load(folder=tmp_path, environ={}, overrides={"compute.workers": 1}).settings
    with connect(settings) as cluster:
        future = cluster.call(sum, [1, 2])
        assert future.result(timeout=60) == 3
        workers = set(psutil.Process().children(recursive=True)) - before
        monkeypatch.setattr(Client, "close", failing)
    monkeypatch.undo()
    assert "Timed out during handshake" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not [process for process in alive if "spawn_main" in " ".join(process.cmdline())]
