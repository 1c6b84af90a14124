"""Processor time of commands that must answer at once, as multiples of starting Python.

    python tests/bench/commands.py [--runs 7]

`jobs` reads an empty folder, so that the figure is that of imports and start-up.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from memory import machine

PROGRAM = str(Path(sys.executable).with_name("wsi-denoise"))
COMMANDS = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "wsi-denoise --help": (PROGRAM, "--help"),
    "wsi-denoise jobs": (PROGRAM, "jobs"),
    "wsi-denoise jobs --json": (PROGRAM, "jobs", "--json"),
}


def seconds(command: tuple[str, ...], folder: str) -> float:
    """Return user and system time of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table; the runs of all commands alternate, so that a busy minute meets all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        found = {name: [] for name in COMMANDS}
        for _ in range(runs):
            for name, command in COMMANDS.items():
                found[name].append(seconds(command, folder))
    start = statistics.median(found["python -c pass"])
    print(
        f"{machine()}; median of {runs} runs\n\n| command | processor seconds | times Python's start |\n|---|---|---|"
    )
    for name, values in found.items():
        print(f"| `{name}` | {statistics.median(values):.2f} | {statistics.median(values) / start:.0f} |")


if __name__ == "__main__":
    main()
