"""Watch the inboxes: poll them, and reconcile their slides with the job database.

File events only make the next scan earlier. files.py finds the slides, and settling.py decides when a file is complete.
The job database holds everything that matters: losing the memory of a watcher only costs time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from wsi_denoise.errors import (
    ClusterError,
    EmptyFile,
    InternalError,
    LeaseLost,
    NoPermission,
    NoSuchJob,
    OutputUnwritable,
    SlideChanged,
    SlideError,
    SlideVanished,
    SourceError,
    StoreError,
    TransitionRefused,
    WsiDenoiseError,
)
from wsi_denoise.intake.files import Candidate
from wsi_denoise.intake.fingerprint import Stopped, fingerprint
from wsi_denoise.intake.fs_events import Hints
from wsi_denoise.intake.quarantine import Quarantine
from wsi_denoise.intake.report import Report, Waiting
from wsi_denoise.intake.returns import Returns
from wsi_denoise.intake.scan import Scan, Scanner, is_as_seen, is_gone, unreadable_file
from wsi_denoise.intake.settling import Decision, Rules, Settling, Step
from wsi_denoise.intake.slide_files import lacks_original, slide_files, snapshot
from wsi_denoise.intake.sniff import shown
from wsi_denoise.intake.stale_duplicates import Orphans
from wsi_denoise.intake.whereabouts import MATTERS, Whereabouts
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import JobQuery, KnownFile
from wsi_denoise.settings import Settings

Probe = Callable[[Path], WsiDenoiseError | None]
"""Opens a slide and reads its last tile in another process; returns the error, or None.

