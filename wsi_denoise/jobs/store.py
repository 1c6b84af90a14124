"""The store: every change of a job, by intake, daemon or person. Each is checked and leaves an event."""

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
    """The record of every job, and the queue.

    Questions are in history.py, what a daemon does with its jobs in work.py; here is what intake and people do.

    Parameters
    ----------
    url : str
        SQLAlchemy URL of an SQLite file or a PostgreSQL database.
    clock : callable, optional
        Gives the time; the machine's by default.

    Notes
    -----
    Every method may raise DatabaseBusy, DatabaseFull, DatabaseOutdated or DatabaseUnreachable; a change either happened
    whole or not at all. A method that gets a job's number may raise NoSuchJob. An `origin` names who asks for the
    change: ``daemon:3``, ``person:cli``. What a daemon asks for while another holds the lease raises LeaseLost.
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
        """Return the settling job of a file, or of a trial on a `region` of it; makes one where there is none.

        A path has at most one settling job, however many daemons look at it, and at most one of each trial. `place` is
        where the file is (:class:`wsi_denoise.system.mounts.Place`).
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
        """Note that a settling file is still changing. No event: a slow copy would leave thousands.

        Raises
        ------
        TransitionRefused
            When the job has settled already.
        """
        with self.writing() as session:
            row = row_of(session, job_id)
            if row.state is not JobState.SETTLING:
                raise TransitionRefused(f"job {job_id} is {row.state} and no longer settling")
            row.slide.size_bytes, row.slide.mtime_ns = size_bytes, mtime_ns

    def forget(self, job_id: int, reason: str, *, origin: str = "intake") -> Job:
        """Cancel a settling job whose file went away.

        Raises
        ------
        TransitionRefused
            When the job has settled already.
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

        It is a duplicate when a job with the same fingerprint, settings' hash, preset and region is queued, running
        or done, and was not made by other weights of that preset (`model_checksum`, where both are known). A done job
        whose output was removed does not count. A job that another daemon has queued meanwhile, with the same content
        and settings, is returned as it is.

        Raises
        ------
        TransitionRefused
            When the job is not settling.
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
            The daemon that has the job in work; without one it is intake, or a person, that looks at a settling job.

        Raises
        ------
        LeaseLost
            When the holder no longer has the job: it slept, and the job was given back or settles anew.
        TransitionRefused
            When there is no holder and the job no longer settles: somebody else found the file whole meanwhile.
        """
        return self._end(job_id, JobState.QUARANTINED, error, origin, holder)

    def fail(self, job_id: int, error: WsiDenoiseError, origin: str, *, holder: int | None = None) -> Job:
        """End a job that will not be tried again by itself; `holder` is as in :meth:`quarantine`."""
        return self._end(job_id, JobState.FAILED, error, origin, holder)

    def settle_again(self, job_id: int, error: WsiDenoiseError, origin: str, *, holder: int | None = None) -> Job:
        """Send a queued or running job back to settling, because its file changed after it was fingerprinted.

        If intake has made a newer job of the file already, that one stands for the new content, and this one is
        cancelled. What other jobs of the same slide were made from stays in the record. A trial fails: it was to show
        what was there, and nobody watches for what comes. `holder` is as in :meth:`quarantine`.

        Raises
        ------
        TransitionRefused
            When the job is neither queued nor running.
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
        """Cancel a job. A running one is asked to stop: its daemon sees :meth:`cancel_requested`.

        Raises
        ------
        TransitionRefused
            When the job is over.
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
        """Queue a job again that is over, or try a waiting one at once; a done job only when its output was removed.

        Without a fingerprint (it never settled) it goes back to settling.

        Parameters
        ----------
        job_id : int
        origin : str
        inboxes : collection of Path, optional
            Where daemons look for what a person brought by ``wsi-denoise run``; everywhere by default. What a daemon
            found itself it finds again, wherever it was told to look.

        Raises
        ------
        TransitionRefused
            When the job is settling or running, or done and its output not removed, or another job does the same work
            at the moment. Also where it would settle for ever, because no daemon looks: a file that a person brought
            from outside the inboxes, a trial.
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
                raise TransitionRefused(f"no daemon would look at the file of job {job_id}; wsi-denoise run does")
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
        """Queue a slide once more, as a new job with another preset, other settings, or new weights of that preset.

        Whether the file still is what was fingerprinted is looked at when the job starts.

        Raises
        ------
        TransitionRefused
            When the slide has not settled, or the same work is queued, running or done already.
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
        """Return the done jobs of a content whose output was removed; asked before a transaction locks the database."""
        return {job.id for job in outputs.done(self, fingerprint) if outputs.is_removed(self, job)}

    def set_priority(self, job_id: int, priority: int, origin: str) -> Job:
        """Change a job's place in the queue; higher is earlier.

        Raises
        ------
        TransitionRefused
            When the job is over.
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
        """Let nothing be claimed; running jobs go on. Returns whether this origin had not paused it yet."""
        with self.writing(lock="queue") as session:
            row = session.get(PauseRow, origin)
            if row is not None and row.reason == reason:
                return False
            session.merge(PauseRow(origin=origin, reason=reason, since=self._clock()))
            self._record(session, None, origin, "paused", reason or "queue paused")
            return row is None

    def lift(self, origin: str) -> bool:
        """Lift one pause, that of this origin. Returns whether there was one."""
        with self.writing(lock="queue") as session:
            row = session.get(PauseRow, origin)
            if row is not None:
                session.delete(row)
                self._record(session, None, origin, "resumed", "queue resumed", lifted=[origin])
            return row is not None

    def resume(self, origin: str) -> bool:
        """Lift pauses: a person every one, a daemon only those of daemons. Returns whether there was any."""
        kind = origin.partition(":")[0]
        with self.writing(lock="queue") as session:
            lifted = delete(PauseRow).returning(PauseRow.origin)
            if kind != "person":
                lifted = lifted.where(or_(PauseRow.origin == origin, PauseRow.origin.startswith(f"{kind}:")))
            origins = list(session.scalars(lifted))
            if origins:
                self._record(session, None, origin, "resumed", "queue resumed", lifted=sorted(origins))
            return bool(origins)
