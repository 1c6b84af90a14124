"""Pause a daemon while a disk is full or in quiet hours, and lift the pauses of daemons that died."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from wsi_denoise.daemon import disk_space
from wsi_denoise.daemon.quiet_hours import Quiet
from wsi_denoise.errors import StoreError
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.settings import Settings
from wsi_denoise.system import clocks

_log = logging.getLogger(__name__)

SILENT = timedelta(minutes=10)
"""The pauses of another daemon are lifted after this time without its heartbeat."""

OTHERS_SECONDS = 60.0
"""Interval at which a daemon checks the pauses of others."""


class Pauses:
    """The pauses of one daemon.

    Parameters
    ----------
    on_pause : callable
        Called when a full disk pauses the queue.
    """

    def __init__(
        self, settings: Settings, store: JobStore, daemon_id: int, *, on_pause: Callable[[], object] = lambda: None
    ) -> None:
        self._store = store
        self._origins = (f"daemon:{daemon_id}", f"daemon:{daemon_id}:quiet")
        self.hold = disk_space.Hold(store, self._origins[0], disk_space.promises(settings), on_pause=on_pause)
        self.quiet = Quiet(store, daemon_id, settings.compute.quiet_hours)
        self._looked = time.monotonic()
        self._silent: set[str] = set()

    def look(self) -> bool:
        """Begin and end pauses, lift those of daemons that died, and return whether this daemon must not claim a job.

        Raises
        ------
        StoreError
        """
        held = self.hold.look()
        quiet = self.quiet.look()
        self._look_after_others()
        return quiet or held

    def _look_after_others(self) -> None:
        now = time.monotonic()
        if now - self._looked < OTHERS_SECONDS:
            return
        self._looked = now
        silent = set(stale(self._store)).difference(self._origins)
        # Only if silent at two checks in a row: a sleeping machine or an unreachable database silences live ones too.
        _lift(self._store, sorted(silent & self._silent))
        self._silent = silent

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Lift the pauses of daemons that have ended, and on leaving those of this daemon."""
        lift_stale(self._store)
        try:
            yield
        finally:
            try:
                for origin in self._origins:
                    self._store.lift(origin)
            except StoreError as error:
                _log.warning("lifting the pause: %s", error)


def lift_stale(store: JobStore, now: datetime | None = None) -> list[str]:
    """Lift the pauses of daemons that have ended, and return their origins."""
    found = stale(store, now)
    _lift(store, found)
    return found


def stale(store: JobStore, now: datetime | None = None) -> list[str]:
    """Return the origins of pauses whose daemons have ended."""
    pauses = [origin for origin in store.pauses() if origin.startswith("daemon:")]
    if not pauses:
        return []
    now = now or datetime.now(UTC)
    alive = {str(daemon.id) for daemon in store.daemons() if clocks.silence(daemon.heartbeat, now) < SILENT}
    return [origin for origin in pauses if origin.removeprefix("daemon:").partition(":")[0] not in alive]


def _lift(store: JobStore, origins: list[str]) -> None:
    for origin in origins:
        if store.lift(origin):
            _log.info("lifted a pause of a daemon that is no more (%s)", origin)
