"""The whole program as processes in a folder of its own, for tests and for the acceptance programs."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from wsi_denoise.errors import StoreError
from wsi_denoise.jobs.states import OVER, JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import Job, JobQuery

PROGRAM = Path(sys.executable).parent / "wsi-denoise"
PATIENCE = 300.0
"""Seconds. A loaded machine is ten times as slow as a quiet one."""

QUICK: dict[str, dict[str, Any]] = {
    "intake": {"settle_seconds": 1.0, "scan_seconds": 0.5, "grace_seconds": 3.0},
    "compute": {"workers": 1},
    "jobs": {"heartbeat_seconds": 1.0, "retry_seconds": 1.0},
    "limits": {"worker_memory": "0"},
}


class Workplace:
    """A working folder with settings, an inbox, and perhaps a daemon.

    Parameters
    ----------
    folder : Path
        Made here.
    settings : mapping
        Section to key to value; merged over :data:`QUICK`.
    folders : mapping
        Folder under the inbox to preset.
    variables : mapping
        Added to the environment.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Mapping[str, Any]] = {},
        *,
        folders: Mapping[str, str] = {},
        variables: Mapping[str, str] = {},
    ) -> None:
        # Without the settings of the user who runs the tests.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WSI_DENOISE_")}
        self.environment = {**inherited, **variables}
        self.folder, self.inbox, self.output = folder, folder / "inbox", folder / "denoised"
        self.inbox.mkdir(parents=True)
        merged = {name: {**QUICK.get(name, {}), **settings.get(name, {})} for name in {*QUICK, *settings}}
        lines = []
        for name, section in merged.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
        for path, preset in folders.items():
            lines += ["[[folders]]", f"path = {json.dumps(path)}", f"preset = {json.dumps(preset)}"]
        (folder / "wsi-denoise.toml").write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: list[int] = []
        self._store: JobStore | None = None

    # -- the daemon

    def start(self, *arguments: str, before: tuple[str, ...] = (), command: str = "watch") -> None:
        """Start a daemon, as the leader of a process group of its own."""
        assert not self.running
        with (self.folder / "terminal").open("ab") as terminal:
            self._process = subprocess.Popen(
                [*before, PROGRAM, command, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=terminal,
                start_new_session=True,
            )
        # Another program may have the number of a group that has ended: seen after half an hour of kills on a machine
        # with 32,768 process numbers.
        self._groups = [group for group in self._groups if _has_members(group)]
        self._groups.append(self._process.pid)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The daemon's own process."""
        assert self._process is not None
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def terminate(self, seconds: float = PATIENCE) -> int:
        """Send SIGTERM to the daemon and return its exit code; fail with its log when it does not end in time."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the daemon did not stop within {seconds:g} s\n{self.report()}")

    def stop(self, seconds: float = PATIENCE) -> None:
        """Stop the daemon; fail with its log unless it exits with 0."""
        code = self.terminate(seconds)
        if code:
            pytest.fail(f"the daemon exited with {code} after SIGTERM\n{self.report()}")

    def kill(self) -> None:
        """End the daemon and all its workers at once, as a power cut would."""
        before = self.processes()
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        psutil.wait_procs(before, timeout=60)  # freeing gigabytes of memory takes a moment
        self._groups = [group for group in self._groups if _has_members(group)]

    def processes(self) -> list[psutil.Process]:
        """Return what is left of the daemons of this folder."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if process.status() != psutil.STATUS_ZOMBIE and os.getpgid(process.pid) in self._groups:
                    found.append(process)
        return found

    def workers(self) -> list[psutil.Process]:
        """Return the daemon's worker processes, those that run blocks."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if process.pid != self.process.pid and "spawn_main" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def close(self) -> None:
        self.kill()
        if self._store is not None:
            self._store.close()

    # -- the job database

    @property
    def database(self) -> Path:
        return self.folder / ".wsi-denoise" / "jobs.sqlite"

    @property
    def store(self) -> JobStore:
        if self._store is None:
            self._store = JobStore(f"sqlite:///{self.database}")
        return self._store

    def is_registered(self) -> bool:
        """Whether a daemon has registered in the database."""
        with contextlib.suppress(StoreError):
            return self.database.exists() and bool(self.store.daemons())
        return False

    def jobs(self) -> list[Job]:
        """Return every job, oldest first; none while there is no database."""
        if not self.database.exists():
            return []
        try:
            return self.store.jobs(JobQuery(limit=None, sort="id")).jobs
        except StoreError:
            return []  # being made at this moment

    def jobs_of(self, relative: str) -> list[Job]:
        return [job for job in self.jobs() if job.relative == relative]

    def job(self, relative: str) -> Job | None:
        """Return the newest job of a slide."""
        return next(reversed(self.jobs_of(relative)), None)

    # -- waiting

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        """Wait until a condition holds and return its value; fail with the log when time is up."""
        end = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            if self._process is not None and not self.running:
                pytest.fail(f"the daemon ended with {self._process.returncode} before {what}\n{self.report()}")
            if time.monotonic() > end:
                pytest.fail(f"{what}: not within {seconds:g} s\n{self.report()}")
            time.sleep(0.2)

    def wait_for(self, relative: str, *states: str, seconds: float = PATIENCE) -> Job:
        """Wait until the newest job of a slide is in one of some states; fail at once when it ends in another."""

        def reached() -> Job | None:
            job = self.job(relative)
            if job is None or job.state in states:
                return job
            if job.state in OVER:
                pytest.fail(f"{relative} is {job.state} and not {states}: {job.error}\n{self.report()}")
            return None

        return self.wait(reached, f"{relative} is {' or '.join(states)}", seconds)

    def done(self, relative: str, seconds: float = PATIENCE) -> Job:
        return self.wait_for(relative, JobState.DONE, seconds=seconds)

    def report(self) -> str:
        """Return the jobs and the end of the log."""
        jobs = [f"{job.id} {job.relative!r} {job.state} {job.progress:.2f} {job.error or ''}" for job in self.jobs()]
        terminal = self.folder / "terminal"
        log = terminal.read_text("utf-8", "replace").splitlines()[-60:] if terminal.exists() else []
        return "\n".join([*jobs, *log])

    # -- the command line

    def cli(self, *arguments: str | Path, code: int | None = 0) -> str:
        """Run a command in this folder, check its exit code, and return its standard output."""
        ended = subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE,
            check=False,
        )
        assert code is None or ended.returncode == code, (arguments, ended.returncode, ended.stdout, ended.stderr)
        return ended.stdout

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        return json.loads(self.cli(*arguments, "--json", code=code))


def _has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
