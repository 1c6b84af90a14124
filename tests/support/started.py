"""Which blocks workers run at this moment."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.events import RecordedEvents
from wsi_denoise.processing.values import SlidePlan
from wsi_denoise.slide.geometry import BlockIndex

MARKS = Path(__file__).parent / "marks"


def environment() -> dict[str, str]:
    """Return the variable with which processes mark the blocks that they run; see :mod:`support.marks`."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(MARKS), os.environ.get("PYTHONPATH", "")]))}


def mark(spool: Path, block: BlockIndex) -> Path:
    """Return the file that exists while a worker runs a block."""
    return spool / f"{block}.started"


def started(folder: Path) -> dict[Path, int]:
    """Return the marks below a folder with the processes that made them, dead ones too."""
    found = {}
    for file in folder.rglob("*.started"):
        with contextlib.suppress(FileNotFoundError, ValueError):
            found[file] = int(file.read_text("ascii"))
    return found


@contextlib.contextmanager
def marking() -> Iterator[None]:
    """Start processes that mark the blocks they run."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        yield


class Killer(RecordedEvents):
    """Kills the worker that says it works on a block, a number of times."""

    def __init__(self, block: BlockIndex, times: int) -> None:
        super().__init__()
        self.killed: list[int] = []
        self._block, self._times = block, times
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def planned(self, plan: SlidePlan) -> None:
        super().planned(plan)
        self._thread = threading.Thread(target=self._kill, args=(mark(plan.work.spool, self._block),))
        self._thread.start()

    def _kill(self, mark: Path) -> None:
        while len(self.killed) < self._times and not self._stop.wait(0.002):
            try:
                worker = int(mark.read_text("ascii"))
            except (OSError, ValueError):
                continue
            if worker not in self.killed:
                self.killed.append(worker)
                os.kill(worker, signal.SIGKILL)

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
