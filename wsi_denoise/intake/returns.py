"""Handle files that are back, whose job ended or waits because they were missing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from wsi_denoise.errors import SlideVanished, SourceUnavailable
from wsi_denoise.intake.stale_duplicates import Orphans
from wsi_denoise.jobs import places
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import KnownFile

WAITING_CODES = frozenset({SlideVanished.code, SourceUnavailable.code})
"""Errors of a queued job that end when its file can be read."""


class Returns:
    """Decide from the job database alone, so that a restarted daemon decides the same.

    Parameters
    ----------
    origin : str
        Origin of the events.
    """

    def __init__(self, store: JobStore, orphans: Orphans, origin: str) -> None:
        self._store, self._orphans, self._origin = store, orphans, origin
        self._by_person: set[int] = set()  # jobs that a user cancelled, which stay cancelled

    def needs_new_job(self, known: KnownFile) -> bool:
        """Return whether the newest job of an existing file ended only because the file was missing."""
        if known.state is JobState.FAILED:
            return known.error_code == SlideVanished.code
        if known.state is not JobState.CANCELLED or known.job_id in self._by_person:
            return False
        if self._orphans.cancelled_by_person(known.job_id):
            self._by_person.add(known.job_id)
            return False
        return True

    def resume(self, back: Mapping[str, KnownFile]) -> list[int]:
        """Make waiting jobs due whose files are back since the previous scan, and return their numbers.

        Otherwise they would wait for up to an hour. Jobs of files that were there all the time are not resumed: such a
        job has another obstacle, for example a worker that does not see the share.
        """
        jobs = [
            file.job_id
            for file in back.values()
            if file.state is JobState.QUEUED and file.waits and file.error_code in WAITING_CODES
        ]
        if not jobs:
            return []
        now = datetime.now(UTC)
        return places.resume(self._store, self._origin, "the file is back", now, codes=WAITING_CODES, jobs=jobs)
