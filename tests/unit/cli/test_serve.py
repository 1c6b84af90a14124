"""Work continues when the terminal accepts no output."""

import contextlib
import errno
import os
import signal
import sys

import pytest

from wsi_denoise.cli import serve, slides


@pytest.fixture(params=["a full disk", "a closed pipe"])
def deaf(request):
    if request.param == "a full disk":
        handle = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, handle = os.pipe()
        os.close(reading)
    stream = os.fdopen(handle, "w")
    yield stream
    with contextlib.suppress(OSError):
        stream.close()


def test_a_terminal_that_takes_nothing_ends_no_work(deaf, monkeypatch):
    monkeypatch.setattr(sys, "stderr", deaf)  # not in the fixture: pytest would put its own there again
    with pytest.raises(OSError, match=r"No space|Broken pipe"):
        print("anything", file=deaf, flush=True)
    serve.say("job 1 queued")
    slides._say("job 1 waits")


def test_it_stops_all_the_same_when_told_to(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with serve.stopping() as stop:
        monkeypatch.setattr(os, "write", refuse)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(10)
