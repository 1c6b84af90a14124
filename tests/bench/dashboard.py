"""How quick the pages are with 100,000 jobs, and whether one that is left open grows.

    python tests/bench/dashboard.py first-paint [--jobs 100000]
    python tests/bench/dashboard.py live --minutes 60 [--slides 4]

Both start the page as a user does, in a folder of their own, and open it in a real Chromium.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from playwright.sync_api import Browser
from sqlalchemy import text

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.browser import PROGRAM, chromium, serve
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.slide import demo

METRICS = ("sigma_before_wavelet", "sigma_after_wavelet", "sigma_before_flat", "sigma_after_flat", "structure_removed",
           "structure_added", "hematoxylin_before", "hematoxylin_after", "eosin_before", "eosin_after", "codec_psnr",
           "psnr", "ssim", "residual_rms", "colour_shift", "sharpness_fine", "sharpness_coarse", "tissue_patches",
           "patches")  # fmt: skip


def fill(store: JobStore, count: int, *, days: int = 365, waiting: int = 200) -> None:
    """Put jobs in as rows, evenly over the last days: states, verdicts, scanners and metrics as a lab might have them.

    The last `waiting` wait; of the others every 50th failed, every 70th is quarantined, one in 50 needs a review.
    Scanner 2 gets noisier from month to month.
    """
    now = datetime.now(UTC)
    start, step = now - timedelta(days=days), timedelta(days=days) / count
    facts = [
        {"vendor": "aperio", "model": "ScanScope", "serial_hash": "3f2a91c07d11"},
        {"vendor": "aperio", "model": "ScanScope", "serial_hash": "b8e4402fd9a3"},
        {"vendor": "hamamatsu", "model": "C13220", "serial_hash": "77d10ce5a2b4"},
    ]
    draw = random.Random(1)
    slides, jobs, metrics = [], [], []
    for i in range(1, count + 1):
        seen, scanner = start + step * i, i % 3
        week = seen.isocalendar()
        state = (
            "queued" if i > count - waiting else "failed" if i % 50 == 0 else "quarantined" if i % 70 == 0 else "done"
        )
        noise = abs(draw.gauss(8 + 4 * scanner, 1.2)) + (6 * i / count if scanner == 1 else 0)
        noise += 15 if draw.random() < 0.003 else 0
        verdict = "review" if draw.random() < 0.02 else "not_needed" if noise < 6.5 else "pass"
        reason = {
            "pass": f"noise_removed: sigma {noise:.1f} before, 1.9 after; no structure found in what was removed.",
            "review": "structure_removed: something stained is missing from the output, in 3 patches.",
            "not_needed": "low_noise: the input's noise is 4.1 and 3.8 grey levels by two estimates.",
        }[verdict]
        over = state != "queued"
        error = {"failed": ("disk_full", "The disk is full. Free some space, then retry."),
                 "quarantined": ("truncated_slide", "The file ends early. Copy it again."),
                 }.get(state, (None, None))  # fmt: skip
        slides.append({
            "id": i, "path": f"/data/inbox/2026/{i % 97:02}/Case_{i:06}.svs",
            "relative": f"2026/{i % 97:02}/Case_{i:06}.svs",
            "size": 400_000_000 + 7 * i, "hash": f"{i:064x}", "width": 90_000, "height": 60_000, "mpp": 0.25,
            "facts": json.dumps(facts[scanner] | {"scan_week": f"{week.year}-W{week.week:02d}"}),
        })  # fmt: skip
        jobs.append({
            "id": i, "state": state, "priority": 0, "created": seen, "started": seen if over else None,
            "finished": seen + timedelta(minutes=4) if over else None, "code": error[0], "error": error[1],
            "verdict": verdict if state == "done" else None, "reasons": json.dumps([reason] if state == "done" else []),
            "output": f"/data/denoised/Case_{i:06}.svs.denoised.tiff" if state == "done" else None,
            "settings": json.dumps({"output.compression": "jpeg", "output.quality": 95, "tissue.mode": "auto"}),
        })  # fmt: skip
        if state == "done":
            structure = abs(draw.gauss(11 if verdict == "review" else 2, 0.8))
            eosin = 0.14 * (1 + draw.gauss(0, 0.012))
            values = (noise, draw.gauss(1.9, 0.2), noise * 1.05, draw.gauss(2.0, 0.2), structure, 1.6, 0.2, 0.201, 0.14,
                      eosin, draw.gauss(44, 0.7), 25.0, 0.6, noise, 0.5, 0.9, 0.97, 9e3, 12e3)  # fmt: skip
            metrics += [{"job": i, "key": key, "value": value} for key, value in zip(METRICS, values, strict=True)]
    with store.writing() as session:
        run = session.execute
        run(
            text(
                "INSERT INTO slides (id, path, relative, size_bytes, mtime_ns, fingerprint, width, height, mpp_x,"
                " mpp_y, facts) VALUES (:id, :path, :relative, :size, 1, :hash, :width, :height, :mpp, :mpp, :facts)"
            ),
            slides,
        )
        run(
            text(
                "INSERT INTO jobs (id, slide_id, state, preset, priority, origin, settings, settings_hash, created,"
                " started, finished, attempts, cancel_requested, blocks_done, blocks_total, blocks_resumed, verdict,"
                " reasons, output, provenance, error_code, error) VALUES (:id, :id, :state, 'paper', :priority,"
                " 'daemon:1', :settings, 's', :created, :started, :finished, 1, FALSE, 0, 0, 0, :verdict, :reasons,"
                " :output, '{}', :code, :error)"
            ),
            [{**job, **{name: _stored(job[name]) for name in ("created", "started", "finished")}} for job in jobs],
        )
        run(text("INSERT INTO metrics (job_id, key, value) VALUES (:job, :key, :value)"), metrics)


def _stored(time: datetime | None) -> str | None:
    return None if time is None else time.strftime("%Y-%m-%d %H:%M:%S.%f")


SEEN = {
    "queue": "[aria-label='Waiting jobs'] li",
    "history": "tbody tr",
    "history?state=failed": "tbody tr",
    "history?slide=case_00": "tbody tr",
    "quality?within=1+year": "[data-testid='stVegaLiteChart'] canvas, [data-testid='stVegaLiteChart'] svg",
    "system": "meter",
}
"""Page to what is there once it is painted with what it is for."""


def first_paint(jobs: int, looks: int) -> dict[str, dict[str, float]]:
    """Return for each page the seconds from asking for its address to the first row, with a fresh visitor each."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        store = JobStore(f"sqlite:///{Path(folder) / '.wsi-denoise' / 'jobs.sqlite'}")
        store.upgrade()
        fill(store, jobs)
        assert store.count_by_state()[JobState.QUEUED] == min(200, jobs)
        store.close()
        with serve(Path(folder)) as served, chromium() as browser:
            url = served.url
            for page, mark in SEEN.items():
                took = []
                for _ in range(looks + 1):
                    # The browser's own cache stays: a lab opens the page every day with the same browser.
                    tab = browser.contexts[0].new_page() if browser.contexts else browser.new_context().new_page()
                    began = time.perf_counter()
                    tab.goto(url + page, wait_until="commit")
                    tab.locator(mark).first.wait_for(timeout=60_000)
                    took.append(time.perf_counter() - began)
                    tab.close()
                first, *again = took
                found[page] = {"first": first, "median": statistics.median(again), "worst": max(again)}
                print(
                    f"{page:28} first {first:5.2f} s, then median {found[page]['median']:.2f} s,"
                    f" worst {max(again):.2f} s"
                )
            found["history, next page"] = _turning(browser, url, looks)
            found |= _switching(browser, url, looks)
    return found


