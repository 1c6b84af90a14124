"""What a cluster costs beside the work: one worker against three, by processor time.

    python tests/bench/cluster.py --folder /tmp/bench                     # 10000 x 10000 px, one worker and three
    python tests/bench/cluster.py --folder /tmp/bench --side 20000 --workers 1 3

A scheduler and workers of one thread, each a process of its own on loopback, and ``wsi-denoise run --scheduler``. On a
machine with fewer cores than workers the clock says nothing about more machines, and processor time does: if all
workers together spend no more on the same slide when there are more of them, and scheduler and program have most of a
core to spare, three workers do three times as much. The program's start is taken out with a small slide, which also has
the workers load what they need.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import large_slide
import psutil
from memory import machine

PATIENCE = 60.0


@dataclass(frozen=True)
class Account:
    """Seconds of one run on warm workers.

    Parameters
    ----------
    workers, blocks : int
    clock : float
    of_workers, scheduler, program : float
        Processor time of all workers together, of the scheduler, and of the program without its start.
    """

    workers: int
    blocks: int
    clock: float
    of_workers: float
    scheduler: float
    program: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.of_workers + self.scheduler + self.program

    @property
    def scheduling(self) -> float:
        """Share of scheduler and program."""
        return 1 - self.of_workers / self.total


@contextmanager
def cluster(folder: Path, count: int) -> Iterator[tuple[str, psutil.Process, list[psutil.Process]]]:
    """Start a scheduler and workers; give its address, and their processes."""
    file = folder / "scheduler.json"
    started: list[subprocess.Popen[bytes]] = []

    def start(kind: str, *arguments: str) -> psutil.Process:
        with (folder / f"{kind}.log").open("ab") as log:
            command = [str(Path(sys.executable).with_name("dask")), kind, *arguments, "--no-dashboard"]
            started.append(subprocess.Popen(command, cwd=folder, stdout=log, stderr=log))
        return psutil.Process(started[-1].pid)

    try:
        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
        end = time.monotonic() + PATIENCE
        while not file.exists() or not file.read_text():
            if time.monotonic() > end:
                raise RuntimeError("the scheduler does not listen")
            time.sleep(0.2)
        arguments = ("--scheduler-file", str(file), "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
        workers = [start("worker", *arguments) for _ in range(count)]
        yield json.loads(file.read_text())["address"], scheduler, workers
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=PATIENCE)


def spent(*processes: psutil.Process) -> float:
    """Return processor seconds so far."""
    times = [process.cpu_times() for process in processes]
    return sum(each.user + each.system for each in times)


def measure(slide: Path, warm: Path, count: int, folder: Path) -> Account:
    """Run a slide on so many workers, after a small one that has them load what they need.

    Raises
    ------
    RuntimeError
        When the program fails.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with cluster(folder, count) as (address, scheduler, workers):
        start, _ = run(warm, address, folder / "warm")
        before = spent(scheduler), spent(*workers)
        begun = time.monotonic()
        program, job = run(slide, address, folder / "run")
        clock = time.monotonic() - begun
        after = spent(scheduler), spent(*workers)
    shutil.rmtree(folder)
    scheduling = after[0] - before[0], max(0.0, program - start)
    return Account(count, job["blocks_total"], clock, after[1] - before[1], *scheduling)


def run(slide: Path, address: str, folder: Path) -> tuple[float, dict]:
    """Denoise one slide; return processor seconds of the program alone, and its job."""
    folder.mkdir()
    command = [str(Path(sys.executable).with_name("wsi-denoise")), "run", str(slide), "--json", "--scheduler", address]
    command += ["--set", "tissue.mode=all", "--preset", "paper"]
    with (folder / "out.json").open("wb") as out, (folder / "err.txt").open("wb") as err:
        program = subprocess.Popen(command, cwd=folder, stdout=out, stderr=err)
        _, status, usage = os.wait4(program.pid, 0)
        program.returncode = os.waitstatus_to_exitcode(status)
    if program.returncode:
        raise RuntimeError(f"exit code {program.returncode}\n{(folder / 'err.txt').read_text()[-2000:]}")
    return usage.ru_utime + usage.ru_stime, json.loads((folder / "out.json").read_text("utf-8"))["jobs"][0]


def main() -> int:
    """Run with each number of workers, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="slides are made here once, and kept")
    parser.add_argument("--side", type=int, default=10_000, help="width and height of the slide in pixels")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 3])
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    slides = [given.folder.absolute() / f"tissue-{side}.tiff" for side in (3200, given.side)]
    for slide, side in zip(slides, (3200, given.side), strict=True):
        if not slide.exists():
            large_slide.write(slide, side, share=1.0)
    print(f"{machine()}; {given.side} x {given.side} px, all of it tissue; load {os.getloadavg()[0]:.1f}\n")
    print("| workers | blocks | clock, s | workers, s | scheduler, s | program, s | scheduler and program |", end="")
    print(" all, to the first |\n|" + "---|" * 8)
    first = None
    for count in given.workers:
        found = measure(slides[1], slides[0], count, given.folder.absolute() / f"cluster-{count}")
        first = first or found.total
        print(
            f"| {count} | {found.blocks} | {found.clock:.0f} | {found.of_workers:.1f} | {found.scheduler:.2f} |"
            f" {found.program:.2f} | {found.scheduling:.1%} | {found.total / first:.3f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
