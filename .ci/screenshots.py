"""Make the pictures of the documentation: `make screenshots`, or `.venv/bin/python .ci/screenshots.py [NAME ...]`.

Starts the program in a temporary folder with demo slides, takes pictures of the dashboard in Chromium, and writes them
to docs/images. History and Quality show made-up jobs, because their pages need hundreds of slides.
"""

import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from playwright.sync_api import Browser, Locator, Page

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from bench.dashboard import fill
from support.browser import PROGRAM, chromium, find_chromium, serve
from support.slides import write_slide
from wsi_denoise.jobs.store import JobStore

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
LONGEST_SECONDS = 1800
WIDTH = 1280
MADE_UP_JOBS = 900
OF_SLIDES = {"queue", "compare", "metrics", "difference", "job", "system"}
QUALITY = {"compare": 85, "difference": 60, "queue": 90}  # of WebP
OF_JOBS = {"history", "quality", "spread", "trend"}


def main(names: list[str]) -> int:
    wanted = set(names) or OF_SLIDES | OF_JOBS
    if find_chromium() is None:
        sys.exit("Chromium is missing; on Debian: apt-get install chromium")
    with chromium() as browser, tempfile.TemporaryDirectory(prefix="wsi-denoise-") as folder:
        if wanted & OF_SLIDES:
            pictures_of_slides(browser, Path(folder) / "lab", wanted)
        if wanted & OF_JOBS:
            pictures_of_jobs(browser, Path(folder) / "history", wanted)
    return 0


# Slides


def pictures_of_slides(browser: Browser, folder: Path, wanted: set[str]) -> None:
    inbox = folder / "inbox"
    inbox.mkdir(parents=True)
    demo = Path(json.loads(run("sample", str(folder), "--json", folder=folder))["path"])
    slide = tifffile.imread(demo)[:3000, :3000]
    shutil.copy(demo, inbox / demo.name)
    for number, corner in enumerate((0, 500, 900), 50):
        write_slide(
            inbox / f"lung-2026-0{number}.tiff", slide[corner : corner + 1500, corner : corner + 1500], mpp=0.25
        )
    (inbox / "S26-0398 A.svs").write_bytes(b"a copy that went wrong " * 1000)
    settings = ("--set", "intake.settle_seconds=1", "--set", "intake.grace_seconds=1")
    with serve(folder, *settings, command="up") as served:
        url = served.url
        over = wait(url, lambda jobs: jobs if len(jobs) == 5 and all(job["finished"] for job in jobs) else None)
        number = next(job["id"] for job in over if job["relative"] == demo.name)
        with opened(browser, 1100) as page:
            if wanted & {"compare", "metrics"}:
                show_compare(page, f"{url}compare?job={number}&zoom=1&x=1500&y=1500", wanted)
            if "difference" in wanted:
                show_difference(page, f"{url}viewer/{number}?mode=difference&k=4&zoom=1&x=1500&y=1500&theme=light")
            if "job" in wanted:
                show_broken(page, url, next(job for job in over if job["state"] == "quarantined"))
            if "queue" in wanted:
                fill_queue(url, inbox, slide)
                show(page, "queue", url, page.get_by_text("S26-0417 B2.tiff"), height=940, seconds=4)
            if "system" in wanted:
                # The checks of `wsi-denoise doctor` take 15 s.
                show(page, "system", f"{url}system", page.get_by_role("tab"), height=1040, seconds=15)


