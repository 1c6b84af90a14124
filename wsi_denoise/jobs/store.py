"""The job store: changes of jobs by intake and users."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from wsi_denoise.errors import JobCancelled, TransitionRefused, WsiDenoiseError
from wsi_denoise.jobs import outputs, states
from wsi_denoise.jobs.database.models import JobRow, MetricRow, PauseRow, SlideRow
from wsi_denoise.jobs.history import value
from wsi_denoise.jobs.record import detach, lease_of, newer_job, region_text, row_of, row_to_end, same_key, same_work
from wsi_denoise.jobs.states import OVER, JobState
from wsi_denoise.jobs.values import Job
from wsi_denoise.jobs.work import Work
from wsi_denoise.settings import JobsSettings
from wsi_denoise.system import clocks

_SAME_WORK = (JobState.QUEUED, JobState.RUNNING, JobState.DONE)


class JobStore(Work):
    """The job database and the queue.

    Read-only queries are in history.py and figures.py, the methods of daemons in work.py.

    Parameters
    ----------
    url : str
        SQLAlchemy URL of an SQLite file or a PostgreSQL database.
    clock : callable, optional
        Returns the current time with a time zone; the system clock by default.

    Notes
    -----
    Every method may raise DatabaseBusy, DatabaseFull, DatabaseOutdated, DatabaseReplaced or DatabaseUnreachable. Each
    change is one transaction. A method with a `job_id` may raise NoSuchJob. An `origin` names the author of a change:
    ``daemon:3``, ``person:cli``. A daemon's change of a job whose lease another daemon holds raises LeaseLost.
    """

    def see(
        self,
        path: str | PathLike[str],
        relative: str | PathLike[str],
        *,
        size_bytes: int,
        mtime_ns: int,
        preset: str,
        origin: str,
        priority: int = 0,
        region: tuple[int, int, int, int] | None = None,
        place: str | None = None,
    ) -> Job:
        """Return the settling job of a file, or of a trial on a `region` of it; add it if it does not exist.

        A path has at most one settling job, and one for each region of a trial, even if several daemons scan it.
        `place` is the file's :class:`wsi_denoise.system.mounts.Place`.
        """
        with self.writing(lock=f"path {fspath(path)}") as session:
            settling = (
                select(JobRow)
                .join(JobRow.slide)
                .where(
                    SlideRow.path == fspath(path),
                    JobRow.state == JobState.SETTLING,
                    JobRow.region.is_not_distinct_from(region_text(region)),
                )
            )
            row = session.scalar(settling)
            if row is not None:
                row.slide.size_bytes, row.slide.mtime_ns, row.slide.place = size_bytes, mtime_ns, place
                return value(session, row)
            size = {"size_bytes": size_bytes, "mtime_ns": mtime_ns}
            row = JobRow(
                slide=SlideRow(path=fspath(path), relative=fspath(relative), place=place, **size),
                state=JobState.SETTLING,
                preset=preset,
                priority=priority,
                region=region_text(region),
                origin=origin,
                created=self._clock(),
            )
            session.add(row)
            session.flush()
            self._record(session, row, origin, "seen", f"{size_bytes} bytes", to=JobState.SETTLING)
            return value(session, row)

    def update_seen(self, job_id: int, size_bytes: int, mtime_ns: int) -> None:
        """Store a settling file's new size and time. It adds no event, because a slow copy would add thousands.

        Raises
        ------
        TransitionRefused
            If the job is no longer settling.
        """
        with self.writing() as session:
            row = row_of(session, job_id)
            if row.state is not JobState.SETTLING:
                raise TransitionRefused(f"job {job_id} is {row.state} and no longer settling")
            row.slide.size_bytes, row.slide.mtime_ns = size_bytes, mtime_ns

    def forget(self, job_id: int, reason: str, *, origin: str = "intake") -> Job:
        """Cancel a settling job whose file disappeared.

        Raises
        ------
        TransitionRefused
            If the job is no longer settling.
        """
        with self.writing() as session:
            row = row_of(session, job_id)
            if row.state is not JobState.SETTLING:
                raise TransitionRefused(f"job {job_id} is {row.state} and no longer settling")
            return self._move(session, row, JobState.CANCELLED, origin, reason, error=JobCancelled(reason))

    def queue(
        self,
        job_id: int,
        *,
        fingerprint: str,
        settings: Mapping[str, Any],
        settings_hash: str,
        preset: str,
        origin: str,
        region: tuple[int, int, int, int] | None = None,
        model_checksum: str | None = None,
    ) -> Job:
        """Queue a settled job, or mark it as a duplicate.

        A job is a duplicate if another one with the same fingerprint, settings hash, preset, region and weights is
        queued, running or done. Weights differ only if both jobs have a `model_checksum`. A done job whose output was
        removed does not count. If another daemon has already queued this job with the same values, it is returned
        unchanged.

        Raises
        ------
        TransitionRefused
            If the job is not settling.
        """
        removed = self._without_output(fingerprint)
        with self.writing(lock=f"content {fingerprint}") as session:
            row = row_of(session, job_id)
            wanted = (fingerprint, settings_hash, preset, region_text(region))
            if row.state is not JobState.SETTLING and wanted == same_key(row):
                return value(session, row)
            states.check(row.state, JobState.QUEUED)
            if row.state is not JobState.SETTLING:
                raise TransitionRefused(f"job {job_id} is {row.state} and no longer settling")
            row.slide.fingerprint = fingerprint
            row.settings, row.settings_hash = dict(settings), settings_hash
            row.preset, row.region, row.model_checksum = preset, region_text(region), model_checksum
            first = same_work(session, row, _SAME_WORK, without=removed)
            if first is not None:
                row.duplicate_of = first.id
                message = f"same content and settings as job {first.id}"
                return self._move(session, row, JobState.DUPLICATE, origin, message, duplicate_of=first.id)
            return self._move(session, row, JobState.QUEUED, origin, "complete", fingerprint=fingerprint)

    def quarantine(self, job_id: int, error: WsiDenoiseError, origin: str, *, holder: int | None = None) -> Job:
        """End a job because the file is at fault.

        Parameters
        ----------
        holder : int, optional
            Number of the daemon that runs the job; None for a settling job.

        Raises
        ------
        LeaseLost
            If the holder's lease expired, for example while its machine slept.
        TransitionRefused
            Without a holder, if the job is no longer settling: another daemon has found the file complete.
        """
        return self._end(job_id, JobState.QUARANTINED, error, origin, holder)

    def fail(self, job_id: int, error: WsiDenoiseError, origin: str, *, holder: int | None = None) -> Job:
        """End a job that is not retried automatically; `holder` is as in :meth:`quarantine`."""
        return self._end(job_id, JobState.FAILED, error, origin, holder)

    def settle_again(self, job_id: int, error: WsiDenoiseError, origin: str, *, holder: int | None = None) -> Job:
        """Return a queued or running job to settling, because its file changed after the fingerprint.

        If intake has added a newer job for the file, this job is cancelled. Other jobs of the same slide keep the
        fingerprint of the old content. A trial fails, because intake does not watch its file. `holder` is as in
        :meth:`quarantine`.

        Raises
        ------
        TransitionRefused
            If the job is neither queued nor running.
        """
        path = self.job(job_id).slide
        with self.writing(lock=f"path {path}") as session:
            row = row_to_end(session, job_id, origin, holder)
            states.check(row.state, JobState.SETTLING)
            if row.state in OVER:
                raise TransitionRefused(f"job {job_id} is {row.state}")
            if row.region is not None:
                message = "the file changed; begin the trial again"
                return self._move(session, row, JobState.FAILED, origin, message, error=error)
            newer = newer_job(session, row)
            if newer is not None:
                message = f"job {newer} stands for the file's new content"
                return self._move(session, row, JobState.CANCELLED, origin, message, error=error)
            detach(session, row)
            row.slide.fingerprint = None
            row.blocks_done = row.blocks_total = row.blocks_resumed = 0
            return self._move(session, row, JobState.SETTLING, origin, str(error), error=error)

    def _end(self, job_id: int, new: JobState, error: WsiDenoiseError, origin: str, holder: int | None) -> Job:
        with self.writing() as session:
            row = row_to_end(session, job_id, origin, holder)
            if holder is None and row.state is not JobState.SETTLING:
                raise TransitionRefused(f"job {job_id} is {row.state} and no longer settling")
            return self._move(session, row, new, origin, str(error), error=error)

    def cancel(self, job_id: int, origin: str) -> Job:
        """Cancel a job, or request that its daemon stop it: the daemon polls :meth:`cancel_requested`.

        Raises
        ------
        TransitionRefused
            If the job has ended.
        """
        now = self._clock()
        with self.writing() as session:
            row = row_of(session, job_id)
            states.check(row.state, JobState.CANCELLED)
            if row.state is JobState.RUNNING and self._is_leased(session, row, now):
                if not row.cancel_requested:
                    row.cancel_requested = True
                    self._record(session, row, origin, "cancel_requested", f"daemon {row.daemon_id} is asked to stop")
                return value(session, row)
            return self._move(session, row, JobState.CANCELLED, origin, "cancelled", error=JobCancelled())

    @staticmethod
    def _is_leased(session: Session, row: JobRow, now: datetime) -> bool:
        if row.lease_until is None or row.lease_until < now:
            return False
        usual = timedelta(seconds=JobsSettings().lease_seconds)
        return not clocks.is_ahead(row.lease_until, lease_of(session, row, usual), now)

    def retry(self, job_id: int, origin: str, *, inboxes: Collection[Path] | None = None) -> Job:
        """Queue an ended job again, or make a waiting one due.

        A job without a fingerprint returns to settling.

        Parameters
        ----------
        inboxes : collection of Path, optional
            Folders that daemons watch; any folder by default. Used only for jobs that a user added with
            ``wsi-denoise run``: a file that a daemon found is in a folder that it watches.

        Raises
        ------
        TransitionRefused
            If the job is settling, running or due already, or done with its output not removed. If another job of the
            same work is queued or running. For a job that has to settle, if a newer job of the same file exists, or if
            no daemon watches the file: a trial, or a file that a user added from outside the inboxes.
        """
        known = self.job(job_id)
        if known.state is JobState.DONE and not outputs.is_removed(self, known):
            raise TransitionRefused(f"job {job_id} is done; {outputs.whereabouts(self, known)}")
        lock = f"content {known.fingerprint}" if known.fingerprint else f"path {known.slide}"
        with self.writing(lock=lock) as session:
            row = row_of(session, job_id)
            if row.state is JobState.QUEUED and row.next_try is not None:
                row.next_try = None
                self._record(session, row, origin, "retry", "tried now and not later")
                return value(session, row)
            new = JobState.QUEUED if row.slide.fingerprint else JobState.SETTLING
            states.check(row.state, new)
            if row.state not in OVER:
                raise TransitionRefused(f"job {job_id} is {row.state}")
            path = Path(row.slide.path)
            brought = row.origin.startswith("person:") and not any(map(path.is_relative_to, inboxes or path.parents))
            if new is JobState.SETTLING and (row.region is not None or brought):
                raise TransitionRefused(f"no daemon checks the file of job {job_id}; wsi-denoise run does")
            newer = newer_job(session, row)
            if new is JobState.SETTLING and newer is not None:
                raise TransitionRefused(f"job {newer} is a newer one of the same file")
            other = same_work(session, row, (JobState.QUEUED, JobState.RUNNING))
            if other is not None:
                raise TransitionRefused(f"job {other.id} is {other.state} with the same content and settings")
            removed: dict[str, Any] = {}
            if row.state is JobState.DONE:
                removed = {"output": row.output, "output_sha256": row.output_sha256}
                row.output = row.output_sha256 = row.maps = row.verdict = None
                row.reasons = []
                session.execute(delete(MetricRow).where(MetricRow.job_id == job_id))
            row.attempts, row.duplicate_of, row.started = 0, None, None
            row.blocks_done = row.blocks_resumed = row.blocks_total = 0
            return self._move(session, row, new, origin, "tried again", kind="retry", **removed)

    def rerun(
        self,
        job_id: int,
        *,
        preset: str,
        settings: Mapping[str, Any],
        settings_hash: str,
        origin: str,
        model_checksum: str | None = None,
    ) -> Job:
        """Queue a slide again as a new job with another preset, other settings, or new weights of its preset.

        The daemon compares the file with its fingerprint when the job starts.

        Raises
        ------
        TransitionRefused
            If the slide has not settled, or the same work is queued, running or done.
        """
        fingerprint = self.job(job_id).fingerprint
        if fingerprint is None:
            raise TransitionRefused(f"the slide of job {job_id} has not settled yet")
        removed = self._without_output(fingerprint)
        with self.writing(lock=f"content {fingerprint}") as session:
            old = row_of(session, job_id)
            row = JobRow(
                slide=old.slide,
                state=JobState.SETTLING,
                preset=preset,
                origin=origin,
                region=old.region,
                settings=dict(settings),
                settings_hash=settings_hash,
                model_checksum=model_checksum,
                created=self._clock(),
            )
            session.add(row)
            session.flush()
            first = same_work(session, row, _SAME_WORK, without=removed)
            if first is not None:
                raise TransitionRefused(
                    f"job {first.id} is {first.state} with the same content, preset and settings: nothing would differ"
                )
            return self._move(session, row, JobState.QUEUED, origin, f"again, after job {job_id}", kind="rerun")

    def _without_output(self, fingerprint: str) -> set[int]:
        """Return the done jobs of a content whose output was removed.

        Call it before a transaction: a slow share would otherwise keep the database locked.
        """
        return {job.id for job in outputs.done(self, fingerprint) if outputs.is_removed(self, job)}

    def set_priority(self, job_id: int, priority: int, origin: str) -> Job:
        """Change a job's priority; higher is earlier.

        Raises
        ------
        TransitionRefused
            If the job has ended.
        """
        with self.writing() as session:
            row = row_of(session, job_id)
            if row.state in OVER:
                raise TransitionRefused(f"job {job_id} is {row.state}")
            old, row.priority = row.priority, priority
            if old != priority:
                self._record(session, row, origin, "priority", f"{old} to {priority}", old=old, new=priority)
            return value(session, row)

    def pause(self, origin: str, reason: str = "") -> bool:
        """Pause the queue. Running jobs continue. Return whether this is a new pause of this origin."""
        with self.writing(lock="queue") as session:
            row = session.get(PauseRow, origin)
            if row is not None and row.reason == reason:
                return False
            session.merge(PauseRow(origin=origin, reason=reason, since=self._clock()))
            self._record(session, None, origin, "paused", reason or "queue paused")
            return row is None

    def lift(self, origin: str) -> bool:
        """Lift the pause of this origin. Return whether it existed."""
        with self.writing(lock="queue") as session:
            row = session.get(PauseRow, origin)
            if row is not None:
                session.delete(row)
                self._record(session, None, origin, "resumed", "queue resumed", lifted=[origin])
            return row is not None

    def resume(self, origin: str) -> bool:
        """Lift every pause for a user, those of daemons for a daemon. Return whether any pause was lifted."""
        kind = origin.partition(":")[0]
        with self.writing(lock="queue") as session:
            lifted = delete(PauseRow).returning(PauseRow.origin)
            if kind != "person":
                lifted = lifted.where(or_(PauseRow.origin == origin, PauseRow.origin.startswith(f"{kind}:")))
            origins = list(session.scalars(lifted))
            if origins:
                self._record(session, None, origin, "resumed", "queue resumed", lifted=sorted(origins))
            return bool(origins)
