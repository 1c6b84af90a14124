"""The dashboard as a separate process, so that a failure of it or of the daemon does not end the other."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace

from wsi_denoise.settings import Loaded
from wsi_denoise.system import bundled
from wsi_denoise.system.bind_address import url

RESTART_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)

_log = logging.getLogger(__name__)


def with_port(loaded: Loaded, port: int) -> Loaded:
    """Return the settings with another port of the dashboard."""
    page = loaded.settings.dashboard.model_copy(update={"port": port})
    return replace(loaded, settings=loaded.settings.model_copy(update={"dashboard": page}))


def serve(loaded: Loaded) -> None:
    """Serve the dashboard until a signal arrives."""
    bundled.module("dashboard.app").serve(loaded.settings, loaded.origins)


class Page:
    """The dashboard's process, which is restarted when it ends unexpectedly.

    The process gets its settings as one line of JSON on standard input. That stays open until the daemon ends in any
    way, and the dashboard then ends too.

    Parameters
    ----------
    say : callable
        Called with messages for the terminal.
    """

    def __init__(self, loaded: Loaded, say: Callable[[str], None]) -> None:
        self.url = url(loaded.settings.dashboard)
        self._loaded = loaded
        self._say = say
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="page", daemon=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the process and the thread that restarts it."""
        self._thread.start()

    def stop(self) -> None:
        """End the process and wait for it."""
        with self._lock:
            self._stop.set()
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._thread.join(15)

    def _keep(self) -> None:
        restarts = 0
        while not self._stop.is_set():
            code = self._run_once()
            if self._stop.is_set():
                return
            wait = RESTART_SECONDS[min(restarts, len(RESTART_SECONDS) - 1)]
            restarts += 1
            _log.error("the dashboard ended with %s; it restarts in %g s", code, wait)
            self._say(f"the dashboard ended unexpectedly ({code}); it restarts in {wait:g} s. The daemon continues.")
            self._stop.wait(wait)

    def _run_once(self) -> int | None:
        command = [sys.executable, "-P", "-m", "wsi_denoise.cli.dashboard"]
        with self._lock:
            if self._stop.is_set():
                return None
            # In its own session, so that Ctrl-C at the terminal reaches only the daemon, which then ends the dashboard.
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
            )
        process = self._process
        assert process.stdin is not None
        # The dashboard may end before it has read the settings. Its exit code is logged.
        with contextlib.suppress(BrokenPipeError):
            given = {"settings": self._loaded.settings.model_dump(mode="json"), "origins": self._loaded.origins}
            process.stdin.write(json.dumps(given).encode() + b"\n")
            process.stdin.flush()
        code = process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        return code


if __name__ == "__main__":
    bundled.module("dashboard.app").main()
