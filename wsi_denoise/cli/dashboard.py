"""The page as a process of its own, beside the daemon: either may fall over without the other."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

from wsi_denoise.settings import Loaded
from wsi_denoise.system.bind_address import url

RESTART_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)

_log = logging.getLogger(__name__)


def with_port(loaded: Loaded, port: int) -> Loaded:
    """Return the settings with another port of the page."""
    page = loaded.settings.dashboard.model_copy(update={"port": port})
    return replace(loaded, settings=loaded.settings.model_copy(update={"dashboard": page}))


def serve(loaded: Loaded) -> None:
    """Serve the page until a signal comes."""
    # By its name: the page sits on top of this package, which knows nothing of it but how to start it.
    import_module("dashboard.app").serve(loaded.settings, loaded.origins)


class Page:
    """Starts the page's process, starts it again when it ends, and ends it.

    The process gets its settings as one line of JSON on standard input, which stays open: its end tells the page that
    the daemon is gone, however that happened.

    Parameters
    ----------
    loaded : Loaded
    say : callable
        Tells the person at the terminal.
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
        """Start the process and the thread that looks after it."""
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
            _log.error("the page ended with %s; started again in %g s", code, wait)
            self._say(f"the page ended unexpectedly ({code}); started again in {wait:g} s. The daemon goes on.")
            self._stop.wait(wait)

    def _run_once(self) -> int | None:
        command = [sys.executable, "-P", "-m", "dashboard.app"]
        with self._lock:
            if self._stop.is_set():
                return None
            # A session of its own: Ctrl-C at the terminal is for the daemon, which then ends the page.
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
            )
        process = self._process
        assert process.stdin is not None
        # The page may die before it has read them; its exit code tells that.
        with contextlib.suppress(BrokenPipeError):
            given = {"settings": self._loaded.settings.model_dump(mode="json"), "origins": self._loaded.origins}
            process.stdin.write(json.dumps(given).encode() + b"\n")
            process.stdin.flush()
        code = process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        return code
