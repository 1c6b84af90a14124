"""Worker processes of this machine, started and ended."""

import logging
from collections.abc import Iterator

import psutil
import pytest
from distributed import Client

from wsi_denoise.processing.dask.cluster import connect
from wsi_denoise.settings import load


class Kept(logging.Handler):
    """The records of a logger. While a cluster runs, Dask silences the handlers of caplog."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    kept = Kept()
    logging.getLogger("wsi_denoise").addHandler(kept)
    yield kept.records
    logging.getLogger("wsi_denoise").removeHandler(kept)


def test_an_error_while_a_client_closes_does_not_fail_finished_work(tmp_path, monkeypatch, logged):
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
    assert [(record.levelno, str(record.exc_info[1])) for record in logged] == [
        (logging.WARNING, "Timed out during handshake")
    ]
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not [process for process in alive if "spawn_main" in " ".join(process.cmdline())]