A SlideError, SourceError or ClusterError that it raises counts as returned.
"""

FULL_SECONDS = 300.0
"""Interval between scans that check every path in the job database. Other scans read only the paths that they found."""

BUSY_SECONDS = 30.0
"""Time limit of a scan for probes and fingerprints. The next scan then detects what arrived or disappeared."""

_log = logging.getLogger(__name__)


@dataclass
class _Watch:
    """A settling file."""

    candidate: Candidate
    job_id: int
    settling: Settling


class Watcher:
    """Add the slides in the inboxes to the job database.

    Parameters
    ----------
    settings : Settings
        Uses ``intake``, and the presets and pixel settings of new jobs.
    probe : callable
        See :data:`Probe`. Any other exception counts against that file alone, except for errors of the job database.
    origin : str
        Origin of the events, such as ``daemon:3``.
    checksum : callable
        Returns the checksum of a preset's weights, or None: the same slide with new weights is a new job.
    quarantine : Quarantine, optional
        By default that of the settings.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        *,
        probe: Probe,
        origin: str,
        checksum: Callable[[str], str | None] = lambda _preset: None,
        quarantine: Quarantine | None = None,
    ) -> None:
        intake = settings.intake
        self._settings, self._store, self._probe, self._origin = settings, store, probe, origin
        self._checksum, self._orphans = checksum, Orphans(store)
        self._returns = Returns(store, self._orphans, origin)
        self._whereabouts = Whereabouts(store, intake.inbox)
        self._rules = Rules(intake.settle_seconds, intake.grace_seconds)
        self._scanner = Scanner(settings)
        self.quarantine = quarantine or Quarantine(intake.quarantine)
        self._hints = Hints(events=intake.events)
        self._closed = False
        self._watches: dict[str, _Watch] = {}
        self._before: dict[str, JobState] = {}  # of the slides of the previous scan
        self._found: Collection[str] = ()  # by the previous scan
        self._absent: dict[str, int] = {}  # settling files that exist but are not slides: in how many scans
        self._lost: set[str] = set()  # slides that disappeared while their job was queued or running
        self._replaced: dict[str, int] = {}  # running jobs whose slide has changed, by its path
        self._no_permission: set[int] = set()  # quarantined jobs
        self._full: float | None = None

    def look(self, now: float | None = None) -> Report:
        """Scan once, and do what is due.

        Parameters
        ----------
        now : float, optional
            Seconds on a monotonic clock; that of the machine by default.

        Raises
        ------
        StoreError
            When the database fails. The next scan then starts from the files that are there.
        """
        now = time.monotonic() if now is None else now
        scan = self._scanner.scan()
        self._hints.listen(scan.readable)
        report = Report(slides=len(scan.slides), others=scan.others, unavailable=scan.unavailable)
        known = self._store.known(scan.slides)
        full = self._full is None or not 0 <= now - self._full < FULL_SECONDS
        everything = self._store.known() if full else {}
        if full:
            query = JobQuery(states=(JobState.QUARANTINED,), error_code=NoPermission.code, limit=None)
            self._no_permission = {job.id for job in self._store.jobs(query).jobs}
        self._whereabouts.update(scan, everything | known)
        self._miss(scan, everything, report)
        report.resumed = self._returns.resume({path: file for path, file in known.items() if path not in self._found})
        self._found = scan.slides
        orphans = self._orphans.among(known, self._lost) if full or self._lost else set()
        for path, candidate in scan.slides.items():
            if self._closed:
                report.unfinished = True
                return report
            self._meet(path, candidate, known.get(path), now, report, again=path in orphans)
        self._advance(now, report)
        if full:
            self._full = now
        return report

    def wait(self, seconds: float) -> bool:
        """Sleep until a file event, :meth:`wake` or :meth:`close`, at most `seconds`. Return whether one came."""
        return self._hints.wait(seconds)

    def wake(self) -> None:
        """End a wait now, from any thread."""
        self._hints.wake()

    def close(self) -> None:
        """Stop listening, and end a running scan soon. May be called from any thread."""
        self._closed = True
        self._hints.close()

    # -- files that are there

    def _meet(
        self, path: str, candidate: Candidate, known: KnownFile | None, now: float, report: Report, *, again: bool
    ) -> None:
        """Reconcile one slide that was found with its newest job."""
        if known is None:
            self._see(path, candidate, now, report)
            return
        self._whereabouts.note(path, known)
        if known.state is JobState.SETTLING:
            self._before[path] = known.state
            self._settle(path, candidate, known, now)
        elif (known.size_bytes, known.mtime_ns) != (candidate.snapshot.size_bytes, candidate.snapshot.mtime_ns):
            self._changed(path, candidate, known, now, report)
        elif again or self._returns.needs_new_job(known) or self._may_be_read_now(candidate, known):
            self._see(path, candidate, now, report)
        else:
            self._watches.pop(path, None)
            if self._before.get(path) is JobState.QUARANTINED and known.state is not JobState.QUARANTINED:
                self.quarantine.release(candidate.path, candidate.relative)  # the user has retried it
            self._before[path] = known.state

    def _see(self, path: str, candidate: Candidate, now: float, report: Report) -> None:
        job = self._store.see(
            path,
            str(candidate.relative),
            size_bytes=candidate.snapshot.size_bytes,
            mtime_ns=candidate.snapshot.mtime_ns,
            preset=self._settings.preset_for(candidate.relative),
            origin=self._origin,
            place=self._whereabouts.note_new(path),
        )
        self._before[path] = JobState.SETTLING
        self._watch(path, candidate, job.id, now)
        report.seen.append(job.id)
        _log.info("job %d: seen %s", job.id, shown(candidate.relative))

    def _watch(self, path: str, candidate: Candidate, job_id: int, now: float) -> None:
        settling = Settling.first(self._rules_for(candidate), candidate.snapshot, now)
        self._watches[path] = _Watch(candidate, job_id, settling)

    def _rules_for(self, candidate: Candidate) -> Rules:
        """Return the rules of a slide. Without its full resolution, it must be unchanged for its grace period."""
        if candidate.problem is None and lacks_original(candidate.path):
            return replace(self._rules, settle_seconds=max(self._rules.settle_seconds, self._rules.grace_seconds))
        return self._rules

    def _settle(self, path: str, candidate: Candidate, known: KnownFile, now: float) -> None:
        watch = self._watches.get(path)
        if watch is None or watch.job_id != known.job_id:
            self._watch(path, candidate, known.job_id, now)
        else:
            watch.settling = replace(watch.settling, rules=self._rules_for(candidate)).look(candidate.snapshot, now)
            watch.candidate = candidate
        if (known.size_bytes, known.mtime_ns) != (candidate.snapshot.size_bytes, candidate.snapshot.mtime_ns):
            with self._unless_over(path):
                self._store.update_seen(known.job_id, candidate.snapshot.size_bytes, candidate.snapshot.mtime_ns)

    def _changed(self, path: str, candidate: Candidate, known: KnownFile, now: float, report: Report) -> None:
        """Let a known file settle again. Its fingerprint will show whether it has new content or was only touched."""
        if known.state is not JobState.QUEUED:
            if known.state is JobState.RUNNING:
                self._replaced[path] = known.job_id
            self._see(path, candidate, now, report)
            return
        with self._unless_over(path):
            self._store.settle_again(known.job_id, SlideChanged(shown(path)), self._origin)
            self._before[path] = JobState.SETTLING
            self._watch(path, candidate, known.job_id, now)
            self._store.update_seen(known.job_id, candidate.snapshot.size_bytes, candidate.snapshot.mtime_ns)

    def _may_be_read_now(self, candidate: Candidate, known: KnownFile) -> bool:
        # A change of permissions changes neither size nor modification time.
        if known.state is not JobState.QUARANTINED or known.job_id not in self._no_permission:
            return False
        return candidate.problem is None and unreadable_file(candidate.path) is None

    # -- files that are not there

    def _miss(self, scan: Scan, everything: dict[str, KnownFile], report: Report) -> None:
        """Handle slides that are missing: forget settling ones, note queued and running ones, release quarantined ones.

        Slides in places that cannot be read now do not count as missing.
        """
        missing = {path: watch.job_id for path, watch in self._watches.items() if path not in scan.slides}
        for path, file in everything.items():
            if file.state is JobState.SETTLING and path not in scan.slides:
                missing[path] = file.job_id
        self._absent = {path: count for path, count in self._absent.items() if path in missing}
        for path, job_id in missing.items():
            if self._whereabouts.is_removed(path):
                self._miss_one(path, job_id, report)
        before = {**{path: file.state for path, file in everything.items()}, **self._before}
        for path, state in before.items():
            if path not in scan.slides and (state not in MATTERS or self._whereabouts.is_removed(path)):
                self._before.pop(path, None)
                self._whereabouts.forget(path)
                if state in {JobState.QUEUED, JobState.RUNNING} and is_gone(Path(path)):
                    self._lost.add(path)
                elif state is JobState.QUARANTINED:
                    self._release(path)
        self._lost -= set(scan.slides)
        self._whereabouts.log()

    def _miss_one(self, path: str, job_id: int, report: Report) -> None:
        reason = "the file disappeared before it was complete"
        if not is_gone(Path(path)):
            # A listing can miss an entry while the folder changes, so one absence is not enough.
            self._absent[path] = self._absent.get(path, 0) + 1
            if self._absent[path] < 2:
                return
            reason = "it is now a part of another slide, or ignored"
        with self._unless_over(path):
            self._store.forget(job_id, reason, origin=self._origin)
            report.forgotten.append(job_id)
            _log.info("job %d: %s", job_id, reason)
        self._watches.pop(path, None)

    def _release(self, path: str) -> None:
        inboxes = [inbox for inbox in self._settings.intake.inbox if Path(path).is_relative_to(inbox)]
        if inboxes and is_gone(Path(path)):
            self.quarantine.release(Path(path), Path(path).relative_to(inboxes[-1]))

    # -- files that stand still

    def _advance(self, now: float, report: Report) -> None:
        started = time.monotonic()
        for path, watch in sorted(self._watches.items(), key=lambda item: item[1].settling.since):
            if self._closed or time.monotonic() - started > BUSY_SECONDS:
                report.unfinished = True
                return
            with self._unless_over(path):
                self._advance_one(path, watch, now, report)

    def _advance_one(self, path: str, watch: _Watch, now: float, report: Report) -> None:
        decision = watch.settling.decide()
        if decision.step is Step.PROBE:
            watch.settling = watch.settling.probe(self._examine(watch.candidate), now)
            decision = watch.settling.decide()
        if decision.step is Step.READY:
            try:
                self._ready(path, watch, now, report)
            except Stopped:
                report.unfinished = True
            except (SlideChanged, SlideVanished):
                watch.settling = Settling.first(watch.settling.rules, watch.candidate.snapshot, now)
            except (SlideError, SourceError) as error:
                watch.settling = watch.settling.probe(error, now)
            if path not in self._watches:
                return
            decision = watch.settling.decide()
        if decision.step is Step.DAMAGED and decision.error is not None:
            self._damaged(path, watch, decision.error, now, report)
        elif decision.step in {Step.WAIT, Step.GRACE}:
            if decision.step is Step.GRACE:
                _log.debug("job %d: does not open yet: %s", watch.job_id, decision.error)
            report.waiting.append(Waiting(watch.job_id, watch.candidate.path, decision))

    def _examine(self, candidate: Candidate) -> WsiDenoiseError | None:
        """Return what prevents an unchanged file from being processed, or None."""
        try:
            return _outside_fault(candidate) or self._probe(candidate.path)
        except (SlideError, SourceError, ClusterError) as error:
            return error
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - one file must not stop the others
            _log.exception("probe")
            return InternalError(f"{type(error).__name__}: {error}")

    def _ready(self, path: str, watch: _Watch, now: float, report: Report) -> None:
        candidate, snapshot_ = watch.candidate, watch.candidate.snapshot
        content = fingerprint(candidate.path, expected=snapshot_, keep_going=lambda: not self._closed)
        if self._is_being_stopped(path, content):
            report.waiting.append(Waiting(watch.job_id, candidate.path, Decision(Step.WAIT, until=now)))
            return
        preset = self._settings.preset_for(candidate.relative)
        settings, settings_hash = self._settings.pixel_settings(), self._settings.pixel_hash()
        wished, ours = self._wishes(watch.job_id), (preset, settings_hash)
        if wished:
            before = self._store.job(watch.job_id)
            preset, settings, settings_hash = before.preset, before.settings, before.settings_hash
        job = self._store.queue(
            watch.job_id,
            fingerprint=content,
            settings=settings,
            settings_hash=settings_hash,
            preset=preset,
            origin=self._origin,
            model_checksum=self._checksum(preset),
        )
        del self._watches[path]
        self._before[path] = job.state
        (report.duplicates if job.state is JobState.DUPLICATE else report.queued).append(job.id)
        _log.info("job %d: %s", job.id, job.state)
        self.quarantine.release(candidate.path, candidate.relative)
        if "rerun" in wished and (preset, settings_hash) != ours:
            self._see(path, candidate, now, report)  # also with the settings of its folder; a duplicate if done before

    def _wishes(self, job_id: int) -> set[str]:
        """Return how a user queued this job with a preset and settings of their choice, before its file changed."""
        events = self._store.events(job_id)
        return {event.kind for event in events if event.origin.startswith("person:")} & {"queued", "rerun"}

    def _is_being_stopped(self, path: str, content: str) -> bool:
        """Cancel jobs that this content replaces; return whether one of them still has to stop.

        A job of the same content whose file is gone (renamed, or moved within the inbox) would make this one its
        duplicate and then fail. A running job of the former content has no file to read.
        """
        for file in self._store.known(self._lost).values() if self._lost else ():
            if (
                file.state in {JobState.QUEUED, JobState.RUNNING}
                and self._store.job(file.job_id).fingerprint == content
            ):
                if self._store.cancel(file.job_id, self._origin).state is JobState.RUNNING:
                    return True
                _log.info("job %d: its file was moved", file.job_id)
        old = self._replaced.pop(path, None)
        if old is not None:
            job = self._store.job(old)
            if job.state in {JobState.QUEUED, JobState.RUNNING} and job.fingerprint != content:
                self._store.cancel(old, self._origin)
        return False

    @contextmanager
    def _unless_over(self, path: str) -> Iterator[None]:
        """Ignore that another daemon or the user has decided about the job in between; the next scan sees it."""
        try:
            yield
        except (TransitionRefused, LeaseLost, NoSuchJob) as error:
            self._watches.pop(path, None)
            _log.debug("%s", error)

    def _damaged(self, path: str, watch: _Watch, error: WsiDenoiseError, now: float, report: Report) -> None:
        candidate = watch.candidate
        if not is_as_seen(candidate):
            # The content at fault is gone; the next scan sees the new one.
            watch.settling = Settling.first(watch.settling.rules, candidate.snapshot, now)
            report.waiting.append(Waiting(watch.job_id, candidate.path, watch.settling.decide()))
            return
        if not isinstance(error, SlideError):
            self._store.fail(watch.job_id, error, self._origin)  # the file is not at fault
            del self._watches[path]
            self._before[path] = JobState.FAILED
            return
        self._store.quarantine(watch.job_id, error, self._origin)
        del self._watches[path]
        self._before[path] = JobState.QUARANTINED
        if error.code == NoPermission.code:
            self._no_permission.add(watch.job_id)
        report.quarantined.append(watch.job_id)
        _log.warning("job %d: quarantined (%s)", watch.job_id, error.code)
        try:
            self.quarantine.put(
                candidate.path,
                candidate.relative,
                error,
                job_id=watch.job_id,
                time=datetime.now(UTC),
            )
        except OutputUnwritable as failure:
            _log.warning("job %d: %s", watch.job_id, failure)


def _outside_fault(candidate: Candidate) -> WsiDenoiseError | None:
    """Return the fault of a file that can be determined without opening it, or None."""
    if candidate.problem is not None:
        return candidate.problem
    if snapshot(slide_files(candidate.path)) != candidate.snapshot:
        return SlideChanged(shown(candidate.path))
    refused = unreadable_file(candidate.path)
    if refused is not None:
        return NoPermission(shown(refused))
    return None if candidate.snapshot.size_bytes else EmptyFile(shown(candidate.path.name))
