"""Fixtures every tier uses: real tissue that ships with a dependency, and the shared folder where there is one."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from support.postgres import NotThere, Server
from support.processed import Processed, process
from support.slides import tissue
from support.stores import open_store
from wsi_denoise.errors import SlideError, WsiDenoiseError
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import Job, JobState
from wsi_denoise.settings import Settings

ROOT = Path(__file__).parents[1]


def shared_folder() -> Path:
    return Path(os.environ.get("WSI_DENOISE_SHARED", ROOT.parent / "shared"))


def pytest_configure() -> None:
    """Let programs that a test starts receive Ctrl-C: a background job of a shell ignores it, and so would they."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start files with slow tests first: a tier on several workers ends earlier."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _environment_for_programs() -> Iterator[None]:
    """Forget what starting workers leaves in this process: a program of a later test finds modules beside itself."""
    yield
    os.environ.pop("PYTHONSAFEPATH", None)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real slides and reference weights."""
    folder = shared_folder()
    if not (folder / "data").is_dir():
        pytest.skip(f"real slides are not at {folder} (set WSI_DENOISE_SHARED)")
    return folder


@pytest.fixture(scope="session")
def tissue_image() -> np.ndarray:
    """Real H&E, (height, width, 3) uint8, from tiatoolbox's package data (found without importing it)."""
    return tissue()


@pytest.fixture
def store(settings: Settings) -> Iterator[JobStore]:
    """The job database of the test's settings."""
    with open_store(settings.database_url) as store:
        yield store


@pytest.fixture(scope="session")
def end_job() -> Callable[..., Job]:
    """Ends a queued job with an error, as a daemon does that took it up."""

    def end(store: JobStore, job_id: int, error: WsiDenoiseError, state: JobState | None = None) -> Job:
        daemon = store.register_daemon()
        assert store.claim(daemon, 60, only=job_id)
        at_fault = state is JobState.QUARANTINED if state else isinstance(error, SlideError)
        ends = store.quarantine if at_fault else store.fail
        return ends(job_id, error, f"daemon:{daemon}", holder=daemon)

    return end


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server, started by the tests; its ``database()`` gives the URL of a new, empty database."""
    try:
        server = Server()
    except NotThere as error:
        pytest.skip(f"no PostgreSQL: {error}")
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path) -> Iterator[str]:
    """The URL of a new database, of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'state' / 'jobs.sqlite'}"
        return
    with request.getfixturevalue("postgres").database() as made:
        yield made


@pytest.fixture
def processed(tmp_path) -> Iterator[Callable[..., Processed]]:
    """Make a done job of real tissue: ``processed(name="a.tiff", levels=2, icc=None)``."""
    stores = []

    def make(*args, **named) -> Processed:
        case = process(tmp_path, *args, **named)
        stores.append(case.store)
        return case

    yield make
    for store in stores:
        store.close()


class Client:
    """Asks an ASGI application as a browser on this machine would."""

    def __init__(self, app, base_url: str = "http://127.0.0.1:8501") -> None:
        self.app, self._base = app, base_url

    def request(self, method: str, path: str, **options) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url=self._base) as client:
                return await client.request(method, path, **options)

        return asyncio.run(ask())

    def get(self, path: str, **options) -> httpx.Response:
        return self.request("GET", path, **options)

    def put(self, path: str, **options) -> httpx.Response:
        return self.request("PUT", path, **options)

    def post(self, path: str, **options) -> httpx.Response:
        return self.request("POST", path, **options)


@pytest.fixture
def asking():
    """What asks an application: ``asking(app).get(path)``."""
    return Client
