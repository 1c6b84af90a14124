"""Measure peak memory and processor time of whole runs on slides of different size.

    python tests/bench/memory.py --folder /tmp/bench                # 10k x 10k and 40k x 40k, a third of it tissue
    python tests/bench/memory.py --folder /tmp/bench --sides 10000 40000 10000
    python tests/bench/memory.py --folder /tmp/bench --sides 5000 20000 80000 --all-tissue

Each slide is denoised by ``wsi-denoise run`` as a program of its own. Memory is the proportional set size (PSS) of all
its processes together, sampled twice a second. Processor time is that of all its processes, from the kernel's
account when the program ends. A small slide is run first: what that takes is start-up, and is subtracted. The clock
decides nothing here, so that a busy machine gives the same answer, only noisier.

The larger a slide, the less of its tissue lies at an edge of it, where windows reach into glass. With ``--all-tissue``
slides of every size are alike, so that what is left is what the program itself makes of their size.

Exit code 1 when memory or time grows with the slide beyond the limits.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import large_slide
import psutil

PATCH_MEGAPIXELS = 96 * 96 / 1e6
IDLE_SIDE = 1600
"""Of the slide that stands for start-up: four blocks, so that every worker has been used."""

MEMORY_GROWTH, TIME_GROWTH, MEMORY_LIMIT = 0.20, 0.10, 4e9
_INTERVAL = 0.5

STAGES = ("read", "network", "measure", "encode")
"""Of a block, as a job tells their seconds."""


@dataclass
class Run:
    """One run of the program.

    Parameters
    ----------
    slide : Path
    side : int
        Of the slide, in pixels.
    processor : float
        Seconds, of all processes, user and system.
    clock : float
        Seconds on the clock.
    load : float
        Mean load of the machine while it ran.
    job : dict
        The job as the program gives it in JSON.
    peak, peak_anonymous : float
        Bytes of PSS of all processes at the same time; and without what is backed by files, such as libraries.
    peaks : dict of str to float
        Each process's own highest PSS in bytes.
    spent : dict of str to float
        Each process's own processor seconds, as last seen.
    timeline : list of (float, float)
        Seconds since the start, and bytes of PSS.
    """

    slide: Path
    side: int
    processor: float = 0.0
    clock: float = 0.0
    load: float = 0.0
    job: dict[str, Any] = field(default_factory=dict)
    peak: float = 0.0
    peak_anonymous: float = 0.0
    peaks: dict[str, float] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    timeline: list[tuple[float, float]] = field(default_factory=list)

    @property
    def tissue(self) -> float:
        """Megapixels in patches that went through the network."""
        return float(self.job["metrics"]["tissue_patches"]) * PATCH_MEGAPIXELS

    @property
    def megapixels(self) -> float:
        """Megapixels of level 0."""
        return self.side**2 / 1e6


def memory_of(process: psutil.Process) -> tuple[float, float]:
    """Return a process's PSS in bytes, and the part of it that no file backs; zeros for one that is gone."""
    values = {"Pss": 0.0, "Pss_Anon": 0.0}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text("ascii").splitlines():
            name, _, rest = line.partition(":")
            if name in values:
                values[name] = 1024.0 * float(rest.split()[0])
    return values["Pss"], values["Pss_Anon"]


def denoise(slide: Path, side: int, folder: Path, sets: Sequence[str] = ()) -> Run:
    """Run the program on a slide, and watch it.

    Parameters
    ----------
    slide : Path
    side : int
    folder : Path
        An empty one: the working directory, with record and output.
    sets : sequence of str
        ``section.key=value``.

    Raises
    ------
    RuntimeError
        When the program fails.
    """
    folder.mkdir(parents=True)
    command = [str(Path(sys.executable).with_name("wsi-denoise")), "run", str(slide.absolute()), "--json"]
    # The glass of these slides is noisy on purpose, and is to be glass anyway: see tissue.background.
    command += [part for value in ("tissue.background=keep", "model.preset=paper", *sets) for part in ("--set", value)]
    run = Run(slide, side)
    loads = []
    begun = time.monotonic()
    with (folder / "out.json").open("wb") as out, (folder / "err.txt").open("wb") as err:
        program = subprocess.Popen(command, cwd=folder, stdout=out, stderr=err)
        root = psutil.Process(program.pid)
        ended, status, usage = 0, 0, None
        while not ended:
            _look(root, run, time.monotonic() - begun)
            loads.append(os.getloadavg()[0])
            time.sleep(_INTERVAL)
            # Not Popen.wait: the kernel's account of a program and all it waited for comes with this call only.
            ended, status, usage = os.wait4(program.pid, os.WNOHANG)
        program.returncode = os.waitstatus_to_exitcode(status)
    run.clock = time.monotonic() - begun
    run.processor = usage.ru_utime + usage.ru_stime
    run.load = sum(loads) / len(loads)
    if program.returncode:
        raise RuntimeError(f"{slide}: exit code {program.returncode}\n{(folder / 'err.txt').read_text()[-2000:]}")
    run.job = json.loads((folder / "out.json").read_text("utf-8"))["jobs"][0]
    return run


def _look(root: psutil.Process, run: Run, seconds: float) -> None:
    total = anonymous = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [root, *root.children(recursive=True)]:
            pss, own = memory_of(process)
            total, anonymous = total + pss, anonymous + own
            name = "main" if process.pid == root.pid else f"process {process.pid}"
            run.peaks[name] = max(run.peaks.get(name, 0.0), pss)
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                run.spent[name] = times.user + times.system
    run.peak, run.peak_anonymous = max(run.peak, total), max(run.peak_anonymous, anonymous)
    run.timeline.append((round(seconds, 1), total))


