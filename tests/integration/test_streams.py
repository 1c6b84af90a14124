"""A daemon starts, runs and stops whatever the standard streams are that it was given."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wsi_denoise.errors import StoreError
from wsi_denoise.jobs.store import JobStore

PROGRAM = Path(sys.executable).with_name("wsi-denoise")
PATIENCE = 120.0
FLAGS = (
    *("--set", "compute.workers=1", "--set", "compute.threads=1", "--set", "compute.device=cpu"),
    *("--set", "limits.worker_memory=0", "--json"),
)


def has_device(store):
    try:
        return any(daemon.device for daemon in store.daemons())
    except StoreError:
        return False  # the database is being made


@pytest.mark.parametrize("streams", [">&- 2>&- <&-", "> /dev/full 2> /dev/full"])
def test_a_daemon_starts_and_stops(tmp_path, streams):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("WSI_DENOISE_")}
    line = f'exec "$@" {streams}'
    daemon = subprocess.Popen(["bash", "-c", line, "-", PROGRAM, "watch", *FLAGS], cwd=tmp_path, env=plain)
    store = JobStore(f"sqlite:///{tmp_path / '.wsi-denoise' / 'jobs.sqlite'}")
    try:
        end = time.monotonic() + PATIENCE
        while not has_device(store):
            assert daemon.poll() is None, f"it ended with {daemon.returncode}"
            assert time.monotonic() < end
            time.sleep(0.2)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(PATIENCE) == 0
        log = (tmp_path / ".wsi-denoise" / "logs" / "daemon.log").read_text("utf-8")
        assert "Traceback" not in log
    finally:
        daemon.kill()
        daemon.wait()
        store.close()
