"""Kills daemons and workers with SIGKILL at random moments, and counts what is lost by it.

A slide after the other goes through a real daemon. At random moments the daemon, one of its workers, or all its
processes at once are killed. Three in ten moments are drawn by time, four among the blocks, three from the end of a
slide, where it is assembled, verified and published. A killed daemon is started again. After each slide: done exactly
once, the output verifies, the original is what it was, nothing lies about, no finished block was done twice.

    python tests/acceptance/programs/kills.py --kills 200 --results kills.json
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from common import Deadline, Results, Workplace, conclude, parser, slide_pixels, working_folder, write_slide

from support.started import environment, started

SETTINGS = {
    "compute": {"workers": 2, "threads": 1},
    "output": {"compression": "deflate"},
    # Without the masker a worker is at its first block in a few seconds, and most kills meet real work.
    "tissue": {"mode": "all"},
    "jobs": {"heartbeat_seconds": 1.0, "retry_seconds": 1.0, "lease_seconds": 20.0},
    "log": {"level": "info"},
}
SLOTS = 2
KILLS, WORKER_KILLS = 8, 3
"""Of one slide at most. A slide on which workers die again and again is blamed for it, or given up after five attempts
that did not get on: the rules are right, and a program that kills at random without end would meet them."""

PATIENCE = 900.0


def main(arguments: list[str] | None = None) -> int:
    """Run until so many kills are made, or the time is over."""
    given = parser(__doc__)
    given.add_argument("--kills", type=int, default=200)
    given.add_argument("--size", default="4096x4096", metavar="WIDTHxHEIGHT")
    given.add_argument("--longest", type=float, default=15.0, help="seconds until a kill at most")
    options = given.parse_args(arguments)
    width, height = (int(part) for part in options.size.split("x"))
    results = Results(options.results, options.seed)
    deadline = Deadline(options.minutes)
    with working_folder(options.folder) as folder:
        place = Workplace(folder / "lab", SETTINGS, variables=environment())
        try:
            while results["kills"] < options.kills and not deadline.passed():
                number = results["slides"]
                Run(place, results, number, options).slide(width, height)
                results.add("slides")
                results.save()
                print(f"{results['kills']} kills, {results['slides']} slides", flush=True)
        finally:
            place.close()
    names = ("lost", "done twice", "not verified", "originals changed", "blocks done twice", "files left")
    names += ("daemons that ended unasked",)
    wrong = {name: results[name] for name in names}
    wrong["wasted beyond the blocks in flight"] = max(0, results["most blocks running at a kill"] - SLOTS)
    return conclude(results, wrong, complete=results["kills"] >= options.kills)


class Run:
    """One slide, with its kills."""

    def __init__(self, place: Any, results: Results, number: int, options: Any) -> None:
        self.place, self.results, self.options = place, results, options
        self.chance = random.Random(f"{results['seed']}/{number}")
        self.name = f"slide{number}.tiff"
        self.number = number
        self.blocks: dict[str, int] = {}
        self.worker_kills = 0

    def slide(self, width: int, height: int) -> None:
        """Take one slide through to its end."""
        pixels = slide_pixels(width, height, 1000 * self.results["seed"] + self.number)
        file = write_slide(self.place.inbox / self.name, pixels, compression=None)
        before = (digest(file), file.stat().st_mtime_ns)
        if not self.place.running:
            self.start()
        kills = min(self.options.kills, self.results["kills"] + KILLS)
        while self.results["kills"] < kills and not self.over():
            self.disturb()
        if not self.place.running:
            self.start()
        try:
            self.place.wait(self.over, f"{self.name} is done", PATIENCE)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            print(error, flush=True)
        self.check(file, before)

    def start(self) -> None:
        self.place.start()

    def over(self) -> Any:
        job = self.place.job(self.name)
        return job is not None and job.finished is not None and job

    # -- kills

    def disturb(self) -> None:
        """Wait for a random moment, and kill."""
        drawn = self.chance.random()
        if drawn < 0.3:
            self.wait(self.chance.uniform(0, self.options.longest))
        elif drawn < 0.7:
            # Time alone would mostly meet a daemon that starts: on a busy machine that is the longest part.
            more = len(self.look()) + self.chance.randint(0, 3)
            while not self.over() and not self.all_blocks() and not (self.running() and len(self.look()) >= more):
                self.wait(0.1)
            self.wait(self.chance.uniform(0, 1.0))
        else:
            # The end of a slide is short, and where most can go wrong.
            while not self.over() and not self.all_blocks():
                self.wait(0.2)
            self.wait(self.chance.uniform(0, 1.5))
        if self.over():
            return
        kinds = ["daemon"] * 4 + ["everything"] * 2
        if self.worker_kills < WORKER_KILLS:
            kinds += ["worker"] * 5
        getattr(self, self.chance.choice(kinds))()

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.over():
            self.look()
            if not self.place.running:
                self.fallen()
            time.sleep(0.1)

    def fallen(self) -> None:
        """Restart a daemon that ended unasked, and count it as a fault."""
        self.results.add("daemons that ended unasked")
        print(self.place.report(), flush=True)
        if self.results["daemons that ended unasked"] > 5:
            raise RuntimeError("daemons end unasked")
        self.start()

    def all_blocks(self) -> bool:
        job = self.place.job(self.name)
        return job is not None and 0 < job.blocks_total <= len(self.look())

    def daemon(self) -> None:
        """Kill the daemon alone; its workers notice and end."""
        self.before_kill()
        self.place.process.kill()
        self.place.process.wait()
        self.results.add("kills")
        self.results.add("kills of a daemon")
        if self.chance.random() < 0.5:
            # As after a reboot. Else as by a supervisor, which does not wait for the workers to be gone.
            psutil.wait_procs(self.place.processes(), timeout=60)
        self.after_kill()
        self.start()

    def everything(self) -> None:
        """Kill the daemon and all its workers at once, as a power cut would."""
        self.before_kill()
        self.place.kill()
        self.results.add("kills")
        self.results.add("kills of everything")
        self.after_kill()
        self.start()

    def worker(self) -> None:
        workers = self.place.workers()
        if not workers:
            return
        self.before_kill()
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(self.chance.choice(workers).pid, signal.SIGKILL)
            self.worker_kills += 1
            self.results.add("kills")
            self.results.add("kills of a worker")
        self.after_kill()

    # -- checks

    def spools(self) -> list[Path]:
        return list((self.place.folder / ".wsi-denoise" / "spool").glob("*"))

    def look(self) -> dict[str, int]:
        """Return the finished blocks; one that was written a second time is counted."""
        now = {}
        for folder in self.spools():
            for file in folder.glob("*.block"):
                with contextlib.suppress(FileNotFoundError):
                    now[f"{folder.name}/{file.name}"] = file.stat().st_mtime_ns
        for name, time_ns in self.blocks.items():
            if now.get(name, time_ns) != time_ns:
                self.results.add("blocks done twice")
                print(f"{self.name}: block {name} was done twice", flush=True)
        self.blocks |= now
        return now

    def running(self) -> set[str]:
        """Return the blocks that a worker is at; what an earlier kill cut off has the mark of a process that was."""
        spools = self.place.folder / ".wsi-denoise" / "spool"
        marks = {
            f"{file.parent.name}/{file.stem}.block"
            for file, process in started(spools).items()
            if psutil.pid_exists(process)
        }
        return marks - set(self.look())

    def before_kill(self) -> None:
        running = self.running()
        self.results.add("blocks running at kills", len(running))
        self.results.most("most blocks running at a kill", len(running))

    def after_kill(self) -> None:
        """Whatever has a final name now must be whole, recorded in the database or not."""
        for file in self.place.output.rglob("*.denoised.tiff"):
            found = self.place.json("verify", file, code=None)
            bad = [each for each in found["checks"] if not each["ok"] and each["name"] != "job"]
            if bad:
                self.results.add("not verified")
                print(f"{self.name}: {bad}", flush=True)
            elif not found["ok"]:
                self.results.add("published and not yet recorded at a kill")

    def check(self, file: Path, before: tuple[str, int]) -> None:
        """See that the slide was done exactly once, and that nothing lies about."""
        results = self.results
        jobs = self.place.jobs_of(self.name)
        done = [job for job in jobs if job.state == "done"]
        results.add("lost", not done)
        if not done:
            print(self.place.report(), flush=True)
        ends = sum(event.kind == "done" for job in jobs for event in self.place.store.events(job.id))
        outputs = list(self.place.output.rglob("*"))
        results.add("done twice", max(0, len(done) - 1, ends - 1, len(outputs) - 1))
        results.add("attempts", sum(len(self.place.store.attempts(job.id)) for job in done))
        for job in done:
            if not self.place.json("verify", job.output, code=None)["ok"]:
                results.add("not verified")
        results.add("originals changed", (digest(file), file.stat().st_mtime_ns) != before)
        left = [str(each) for each in self.spools()]
        left += [str(each) for each in outputs if not done or str(each) != done[0].output]
        results.add("files left", len(left))
        if left:
            print(f"left: {left}", flush=True)
        for each in (file, *outputs):
            each.unlink()


def digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