def _turning(browser: Browser, url: str, looks: int) -> dict[str, float]:
    """Return the seconds from a click on the next page of the history to its rows, on a page that is open."""
    tab = browser.contexts[0].new_page()
    tab.goto(f"{url}history")
    tab.locator("tbody tr").first.wait_for(timeout=60_000)
    took = []
    for number in range(1, looks + 2):
        began = time.perf_counter()
        tab.get_by_role("button", name="Next", exact=True).click()
        tab.get_by_text(f"{50 * number + 1:,} to {50 * number + 50:,} of").wait_for(timeout=60_000)
        took.append(time.perf_counter() - began)
    tab.close()
    first, *again = took
    print(f"{'history, next page':28} first {first:5.2f} s, then median {statistics.median(again):.2f} s")
    return {"first": first, "median": statistics.median(again), "worst": max(again)}


def _switching(browser: Browser, url: str, looks: int) -> dict[str, dict[str, float]]:
    """Return for each page the seconds from a click on its name, in a tab that is open, to its first row."""
    marks = {name.partition("?")[0].capitalize(): mark for name, mark in SEEN.items()}
    tab = browser.contexts[0].new_page()
    tab.goto(f"{url}system")
    tab.locator(marks["System"]).first.wait_for(timeout=60_000)
    took: dict[str, list[float]] = {name: [] for name in marks}
    for _ in range(looks + 1):
        for name, mark in marks.items():
            tab.wait_for_timeout(1500)  # nothing of the page before is still being sent
            began = time.perf_counter()
            tab.get_by_role("link", name=name, exact=True).click()
            tab.locator(mark).first.wait_for(timeout=60_000)
            took[name].append(time.perf_counter() - began)
    tab.close()
    found = {}
    for name, (first, *again) in took.items():
        found[f"to {name}"] = {"first": first, "median": statistics.median(again), "worst": max(again)}
        median = statistics.median(again)
        print(f"{f'to {name}':28} first {first:5.2f} s, then median {median:.2f} s, worst {max(again):.2f} s")
    return found


