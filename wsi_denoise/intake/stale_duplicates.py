"""Find duplicates of jobs that will not do their work."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from wsi_denoise.errors import NoSuchJob, SlideChanged, SlideVanished, SourceUnavailable
from wsi_denoise.jobs.states import OVER, JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import Job, KnownFile

_PLACE_CODES = frozenset((SlideVanished.code, SlideChanged.code, SourceUnavailable.code))


class Orphans:
    """Decide which duplicates must become jobs of their own."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._kept: set[int] = set()  # duplicates that stay duplicates

    def among(self, known: Mapping[str, KnownFile], lost: Collection[str]) -> set[str]:
        """Return the paths of duplicates whose first job will not be done, or does other content now.

        Parameters
        ----------
        lost : collection of str
            Paths that disappeared while their job was queued or running.

        Raises
        ------
        StoreError
        """
        return {
            path
            for path, file in known.items()
            if file.state is JobState.DUPLICATE and file.job_id not in self._kept and self._is_one(file.job_id, lost)
        }

    def cancelled_by_person(self, job_id: int) -> bool:
        """Return whether a user cancelled a job, and not a daemon because its file was missing."""
        ends = [
            event
            for event in self._store.events(job_id)
            if event.kind == "cancel_requested" or event.data.get("to") == JobState.CANCELLED
        ]
        return any(event.origin.startswith("person:") for event in ends[-2:])

    def _is_one(self, job_id: int, lost: Collection[str]) -> bool:
        try:
            job = self._store.job(job_id)
            first = self._store.job(job.duplicate_of or 0)
        except NoSuchJob:
            return False
        if first.state is JobState.SETTLING:
            return False  # its file changed or was only touched; that is known when it has settled
        if _work(first) != _work(job):
            return True  # the file of the first job was replaced before it was done
        if first.state is JobState.DONE:
            self._kept.add(job_id)
        return self._is_given_up(first, lost)

    def _is_given_up(self, first: Job, lost: Collection[str]) -> bool:
        if first.state is JobState.FAILED:
            return first.error_code in _PLACE_CODES
        if first.state is JobState.CANCELLED:
            return not self.cancelled_by_person(first.id)
        return first.state not in OVER and first.slide in lost


def _work(job: Job) -> tuple[object, ...]:
    return job.fingerprint, job.settings_hash, job.preset, job.region
