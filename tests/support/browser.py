"""The dashboard as a process of its own, and a Chromium, for tests and for programs."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("wsi-denoise")
LONGEST_SECONDS = 180
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Served:
    """A dashboard that answers at an address."""

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def serve(folder: Path, *flags: str, command: str = "dashboard") -> Iterator[Served]:
    """Start the program in a folder, on a free port; ``command="up"`` starts its daemon too."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WSI_DENOISE_")}
    with (folder / "terminal").open("ab") as terminal:
        process = subprocess.Popen(
            [PROGRAM, command, "--port", str(port), *flags],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}/"
    try:
        end = time.monotonic() + LONGEST_SECONDS
        while not _answers(url):
            assert process.poll() is None, f"{command} exited with {process.returncode}: {folder / 'terminal'}"
            assert time.monotonic() < end, f"{command} does not answer: {folder / 'terminal'}"
            time.sleep(0.2)
        yield Served(url, process)
    finally:
        process.terminate()
        process.wait(120)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}healthz", timeout=5).close()
    except OSError:
        return False
    return True


def find_chromium() -> str | None:
    """Return the browser of this machine."""
    return os.environ.get("WSI_DENOISE_BROWSER") or next(filter(None, map(shutil.which, _BROWSERS)), None)


@contextmanager
def chromium(program: str | None = None) -> Iterator[Any]:
    """Start a browser of playwright."""
    # Not at import: tests of other tiers run without playwright.
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with sync_playwright() as playwright:
        # Chromium's own sandbox needs what root in a container does not have; only our page is opened.
        browser = playwright.chromium.launch(
            executable_path=program or find_chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()
