"""The page in a real browser: what a person sees of a real store, and that it stays up to date."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from wsi_denoise.errors import TruncatedSlide
from wsi_denoise.jobs.store import JobStore

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 120_000  # milliseconds; a busy machine is slow to draw


@pytest.fixture(scope="module")
def browser():
    program = os.environ.get("WSI_DENOISE_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium here (on Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        # Chromium's own sandbox needs what root in a container does not have; only our page is opened.
        made = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield made
        made.close()


@pytest.fixture
def store(tmp_path):
    made = JobStore(f"sqlite:///{tmp_path / '.wsi-denoise' / 'jobs.sqlite'}")
    made.upgrade()
    yield made
    made.close()


@contextmanager
def served(folder, *flags):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    program = Path(sys.executable).with_name("wsi-denoise")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WSI_DENOISE_")}
    process = subprocess.Popen(
        [program, "dashboard", "--port", str(port), *flags],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(600):
            assert process.poll() is None, f"the page ended with {process.returncode}"
            try:
                urllib.request.urlopen(f"{url}healthz", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def opened(browser):
    """A new tab, with the list of what it asked other machines for."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    foreign = []
    page.on("request", lambda request: "127.0.0.1" in request.url or foreign.append(request.url))
    try:
        yield page, foreign
    finally:
        page.close()


def seen(store, name):
    return store.see(f"/scans/{name}", name, size_bytes=1, mtime_ns=1, preset="paper", origin="daemon:1")


def cell(page, text):
    # The tables are drawn; their cells are also there as text for screen readers.
    return page.get_by_role("gridcell", name=text, exact=True, include_hidden=True)


@pytest.mark.timeout(400)
def test_queue_and_history_are_shown_and_stay_up_to_date(browser, store, tmp_path):
    seen(store, "waiting.svs")
    broken = seen(store, "broken.svs")
    store.quarantine(broken.id, TruncatedSlide("at byte 7"), "daemon:1")
    store.pause("person:cli", "<b>*coffee*</b>")
    with served(tmp_path) as url, opened(browser) as (page, foreign):
        page.goto(url)
        cell(page, "waiting.svs").wait_for(state="attached")
        cell(page, "broken.svs").wait_for(state="attached")
        cell(page, "quarantined").wait_for(state="attached")
        page.get_by_text("Research use only, derived image").wait_for()
        # A reason is text, whatever somebody typed.
        page.get_by_text("<b>*coffee*</b>").wait_for()
        seen(store, "later.svs")
        store.resume("person:cli")
        cell(page, "later.svs").wait_for(state="attached")
        page.get_by_text("The queue is paused").wait_for(state="detached")
        assert not foreign, "the page asked another machine"


@pytest.mark.timeout(400)
def test_a_token_is_asked_for_once(browser, store, tmp_path):
    seen(store, "waiting.svs")
    with served(tmp_path, "--set", "dashboard.token=a b&c") as url, opened(browser) as (page, _):
        for path in ("", "api/jobs", "_stcore/health", "static/index.html"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(url + path)
        page.goto(url)
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button").click()
        page.get_by_text("That was not the token").wait_for()
        page.get_by_label("Token").fill("a b&c")
        page.get_by_role("button").click()
        cell(page, "waiting.svs").wait_for(state="attached")
        assert page.url == url
        page.goto(f"{url}api/jobs")
        assert re.search(r'"total": ?1', page.inner_text("body"))
