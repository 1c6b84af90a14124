"""Fixtures every tier uses: real tissue that ships with a dependency, and the shared folder where there is one."""

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from support.postgres import NotThere, Server
from support.slides import pyramid, tissue, write_tiff
from wsi_denoise.errors import SlideError, WsiDenoiseError
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import Job, JobState
from wsi_denoise.quality.patch_map import PatchMap, save
from wsi_denoise.settings import Settings, load

ROOT = Path(__file__).parents[1]


def shared_folder() -> Path:
    return Path(os.environ.get("WSI_DENOISE_SHARED", ROOT.parent / "shared"))


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
    """The record of the settings that a test has."""
    made = JobStore(settings.database_url)
    made.upgrade()
    yield made
    made.close()


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


@dataclass(frozen=True)
class Processed:
    """A slide that has been processed, as daemon and record would leave it, in a folder that the page can serve."""

    folder: Path
    store: JobStore
    job: Job
    before: np.ndarray
    after: np.ndarray
    patch_map: PatchMap

    @property
    def settings(self) -> Settings:
        return load(folder=self.folder, environ={}).settings


@pytest.fixture
def processed(tmp_path, tissue_image):
    """What makes a done job of real tissue, 700 x 900 px: ``processed(name="a.tiff", levels=2, icc=None)``."""
    stores = []

    def make(name: str = "slide.tiff", *, levels: int = 2, icc: bytes | None = None) -> Processed:
        after = np.ascontiguousarray(tissue_image[:900, :700])
        noise = np.random.default_rng(3).normal(0, 20, after.shape)
        before = np.clip(after + noise, 0, 255).astype(np.uint8)
        source = write_tiff(tmp_path / "inbox" / name, pyramid(before, levels), icc=icc)
        output = write_tiff(tmp_path / "denoised" / f"{name}.denoised.tiff", pyramid(after, 2), icc=icc)
        strength = np.full((10, 8), 0.5, np.float32)
        strength[2, 3], strength[8, 1], strength[0, 0] = -9.5, 4.0, np.nan
        patch_map = PatchMap(np.linspace(5, 20, 80, dtype=np.float32).reshape(10, 8), strength)
        store = JobStore(f"sqlite:///{tmp_path / '.wsi-denoise' / 'jobs.sqlite'}")
        stores.append(store)
        store.upgrade()
        daemon = store.register_daemon()
        status = source.stat()
        seen = store.see(
            source, name, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns, preset="paper", origin="daemon:1"
        )
        print_of = hashlib.sha256(source.read_bytes()).hexdigest()
        store.queue(
            seen.id, fingerprint=print_of, settings={}, settings_hash=str(seen.id), preset="paper", origin="daemon:1"
        )
        store.claim(daemon, 60, only=seen.id)
        store.set_slide_facts(seen.id, 700, 900, (0.5, 0.5), {})
        maps = tmp_path / ".wsi-denoise" / "maps" / f"{seen.id}.npz"
        maps.parent.mkdir(exist_ok=True)
        save(maps, patch_map)
        job = store.finish(
            seen.id, daemon, verdict="review", reasons=["structure_removed: <b>one</b> patch"],
            metrics={"sigma_before_wavelet": 20.0}, output=output, output_sha256="0" * 64, maps=maps,
            provenance={"preset": "paper"},
        )  # fmt: skip
        return Processed(tmp_path, store, job, before, after, patch_map)

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
