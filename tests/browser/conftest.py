"""A real browser, and the dashboard as a process of its own; no test leaves one of them behind."""

import os
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest

from support.browser import chromium, find_chromium
from support.browser import serve as start
from wsi_denoise.jobs.store import JobStore

PATIENCE = int(os.environ.get("WSI_DENOISE_PATIENCE", "120")) * 1000  # milliseconds; a busy machine is slow to draw

# What Streamlit itself says on the console of every page: at an address with a path it asks for its server below that
# path first, and gets 404.
STREAMLIT_SAYS = ("Failed to load resource: the server responded with a status of 404",)
STREAMLIT_ASKS = ("/_stcore/health", "/_stcore/host-config")


# Not for the session: playwright's event loop would still run in the tests that come after, which start their own.
@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here (on Debian: apt-get install chromium)")
    with chromium(program) as made:
        yield made


@contextmanager
def database_in(folder):
    """Open the job database of a working folder."""
    made = JobStore(f"sqlite:///{folder / '.wsi-denoise' / 'jobs.sqlite'}")
    made.upgrade()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def store(tmp_path):
    """The job database of the folder that a test serves."""
    with database_in(tmp_path) as made:
        yield made


@contextmanager
def _served(folder, *flags, command="dashboard"):
    with start(folder, *flags, command=command) as served:
        yield served.url


@pytest.fixture(scope="session")
def serve():
    """Serve a folder: ``with serve(folder, *flags) as url``; ``command="up"`` with its daemon."""
    return _served


@pytest.fixture(scope="module")
def lab(request, tmp_path_factory):
    """One dashboard for a module: its address and its job database. FLAGS of the module are added to the command."""
    folder = tmp_path_factory.mktemp("lab")
    with database_in(folder) as made, _served(folder, *getattr(request.module, "FLAGS", ())) as url:
        yield SimpleNamespace(folder=folder, store=made, url=url)


@contextmanager
def _opened(browser, **options):
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.foreign, page.errors = [], []
    page.on("request", lambda request: _own(request.url) or page.foreign.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda said: page.errors.append(f"{said.text} {said.location}") if _ours(said) else None)
    try:
        yield page
    finally:
        context.close()


def _own(url):
    return url.startswith(("http://127.0.0.1:", "blob:", "data:"))


def _ours(said):
    if said.type != "error":
        return False
    streamlit = said.text.startswith(STREAMLIT_SAYS) and said.location.get("url", "").endswith(STREAMLIT_ASKS)
    return not streamlit


@pytest.fixture(scope="module")
def open_page(browser):
    """What opens a tab: its ``foreign`` are requests to other machines, its ``errors`` what went wrong in it."""
    return lambda **options: _opened(browser, **options)


def see_slide(store, name, **given):
    """Put a slide into the job database, as intake does when it finds one."""
    found = {"size_bytes": 1, "mtime_ns": 1, "preset": "paper", "origin": "daemon:1"} | given
    return store.see(f"/scans/{name}", name, **found)


@pytest.fixture
def see(store):
    """See a slide in the database of the test's own folder."""
    return partial(see_slide, store)


@pytest.fixture(scope="module")
def see_in_lab(lab):
    """See a slide in the database of the module's dashboard."""
    return partial(see_slide, lab.store)
