"""Send the heartbeat of a daemon, and renew the lease of the job that it runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from wsi_denoise.errors import LeaseLost
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import Job
from wsi_denoise.settings import Settings
from wsi_denoise.system.conditions import Conditions

_log = logging.getLogger(__name__)


class Heartbeat:
    """Send the heartbeat of a daemon from a separate thread, and renew the lease of its current job."""

    def __init__(self, store: JobStore, daemon_id: int, settings: Settings) -> None:
        self._store, self._daemon_id, self._jobs = store, daemon_id, settings.jobs
        self._job_id: int | None = None
        self._lost = threading.Event()
        self._stop = threading.Event()
        self._conditions = Conditions(_log)
        self.device: str | None = None
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    @contextmanager
    def on(self, job: Job) -> Iterator[None]:
        """Renew the lease of a job while the context is active."""
        self._lost.clear()
        self._job_id = job.id
        try:
            yield
        finally:
            self._job_id = None

    def check(self) -> None:
        """Raise LeaseLost when another daemon has taken the job over."""
        if self._lost.is_set():
            raise LeaseLost

    def _beat(self) -> None:
        while not self._stop.wait(self._jobs.heartbeat_seconds):
            job_id = self._job_id
            try:
                held = self._store.heartbeat(self._daemon_id, job_id, self._jobs.lease_seconds, device=self.device)
            except Exception as error:  # noqa: BLE001 - logged, with its traceback where it is unforeseen
                # A lease lasts several heartbeats, so a short lock of the database does no harm.
                # If this thread ended, leases would expire unnoticed.
                self._conditions.failed("heartbeat", error)
                continue
            self._conditions.works("heartbeat")
            if not held and job_id == self._job_id:
                self._lost.set()
