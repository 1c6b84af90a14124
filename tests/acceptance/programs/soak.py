"""Thousands of tiny slides through one daemon with its page, which is asked for /api/jobs all the time.

After every batch, when all is done, open files, threads and memory (PSS: what a process would give back) of daemon,
workers and page are measured. After the first 100 slides and at the end they are to be the same, memory within 10 %.
A stopped run continues in a new daemon and adds up; figures are compared within one daemon's life.

    python tests/acceptance/programs/soak.py --slides 2000 --results soak.json
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
from common import Deadline, Results, Workplace, conclude, parser, slide_pixels, working_folder, write_slide

SIDE = (240, 200)
BATCH = 50
STILL_SECONDS = 900.0
MEMORY = 1.10
PSS = frozenset({"daemon MB", "page MB", "worker MB"})
"""Not judged in short runs: it jumps when another program with the same libraries ends, and 24 slides show no trend."""

GRACE_MB = 5.0
"""Memory that a process may take beyond the ten per cent: the page's interpreter is small, and pages are counted."""


def main(arguments: list[str] | None = None) -> int:
    """Run until so many slides are done, or the time is over."""
    given = parser(__doc__)
    given.add_argument("--slides", type=int, default=2000)
    given.add_argument("--first", type=int, default=100, help="slides after which the measure is taken")
    given.add_argument("--batch", type=int, default=BATCH)
    given.add_argument("--slack", type=int, default=0, help="files and threads more ignored in short runs")
    options = given.parse_args(arguments)
    results = Results(options.results, options.seed)
    deadline = Deadline(options.minutes)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    samples: list[dict[str, Any]] = []
    with working_folder(options.folder) as folder:
        place = Workplace(
            folder / "lab",
            {
                "compute": {"workers": 1, "threads": 1},
                "output": {"compression": "deflate"},
                "log": {"level": "warning"},
            },
        )
        stop = threading.Event()
        asked = {"answers": 0, "failures": 0}
        try:
            place.start("--port", str(port), command="up")
            poll = threading.Thread(target=ask, args=(port, stop, asked), daemon=True)
            poll.start()
            while results["slides"] < options.slides and not deadline.passed():
                batch(place, results, min(options.batch, options.slides - results["slides"]))
                samples.append({"slides": sum(job.state == "done" for job in place.jobs()), **sample(place)})
                results.save()
                print(json.dumps(samples[-1]), flush=True)
            stop.set()
            poll.join()
            results.add("daemons that did not end in good order", place.terminate() != 0)
        finally:
            stop.set()
            place.close()
    for name, value in asked.items():
        results.add(f"{name} of /api/jobs", value)
    wrong = compare(samples, options, results)
    for name in ("lost", "daemons that did not end in good order", "failures of /api/jobs"):
        wrong[name] = results[name]
    return conclude(results, wrong, complete=results["slides"] >= options.slides)


def batch(place: Any, results: Results, count: int) -> None:
    """Bring slides and wait until they are done."""
    for _ in range(count):
        number = results["slides"]
        pixels = slide_pixels(*SIDE, 1_000_000 * results["seed"] + number)
        write_slide(place.inbox / f"day{number // 200}" / f"slide{number}.tiff", pixels)
        results.add("slides")
    wanted = sum(1 for _ in place.inbox.rglob("*.tiff"))
    last, since = -1, time.monotonic()
    while last < wanted and time.monotonic() - since < STILL_SECONDS:
        time.sleep(0.5)
        now = place.store.count_by_state()["done"] if (place.folder / ".wsi-denoise" / "jobs.sqlite").exists() else 0
        if now != last:
            last, since = now, time.monotonic()
        if not place.running:
            break
    if last < wanted:
        results.add("lost", wanted - last)
        print(place.report(), flush=True)
        raise SystemExit("not all slides were done")


def ask(port: int, stop: threading.Event, asked: dict[str, int]) -> None:
    """Request the jobs as a page does, until stopped. A missing answer at the start is not a failure."""
    while not stop.wait(1.0):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/jobs?limit=50", timeout=60) as answer:
                json.load(answer)
            asked["answers"] += 1
        except (OSError, ValueError):
            if asked["answers"] and not stop.is_set():
                asked["failures"] += 1


def sample(place: Any) -> dict[str, Any]:
    """Measure a few times, and return the least of each: a request may be under way."""
    time.sleep(2.0)
    found: dict[str, Any] = {}
    for _ in range(3):
        time.sleep(0.7)
        for name, value in measure(place).items():
            found[name] = min(found.get(name, value), value)
    return found


def measure(place: Any) -> dict[str, Any]:
    """Measure every process of the daemon, by what it is."""
    workers = {process.pid for process in place.workers()}
    found: dict[str, Any] = {}
    processes = [
        place.process.pid,
        *(child.pid for child in psutil.Process(place.process.pid).children(recursive=True)),
    ]
    for pid in processes:
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            command = " ".join(process.cmdline())
            kind = (
                "daemon" if pid == place.process.pid
                else "worker" if pid in workers
                else "page" if "wsi_denoise.cli.dashboard" in command
                else ""
            )  # fmt: skip
            if not kind:
                continue
            with process.oneshot():
                found[f"{kind} files"] = process.num_fds()
                found[f"{kind} threads"] = process.num_threads()
                found[f"{kind} MB"] = round(process.memory_full_info().pss / 1e6, 1)
                # PSS of libraries rises when another program that had them too ends: this is what is its own.
                found[f"{kind} anonymous MB"] = round(anonymous(pid) / 1e6, 1)
    return found


def anonymous(pid: int) -> int:
    """Return the bytes of a process that are of no file."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))


def compare(samples: list[dict[str, Any]], options: Any, results: Results) -> dict[str, Any]:
    """Compare the end with what was after the first slides."""
    first = next((each for each in samples if each["slides"] >= options.first), None)
    if first is None or first is samples[-1]:
        print("too few slides to compare anything")
        return {}
    last = samples[-1]
    results.put("after the first", first)
    results.put("at the end", last)
    wrong = {}
    for name, before in first.items():
        after = last.get(name, 0)
        if name == "slides" or (options.slack and name in PSS):
            continue
        bound = before * MEMORY + GRACE_MB if name.endswith("MB") else before + options.slack
        if after > bound:
            wrong[name] = f"{before} and then {after}"
    return wrong


if __name__ == "__main__":
    sys.exit(main())