def typical(runs: Sequence[Run]) -> Run:
    """Return the run that took the median of processor time."""
    return sorted(runs, key=lambda run: run.processor)[len(runs) // 2]


def per_megapixel(run: Run, idle: Run) -> float:
    """Return processor seconds per megapixel of tissue, start-up excluded."""
    return (run.processor - idle.processor) / (run.tissue - idle.tissue)


@dataclass(frozen=True)
class Growth:
    """How the largest slide compares with the smallest.

    Parameters
    ----------
    memory, time : float
        Of peak PSS and of processor time per megapixel of tissue: 0.2 is a fifth more.
    peak : float
        Highest PSS of all runs, in bytes.
    """

    memory: float
    time: float
    peak: float

    def failures(self) -> list[str]:
        """Return which limits are broken."""
        found = []
        if abs(self.memory) >= MEMORY_GROWTH:
            found.append(f"peak memory differs by {self.memory:+.0%}, limit {MEMORY_GROWTH:.0%}")
        if abs(self.time) >= TIME_GROWTH:
            found.append(f"processor time per megapixel differs by {self.time:+.0%}, limit {TIME_GROWTH:.0%}")
        if self.peak >= MEMORY_LIMIT:
            found.append(f"peak memory is {self.peak / 1e9:.2f} GB, limit {MEMORY_LIMIT / 1e9:.0f} GB")
        return found


def compare(runs: Sequence[Run], idle: Run) -> Growth:
    """Compare the largest slide with the smallest; several runs of one size count with their mean."""
    sides = sorted({run.side for run in runs})
    small, large = ([run for run in runs if run.side == side] for side in (sides[0], sides[-1]))

    def mean(values: Iterable[float]) -> float:
        return statistics.fmean(values)

    return Growth(
        mean(run.peak for run in large) / mean(run.peak for run in small) - 1,
        mean(per_megapixel(run, idle) for run in large) / mean(per_megapixel(run, idle) for run in small) - 1,
        max(run.peak for run in (*runs, idle)),
    )


def table(runs: Sequence[Run], idle: Run) -> str:
    """Return a Markdown table of the runs."""
    names = ("slide", "MPix", "tissue, MPix", "peak PSS, GB", "of it not backed by files", "processor, s")
    names = (*names, "processor s per MPix of tissue", "MPix/s on the clock", "load")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for run in (idle, *runs):
        own = "start-up" if run is idle else f"{per_megapixel(run, idle):.3f}"
        lines.append(
            f"| {run.side} x {run.side} | {run.megapixels:.1f} | {run.tissue:.1f} | {run.peak / 1e9:.2f} |"
            f" {run.peak_anonymous / 1e9:.2f} | {run.processor:.1f} | {own} | {run.megapixels / run.clock:.2f} |"
            f" {run.load:.1f} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """Return one line about this machine and this version."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB;"
        f" {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; commit {commit.stdout.strip() or 'unknown'}"
    )


def _save(file: Path, runs: Sequence[Run]) -> None:
    plain = [{**vars(run), "slide": str(run.slide)} for run in runs]
    file.write_text(json.dumps({"machine": machine(), "runs": plain}, indent=1), "utf-8")


def main() -> int:
    """Run all sizes, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="slides are made here once, and kept")
    parser.add_argument(
        "--sides", type=int, nargs="+", default=[10_000, 40_000], help="in pixels; a side may be repeated"
    )
    parser.add_argument(
        "--start-up", type=int, nargs="+", default=[IDLE_SIDE], help="sides of slides that stand for it"
    )
    parser.add_argument("--all-tissue", action="store_true", help="slides without glass")
    parser.add_argument("--one-level", action="store_true", help="slides without smaller levels")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--save", type=Path, help="all figures, and memory over time, as JSON")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    sets = [*arguments.sets, *(["tissue.mode=all"] if arguments.all_tissue else [])]
    runs: list[Run] = []
    for number, side in enumerate((*arguments.start_up, *arguments.sides)):
        kind = "tissue-" if arguments.all_tissue else ""
        slide = arguments.folder / f"{kind}{side}{'-one-level' if arguments.one_level else ''}.tiff"
        if not slide.exists():
            share = 1.0 if arguments.all_tissue else large_slide.THIRD
            large_slide.write(slide, side, one_level=arguments.one_level, share=share)
        work = arguments.folder / f"work-{number}-{side}-{os.getpid()}"
        runs.append(denoise(slide, side, work, sets))
        print(f"{side}: {runs[-1].processor:.1f} s, {runs[-1].peak / 1e9:.2f} GB", file=sys.stderr, flush=True)
        if arguments.save:
            _save(arguments.save, runs)
        subprocess.run(["rm", "-r", str(work)], check=True)
    idle, sized = typical(runs[: len(arguments.start_up)]), runs[len(arguments.start_up) :]
    growth = compare(sized, idle)
    print(f"{machine()}\n\n{table(sized, idle)}\n")
    print(f"largest against smallest: peak memory {growth.memory:+.1%}, processor time per MPix {growth.time:+.1%}")
    for failure in growth.failures():
        print(f"TOO MUCH: {failure}")
    return 1 if growth.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
