"""Several daemons, one inbox, one database: each slide is done exactly once.

Each daemon has a working folder of its own, as on machines of their own; inbox, outputs and database are shared. Half
of the slides lie there when the daemons start, the other half arrives while they work. On PostgreSQL the server may be
restarted in the middle (--restart), on SQLite another program may hold the write lock (--lock): both only delay.

    python tests/acceptance/programs/daemons.py --daemons 4 --slides 200 --database postgresql --results daemons.json
"""

from __future__ import annotations

import collections
import contextlib
import json
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import Results, Workplace, conclude, parser, slide_pixels, working_folder, write_slide

from support.postgres import Server
from wsi_denoise.intake.fingerprint import fingerprint
from wsi_denoise.jobs.states import OVER
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import Job, JobQuery
from wsi_denoise.slide.verify import verify_file
from wsi_denoise.system.mounts import MARKER

SIDE = (300, 200)
STILL_SECONDS = 900.0
"""Seconds without the end of a job until the run is stopped."""


def main(arguments: list[str] | None = None) -> int:
    """Run once; figures are kept for each database separately."""
    given = parser(__doc__)
    given.add_argument("--daemons", type=int, default=4)
    given.add_argument("--slides", type=int, default=200)
    given.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    given.add_argument("--restart", action="store_true", help="restart PostgreSQL in the middle")
    given.add_argument("--lock", type=float, default=0.0, help="seconds for which SQLite is locked in the middle")
    options = given.parse_args(arguments)
    results = Results(options.results, options.seed)
    with working_folder(options.folder) as folder, database(options.database, folder) as (url, server):
        daemons = [workplace(folder, number, url) for number in range(options.daemons)]
        try:
            began = time.monotonic()
            jobs = run(daemons, folder, url, server, options, results)
            seconds = time.monotonic() - began
        finally:
            for daemon in daemons:
                daemon.close()
        wrong = count(jobs, folder, options, results)
    results.add(f"{options.database}: seconds", round(seconds))
    return conclude(results, wrong, complete=True)


@contextlib.contextmanager
def database(kind: str, folder: Path) -> Iterator[tuple[str, Server | None]]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'shared' / 'jobs.sqlite'}", None
        return
    server = Server()
    try:
        with server.database() as url:
            yield url, server
    finally:
        server.close()


def workplace(folder: Path, number: int, url: str) -> Any:
    shared = folder / "shared"
    (shared / "inbox").mkdir(parents=True, exist_ok=True)
    return Workplace(
        folder / f"lab{number}",
        {
            "intake": {
                "inbox": [str(shared / "inbox")], "quarantine": str(shared / "quarantine"), "grace_seconds": 600.0,
            },
            "output": {"folder": str(shared / "denoised"), "compression": "deflate"},
            "jobs": {"database": url},
            "compute": {"workers": 1, "threads": 1},
        },
    )  # fmt: skip


def run(daemons: list[Any], folder: Path, url: str, server: Server | None, options: Any, results: Results) -> list[Job]:
    """Start the daemons, bring the slides, disturb, and wait until every slide has come to an end."""
    inbox = folder / "shared" / "inbox"
    store = JobStore(url)
    store.upgrade()
    half = options.slides // 2
    try:
        for number in range(half):
            bring(inbox, number, results)
        for daemon in daemons:
            daemon.start()
        for number in range(half, options.slides):
            bring(inbox, number, results)
            time.sleep(0.05)
        disturber = threading.Thread(target=disturb, args=(store, server, url, options, results))
        disturber.start()
        wait(store, daemons, options.slides)
        disturber.join()
        for daemon in daemons:
            results.add("daemons that did not end in good order", daemon.terminate() != 0)
        jobs: list[Job] = store.jobs(JobQuery(limit=None, sort="id")).jobs
        name = f"{options.database}: "
        events = [event for event in store.events() if event.kind == "done"]
        results.add(name + "ends in the database", len(events))
        results.add(name + "attempts", sum(len(store.attempts(job.id)) for job in jobs))
        shares = collections.Counter(event.origin for event in events)
        results.put(name + "slides by daemon", json.dumps(sorted(shares.values(), reverse=True)))
    finally:
        store.close()
    return jobs


def bring(inbox: Path, number: int, results: Results) -> None:
    pixels = slide_pixels(*SIDE, 100_000 * results["seed"] + number)
    write_slide(inbox / f"batch{number % 7}" / f"slide{number}.tiff", pixels)


def over(store: JobStore) -> int:
    states = store.count_by_state()
    return sum(states.get(state, 0) for state in OVER)


def wait(store: JobStore, daemons: list[Any], slides: int) -> None:
    last, since = -1, time.monotonic()
    while last < slides and time.monotonic() - since < STILL_SECONDS:
        time.sleep(1.0)
        now = last
        with contextlib.suppress(Exception):  # the database is away, as was wanted
            now = over(store)
        if now != last:
            last, since = now, time.monotonic()
        if not any(daemon.running for daemon in daemons):
            print("no daemon is left", flush=True)
            break
    for daemon in daemons:
        if not daemon.running or last < slides:
            print("\n".join(daemon.report().splitlines()[-30:]), flush=True)


def disturb(store: JobStore, server: Server | None, url: str, options: Any, results: Results) -> None:
    """Restart the server, or hold SQLite's write lock, once a quarter of the slides is done."""
    if not (options.restart or options.lock):
        return
    while over(store) < options.slides // 4:
        time.sleep(0.5)
    if options.restart and server is not None:
        server.stop()
        time.sleep(5.0)
        server.start()
        results.add("restarts of PostgreSQL")
    if options.lock and server is None:
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(options.lock)
        connection.execute("ROLLBACK")
        connection.close()
        results.add("seconds for which SQLite was locked", options.lock)


def count(jobs: list[Job], folder: Path, options: Any, results: Results) -> dict[str, int]:
    """Count what is not exactly once, and verify every output."""
    name = f"{options.database}: "
    of_slide = collections.Counter(job.slide for job in jobs if job.state == "done")
    outputs = sorted((folder / "shared" / "denoised").rglob("*.tiff"))
    files = [file for file in (folder / "shared" / "denoised").rglob("*") if file.is_file() and file.name != MARKER]
    strange = [file for file in files if file not in outputs]
    by_output = {job.output: job for job in jobs}
    bad = [
        file for file in outputs
        if not verify_file(file, by_output.get(str(file)), source_fingerprint=fingerprint).ok
    ]  # fmt: skip
    results.add(name + "slides", options.slides)
    results.add(name + "done", sum(of_slide.values()))
    wrong = {
        name + "lost": options.slides - len(of_slide),
        name + "done twice": sum(times - 1 for times in of_slide.values()) + max(0, len(outputs) - options.slides),
        name + "other jobs": len(jobs) - sum(of_slide.values()),
        name + "not verified": len(bad),
        name + "files left": len(strange),
    }
    for key, value in wrong.items():
        results.add(key, value)
    for job in jobs:
        if job.state != "done":
            print(job.id, job.relative, job.state, job.error, flush=True)
    wrong["ends in the database without a slide"] = max(
        0, results[name + "ends in the database"] - results[name + "done"]
    )
    wrong["daemons that did not end in good order"] = results["daemons that did not end in good order"]
    return wrong


if __name__ == "__main__":
    sys.exit(main())
