"""Track the places of the slides in the inboxes. A missing slide was removed only if its place is there."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsi_denoise.intake.scan import Scan
from wsi_denoise.jobs import places
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import KnownFile
from wsi_denoise.system.mounts import Place, Places

MATTERS = frozenset({JobState.SETTLING, JobState.QUEUED, JobState.RUNNING, JobState.QUARANTINED})
"""States in which a missing file has consequences."""

_log = logging.getLogger(__name__)


class Whereabouts:
    """Compare the places in which slides were seen with those that are there."""

    def __init__(self, store: JobStore, inboxes: Sequence[Path]) -> None:
        self._store, self._inboxes = store, inboxes
        self._now = Places()
        self._scan = Scan()
        self._places: dict[str, str | None] = {}
        self._doubts: set[str] = set()
        self._logged: set[str] = set()

    def update(self, scan: Scan, known: Mapping[str, KnownFile]) -> None:
        """Store the result of a scan, and read the places of folders now: the scan may have mounted them."""
        self._now, self._scan, self._doubts = Places(self._inboxes), scan, set()
        missing = {path: place for path, place in self._places.items() if path not in scan.slides}
        self._places = missing | {path: file.place for path, file in known.items() if file.state in MATTERS}

    def note_new(self, path: str) -> str | None:
        """Return the place of a file, to be recorded with its new job."""
        self._places[path] = self._now.of(Path(path))
        return self._places[path]

    def note(self, path: str, known: KnownFile) -> None:
        """Record the place of a file, if an earlier version did not, or a share was mounted over its folder."""
        if known.state not in MATTERS:
            return
        here, recorded = self._now.of(Path(path)), Place.parse(known.place)
        if here is not None and here != known.place and (recorded is None or recorded.host == self._now.host):
            places.note_place(self._store, known.job_id, here)
            self._places[path] = here

    def is_removed(self, path: str) -> bool:
        """Return whether a missing file was removed: its folder was read, in its own place."""
        if not self._scan.covers(Path(path)):
            return False
        doubt = self._now.doubt(Path(path), self._places.get(path))
        if doubt:
            self._doubts.add(doubt)
        return not doubt

    def forget(self, path: str) -> None:
        """Forget a file that was removed."""
        self._places.pop(path, None)

    def log(self) -> None:
        """Log once what keeps missing slides from counting as removed."""
        for doubt in sorted(self._doubts - self._logged):
            _log.warning("%s: missing slides are waited for", doubt)
        self._logged = self._doubts