def show(page: Page, name: str, address: str, mark: Locator, *, height: int, seconds: float = 3) -> None:
    """Save the picture of a page, some seconds after it has drawn a mark."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    page.goto(address)
    mark.first.wait_for()
    page.wait_for_timeout(1000 * seconds)
    save(name, page.screenshot())


def show_compare(page: Page, address: str, wanted: set[str]) -> None:
    page.goto(address)
    page.frame_locator("iframe").locator("html[data-ready=true]").wait_for(state="attached")
    page.wait_for_timeout(3000)
    if "compare" in wanted:
        save("compare", page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": 1000}))
    if "metrics" in wanted:
        page.set_viewport_size({"width": WIDTH, "height": 3600})
        page.wait_for_timeout(3000)
        save("metrics", page.locator(".wd-metrics").screenshot())


def show_difference(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 1000, "height": 640})
    page.goto(address)
    page.locator("html[data-ready=true]").wait_for(state="attached")
    page.wait_for_timeout(3000)
    save("difference", page.screenshot())


def show_broken(page: Page, url: str, broken: dict) -> None:
    show(page, "job", f"{url}history?job={broken['id']}", page.get_by_text(broken["error_code"]), height=720)


def fill_queue(url: str, inbox: Path, slide: np.ndarray) -> None:
    """Put three slides into the inbox, and wait until the first is in progress."""
    large = np.pad(slide, ((0, 6000), (0, 6000), (0, 0)), mode="symmetric")
    write_slide(inbox / "S26-0417 B2.tiff", large, mpp=0.25)
    wait(url, lambda jobs: [job for job in jobs if job["state"] == "running"])
    for name, corner in (("S26-0417 B3.tiff", 200), ("S26-0418 A1.tiff", 700)):
        write_slide(inbox / name, slide[corner : corner + 1800, corner : corner + 1800], mpp=0.25)
    wait(url, lambda jobs: jobs if len(jobs) == 8 and max(job["blocks_done"] for job in jobs) > 7 else None)


# Jobs


def pictures_of_jobs(browser: Browser, folder: Path, wanted: set[str]) -> None:
    folder.mkdir()
    store = JobStore(f"sqlite:///{folder / '.wsi-denoise' / 'jobs.sqlite'}")
    store.upgrade()
    fill(store, MADE_UP_JOBS, days=28, waiting=3)
    store.close()
    with serve(folder) as served, opened(browser, 760) as page:
        url = served.url
        if "history" in wanted:
            show(page, "history", f"{url}history", page.get_by_text(f"of {MADE_UP_JOBS} jobs"), height=760, seconds=2)
        if wanted & {"quality", "spread", "trend"}:
            page.set_viewport_size({"width": WIDTH, "height": 3200})
            page.goto(f"{url}quality")
            headings = page.locator("h2")
            headings.nth(3).wait_for()
            page.wait_for_timeout(6000)
            tops = [headings.nth(index).bounding_box() for index in range(headings.count())]
            edges = [box["y"] - 16 for box in tops if box]
            parts = {"quality": (0, edges[2]), "spread": (edges[2], edges[3]), "trend": (edges[3], edges[3] + 490)}
            for name in wanted & set(parts):
                save(name, clipped(page, *parts[name]))


# The program and the browser


def run(*arguments: str, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.run([PROGRAM, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def wait_for(done: Callable[[], object]) -> None:
    end = time.monotonic() + LONGEST_SECONDS
    while not done():
        if time.monotonic() > end:
            sys.exit("the program did not get there in time")
        time.sleep(0.5)


def wait(url: str, chosen: Callable[[list[dict]], object]) -> list[dict]:
    """Poll the jobs until they are as they should be, and return them."""
    found: list[dict] = []

    def done() -> object:
        with urllib.request.urlopen(f"{url}api/jobs?limit=0", timeout=30) as answer:
            found[:] = json.load(answer)["jobs"]
        return chosen(found)

    wait_for(done)
    return found


@contextmanager
def opened(browser: Browser, height: int) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": WIDTH, "height": height}, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(300_000)
    yield page
    context.close()


def clipped(page: Page, top: float, bottom: float) -> bytes:
    return page.screenshot(clip={"x": 0, "y": top, "width": WIDTH, "height": bottom - top})


def save(name: str, picture: bytes) -> None:
    """Write a picture: WebP where most of it is tissue or grain, else PNG."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    file = IMAGES / f"{name}.{'webp' if name in QUALITY else 'png'}"
    if name in QUALITY:
        image.save(file, quality=QUALITY[name], method=6)
    else:
        image.save(file, optimize=True)
    print(f"{file.relative_to(ROOT)}: {image.width} x {image.height}, {file.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