def live(
    minutes: float, *, settle: float = 5.0, every: float = 10.0, jobs: int = 2_000, slides: float = 0.0
) -> dict[str, float]:
    """Leave Queue open and return how much the memory of server and browser grew after the first `settle` minutes.

    Jobs come and go: rows that are updated as by a daemon, or with `slides` a daemon and real slides, one
    every so many minutes. The growth is that of the median of the last fifth over that of the first fifth. Server and
    renderer are resident memory of the whole process; page is the JavaScript heap after its garbage was collected.
    """
    seen: dict[str, list[float]] = {"server": [], "page": [], "nodes": [], "renderer": []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = JobStore(f"sqlite:///{folder / '.wsi-denoise' / 'jobs.sqlite'}")
        stack.callback(store.close)
        store.upgrade()
        fill(store, jobs, waiting=0 if slides else 200)
        work = _Slides(folder, slides) if slides else _Rows(store)
        stack.callback(work.close)
        served = stack.enter_context(serve(folder))
        process = psutil.Process(served.process.pid)
        browser = stack.enter_context(chromium())
        tab = browser.new_page()
        tab.goto(served.url)
        tab.locator("[aria-label='Last finished jobs'] li").first.wait_for(timeout=120_000)
        session = tab.context.new_cdp_session(tab)
        renderer = _renderer(browser)
        began, number = time.monotonic(), 0
        while time.monotonic() < began + 60 * minutes:
            time.sleep(every)
            number += 1
            work.go_on(number)
            if time.monotonic() - began < 60 * settle:
                continue
            session.send("HeapProfiler.collectGarbage")
            seen["page"].append(session.send("Runtime.getHeapUsage")["usedSize"] / 1e6)
            seen["nodes"].append(session.send("Memory.getDOMCounters")["nodes"])
            seen["renderer"].append(renderer.memory_info().rss / 1e6)
            seen["server"].append(process.memory_info().rss / 1e6)
            if number % 12 == 0:
                now = ", ".join(f"{name} {values[-1]:.1f}" for name, values in seen.items())
                print(f"{(time.monotonic() - began) / 60:5.1f} min: {now}", flush=True)
        counts = {state.value: count for state, count in store.count_by_state().items()}
    result = {"minutes": minutes, "looks": len(seen["server"]), "jobs": counts}
    for name, values in seen.items():
        fifth = max(len(values) // 5, 1)
        first, last = statistics.median(values[:fifth]), statistics.median(values[-fifth:])
        result |= {f"{name}_first": first, f"{name}_last": last, f"{name}_growth": last / first - 1}
    return result


def _renderer(browser: Browser) -> psutil.Process:
    """Return the process that draws the page: of the browser's renderers the one that is largest."""
    told = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    found = [psutil.Process(one["id"]) for one in told if one["type"] == "renderer"]
    return max(found, key=lambda one: one.memory_info().rss)


class _Rows:
    """Moves rows on, as a daemon would."""

    def __init__(self, store: JobStore) -> None:
        self._store, self._daemon, self._job = store, store.register_daemon(device="bench"), None

    def go_on(self, number: int) -> None:
        self._job = _go_on(self._store, self._daemon, self._job, number)

    def close(self) -> None:
        pass


class _Slides:
    """A daemon, and a slide in its inbox every so many minutes."""

    def __init__(self, folder: Path, minutes: float) -> None:
        self._folder, self._every, self._next, self._count = folder, 60 * minutes, time.monotonic(), 0
        (folder / "inbox").mkdir()
        (folder / "wsi-denoise.toml").write_text("[compute]\nworkers = 1\n[intake]\nsettle_seconds = 2.0\n")
        self._daemon = subprocess.Popen(
            [PROGRAM, "watch"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def go_on(self, _: int) -> None:
        if time.monotonic() < self._next:
            return
        self._next += self._every
        self._count += 1
        # Another side each time: the same content twice would be refused as a duplicate.
        made = demo.write(self._folder / "made", side=2500 + 8 * self._count)
        made.rename(self._folder / "inbox" / f"slide-{self._count:03}.tiff")

    def close(self) -> None:
        self._daemon.terminate()
        self._daemon.wait(120)


def _go_on(store: JobStore, daemon: int, job: int | None, number: int) -> int | None:
    """Move a job on by a step, as a daemon would."""
    store.heartbeat(daemon, job, 60)
    if job is None:
        claimed = store.claim(daemon, 600)
        return claimed.id if claimed else None
    if number % 12:
        store.progress(job, daemon, number % 12, 12, rate=2.0, seconds_left=60.0)
        return job
    store.finish(job, daemon, verdict="pass", reasons=[], metrics={}, output="/x", output_sha256="0")
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("first-paint", "live", "fill"))
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--looks", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--settle", type=float, default=5.0, help="minutes before the first measurement of memory")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between measurements")
    parser.add_argument("--slides", type=float, default=0.0, help="a daemon, and a slide every so many minutes")
    parser.add_argument("--folder", type=Path, help="for fill: a working folder without a database")
    given = parser.parse_args()
    if given.what == "fill":
        store = JobStore(f"sqlite:///{given.folder / '.wsi-denoise' / 'jobs.sqlite'}")
        store.upgrade()
        fill(store, given.jobs)
        store.close()
    elif given.what == "first-paint":
        print(json.dumps(first_paint(given.jobs, given.looks), indent=2))
    else:
        print(
            json.dumps(
                live(
                    given.minutes,
                    settle=given.settle,
                    every=given.every,
                    jobs=min(given.jobs, 2_000),
                    slides=given.slides,
                ),
                indent=2,
            )
        )


if __name__ == "__main__":
    main()
