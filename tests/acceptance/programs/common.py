"""What the acceptance programs share: the workplace of the tests, slides, and results that add up over runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "tests"))

from support.slides import tiled_tissue, write_slide  # noqa: E402
from support.workplace import Workplace  # noqa: E402

__all__ = ["Deadline", "Results", "Workplace", "conclude", "parser", "slide_pixels", "working_folder", "write_slide"]


class Results:
    """Figures in a JSON file that add up over runs.

    Parameters
    ----------
    file : Path or None
        None keeps them in memory.
    seed : int
        Of the first run; later runs take it from the file, so that nothing is drawn twice.
    """

    def __init__(self, file: Path | None, seed: int) -> None:
        self.file = file
        found = json.loads(file.read_text()) if file is not None and file.exists() else {}
        self.figures: dict[str, Any] = found.get("figures", {"seed": seed})
        self.runs: list[dict[str, Any]] = found.get("runs", [])
        self.runs.append({"commit": commit(), "began": _now(), "processors": len(os.sched_getaffinity(0))})
        self._before = dict(self.figures)

    def __getitem__(self, name: str) -> Any:
        return self.figures.get(name, 0)

    def add(self, name: str, count: float = 1) -> None:
        self.figures[name] = self.figures.get(name, 0) + count

    def most(self, name: str, value: float) -> None:
        self.figures[name] = max(self.figures.get(name, value), value)

    def put(self, name: str, value: Any) -> None:
        self.figures[name] = value

    def save(self) -> None:
        """Write the file, whole or not at all."""
        self.runs[-1]["ended"] = _now()
        added = {
            name: value - self._before.get(name, 0)
            for name, value in self.figures.items()
            if isinstance(value, int | float) and name != "seed" and not name.startswith("most ")
        }
        self.runs[-1]["added"] = {name: value for name, value in added.items() if value}
        if self.file is None:
            return
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps({"figures": self.figures, "runs": self.runs}, indent=1) + "\n")
        part.replace(self.file)

    def show(self) -> None:
        for name, value in self.figures.items():
            print(f"{name}: {value}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def commit() -> str:
    """Return the commit that is tested, with a plus where files differ from it; empty without git."""
    try:
        name = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "wsi_denoise"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    return name + ("+" if changed else "")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what all programs take."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    made.add_argument("--results", type=Path, help="JSON file; figures of further runs are added to it")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    # A signal to a program ends its daemons too. A shell's background jobs ignore Ctrl-C by default.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))
    made.add_argument("--minutes", type=float, default=1e9, help="stop after N minutes; run again to continue")
    return made


@contextlib.contextmanager
def working_folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield Path(tempfile.mkdtemp(dir=given))
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def slide_pixels(width: int, height: int, number: int) -> np.ndarray:
    """Return (height, width, 3) uint8 of tissue with noise, another content for each number."""
    clean = tiled_tissue(width, height, number, step=37)
    noise = np.random.default_rng(number).standard_normal((min(height, 512), min(width, 512), 3), np.float32) * 15
    repeated = np.tile(noise, (-(-height // 512), -(-width // 512), 1))[:height, :width]
    return np.clip(np.rint(clean + repeated), 0, 255).astype(np.uint8)


class Deadline:
    """Time that a run may take."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def passed(self) -> bool:
        return time.monotonic() >= self._end


def conclude(results: Results, wrong: dict[str, Any], *, complete: bool) -> int:
    """Save and print the figures, and say what is wrong; the exit code."""
    results.save()
    results.show()
    bad = {name: value for name, value in wrong.items() if value}
    print("WRONG: " + json.dumps(bad) if bad else "as promised" + ("" if complete else ", so far"))
    return 1 if bad else 0
