"""What a slide costs beside the work on its blocks: many small slides through one daemon.

    python tests/bench/many.py --folder /tmp/bench                       # 500 slides of 2000 x 2000 px
    python tests/bench/many.py --folder /tmp/bench --slides 50 --set compute.workers=1

Each slide is other real tissue (``large_slide.py``, all of it tissue); all lie in the inbox when the daemon starts, and
the clock runs from when the first one is begun to when the last one is done. Overhead is what remains of the time that
the worker threads had, when the blocks' own work (reading, network, measuring, encoding) is taken out: scanning the
inbox, planning, assembling, verifying, the database, and threads that wait. Processor time is the kernel's account of
all the daemon's processes from beginning to end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import large_slide
from memory import STAGES, machine

from wsi_denoise.jobs.query import job_query
from wsi_denoise.jobs.store import JobStore

STILL_SECONDS = 300.0


def denoise(inbox: Path, count: int, folder: Path, sets: Sequence[str]) -> tuple[list[dict[str, Any]], float]:
    """Run a daemon until so many slides are done; return its jobs, and processor seconds of all its processes.

    Raises
    ------
    RuntimeError
        When it ends, or nothing is done any more.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [str(Path(sys.executable).with_name("wsi-denoise")), "watch", str(inbox)]
    values = ("tissue.mode=all", "intake.settle_seconds=1", "model.preset=paper", *sets)
    command += [part for value in values for part in ("--set", value)]
    with (folder / "log.txt").open("wb") as log:
        program = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            _wait(program, folder, count)
        except BaseException:
            program.kill()
            raise
        # Not Popen.wait: the kernel's account of a program and all it waited for comes with this call only.
        program.send_signal(signal.SIGTERM)
        _, status, usage = os.wait4(program.pid, 0)
        program.returncode = os.waitstatus_to_exitcode(status)
    with closing(JobStore(f"sqlite:///{folder}/.wsi-denoise/jobs.sqlite")) as store:
        jobs = [job.to_json() for job in store.stream(job_query(states=["done"], limit=0))]
    return jobs, usage.ru_utime + usage.ru_stime


def _wait(program: subprocess.Popen[bytes], folder: Path, count: int) -> None:
    last, since = -1, time.monotonic()
    while last < count:
        time.sleep(1)
        now = sum(1 for _ in (folder / "denoised").glob("*.tiff"))
        if now != last:
            last, since = now, time.monotonic()
        if program.poll() is not None or time.monotonic() - since > STILL_SECONDS:
            raise RuntimeError(f"{last} of {count} done\n{(folder / 'log.txt').read_text()[-2000:]}")
    time.sleep(3)  # until the last job is in the database


def main() -> int:
    """Make the slides, run them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="slides are made here once, and kept")
    parser.add_argument("--slides", type=int, default=500)
    parser.add_argument("--side", type=int, default=2000, help="width and height of a slide in pixels")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of all workers together")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="SECTION.KEY=VALUE")
    given = parser.parse_args()
    slides = []
    for number in range(given.slides):
        slides.append(given.folder.absolute() / f"many-{given.side}" / f"{number:04d}.tiff")
        if not slides[-1].exists():
            slides[-1].parent.mkdir(parents=True, exist_ok=True)
            large_slide.write(slides[-1], given.side, share=1.0, seed=number)
    jobs, processor = denoise(slides[0].parent, given.slides, given.folder.absolute() / "work", given.sets)
    begun = min(datetime.fromisoformat(job["started"]) for job in jobs)
    clock = (max(datetime.fromisoformat(job["finished"]) for job in jobs) - begun).total_seconds()
    stages = {name: sum(job["provenance"]["seconds"].get(name, 0.0) for job in jobs) for name in STAGES}
    inside, count = sum(stages.values()), len(jobs)
    print(f"{machine()}; load {os.getloadavg()[0]:.1f}")
    print(f"{count} slides of {given.side} x {given.side} px\n\n| a slide | seconds |\n|---|---|")
    print(f"| on the clock | {clock / count:.3f} |")
    totals = [job["provenance"]["seconds"]["total"] for job in jobs]
    print(f"| of it: from its plan to its name, median | {statistics.median(totals):.3f} |")
    for name, seconds in stages.items():
        print(f"| {name}, all threads | {seconds / count:.3f} |")
    overhead = clock - inside / given.threads
    print(f"| overhead on the clock: all less blocks / {given.threads} threads | {overhead / count:.3f} |")
    print(f"| processor time, start included | {processor / count:.3f} |")
    print(f"| overhead in processor time: all less blocks | {(processor - inside) / count:.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
