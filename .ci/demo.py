"""Puts the demo slide into the inbox, waits for its job, and says where the result is. For `make demo`."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from wsi_denoise import settings
from wsi_denoise.errors import WsiDenoiseError
from wsi_denoise.jobs.store import JobStore

PROGRAM = str(Path(sys.executable).with_name("wsi-denoise"))
LONGEST_SECONDS = 1800
OVER = {"done", "failed", "quarantined", "cancelled", "duplicate"}


def answer(*arguments: str) -> dict:
    done = subprocess.run([PROGRAM, *arguments, "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.strip())
    return json.loads(done.stdout)


def daemon_runs() -> bool:
    loaded = settings.load()
    store = JobStore(loaded.settings.database_url)
    try:
        latest = max((daemon.heartbeat for daemon in store.daemons()), default=None)
    except WsiDenoiseError:
        return False
    finally:
        store.close()
    return latest is not None and datetime.now(UTC) - latest < timedelta(seconds=loaded.settings.jobs.lease_seconds)


def wait(slide: str, daemon: subprocess.Popen[bytes] | None) -> dict:
    said = ""
    end = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < end:
        found = [job for job in answer("jobs", "--slide", slide)["jobs"] if job["slide"] == slide]
        if found:
            job = found[0]
            line = f"job {job['id']}: {job['state']} {job['progress']:.0%}"
            if line != said:
                print(line, flush=True)
                said = line
            if job["state"] in OVER:
                return job
        if daemon is not None and daemon.poll() is not None:
            sys.exit(f"the daemon ended with {daemon.returncode}")
        time.sleep(2)
    sys.exit(f"no result within {LONGEST_SECONDS} s; wsi-denoise jobs shows how far it is")


def main() -> int:
    slide = answer("sample", "inbox")["path"]
    print(f"demo slide: {slide}")
    # A daemon that still works on it is not stopped by Ctrl-C here before it has tidied up.
    daemon = None if daemon_runs() else subprocess.Popen([PROGRAM, "watch", "--set", "intake.settle_seconds=2"])
    try:
        job = wait(slide, daemon)
    finally:
        if daemon is not None and daemon.poll() is None:
            os.kill(daemon.pid, signal.SIGTERM)
            daemon.wait()
    if job["state"] != "done":
        print(f"{job['state']}: {job['error']}")
        return 1
    print(f"verdict: {job['verdict']}" + (f" ({'; '.join(job['reasons'])})" if job["reasons"] else ""))
    print(f"result:  {job['output']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
