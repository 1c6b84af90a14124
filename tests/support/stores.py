"""Job databases for tests."""

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from wsi_denoise.jobs.store import JobStore


@functools.cache
def _upgraded() -> bytes:
    """Return the bytes of an empty SQLite database of the current revision."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "jobs.sqlite"
        store = JobStore(f"sqlite:///{file}")
        store.upgrade()
        store.close()
        return file.read_bytes()


@contextlib.contextmanager
def open_store(url: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Iterator[JobStore]:
    """Open a new job database. With SQLite it is a copy: the migrations take longer than most tests."""
    if url.startswith("sqlite:///"):
        file = Path(url.removeprefix("sqlite:///"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_upgraded())
    store = JobStore(url, clock=clock)
    try:
        store.upgrade()
        yield store
    finally:
        store.close()
