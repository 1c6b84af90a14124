"""The watcher against real folders and a real store; only time and the probe are the test's own."""

import errno
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from watchdog.observers.inotify import InotifyObserver

from wsi_denoise.errors import (
    DatabaseBusy,
    InternalError,
    NoWorkers,
    SchedulerUnreachable,
    SlideChanged,
    SlideVanished,
    SourceUnavailable,
    TruncatedSlide,
    UnsupportedSlide,
    WeightsDamaged,
    WorkerLost,
    WsiDenoiseError,
)
from wsi_denoise.intake import fs_events, scan, watcher
from wsi_denoise.intake.report import Report
from wsi_denoise.intake.watcher import Watcher
from wsi_denoise.jobs import places
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import Job, JobQuery
from wsi_denoise.settings import Settings, load

SETTLE, GRACE = 10, 100


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory) -> bytes:
    file = tmp_path_factory.mktemp("database") / "jobs.sqlite"
    store = JobStore(f"sqlite:///{file}")
    store.upgrade()
    store.close()
    return file.read_bytes()


class Lab:
    """An inbox, a store and a watcher, with a clock that the test moves."""

    def __init__(self, folder: Path, database: bytes, **overrides: object) -> None:
        self.folder = folder
        self.inbox = folder / "inbox"
        self.inbox.mkdir(exist_ok=True)
        chosen = {"intake.settle_seconds": SETTLE, "intake.grace_seconds": GRACE, "intake.events": False}
        self.settings: Settings = load(folder=folder, environ={}, overrides={**chosen, **overrides}).settings
        self.settings.jobs.state.mkdir(exist_ok=True)
        if not (self.settings.jobs.state / "jobs.sqlite").exists():
            (self.settings.jobs.state / "jobs.sqlite").write_bytes(database)
        self.store = JobStore(self.settings.database_url)
        self.faults: dict[str, WsiDenoiseError] = {}
        self.probed: list[str] = []
        self.now = 1000.0
        self.start()

    def start(self) -> None:
        self.watcher = Watcher(self.settings, self.store, probe=self.probe, origin="daemon:1")

    def probe(self, path: Path) -> WsiDenoiseError | None:
        self.probed.append(path.name)
        return self.faults.get(path.name)

    def look(self, seconds: float = 0.0) -> Report:
        self.now += seconds
        return self.watcher.look(self.now)

    def settle(self) -> Report:
        self.look()
        return self.look(SETTLE)

    def write(self, name: str, content: bytes = b"pixels") -> Path:
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def jobs(self) -> list[Job]:
        return self.store.jobs(JobQuery(sort="id", limit=None)).jobs[::-1]

    def states(self) -> dict[str, list[str]]:
        """States of the jobs of each file, oldest first."""
        found: dict[str, list[str]] = {}
        for job in sorted(self.jobs(), key=lambda job: job.id):
            found.setdefault(job.relative, []).append(job.state.value)
        return found

    def finish(self, job_id: int) -> None:
        daemon = self.store.register_daemon(host="here", pid=1, version="1")
        job = self.store.claim(daemon, 60)
        assert job is not None
        assert job.id == job_id
        self.store.finish(
            job_id,
            daemon,
            verdict="pass",
            reasons=[],
            metrics={},
            output="/o",
            output_sha256="0",
            maps=None,
            provenance={},
        )

    def close(self) -> None:
        self.watcher.close()
        self.store.close()


@pytest.fixture
def make_lab(tmp_path: Path, empty_database: bytes) -> Iterator[Callable[..., Lab]]:
    made: list[Lab] = []

    def make(**overrides: object) -> Lab:
        folder = Path(overrides.pop("folder", tmp_path))
        made.append(Lab(folder, empty_database, **overrides))
        return made[-1]

    yield make
    for lab in made:
        lab.close()


@pytest.fixture
def lab(make_lab) -> Lab:
    return make_lab()


# -- arriving


def test_a_file_is_seen_settles_and_is_queued_once(lab: Lab) -> None:
    path = lab.write("deep/a.svs")
    assert len(lab.look().seen) == 1
    assert lab.states() == {"deep/a.svs": ["settling"]}
    assert lab.probed == []
    assert len(lab.look(SETTLE).queued) == 1
    (job,) = lab.jobs()
    assert job.state is JobState.QUEUED
    assert (job.slide, job.size_bytes, job.mtime_ns) == (str(path), 6, path.stat().st_mtime_ns)
    assert job.settings_hash == lab.settings.pixel_hash()
    assert job.settings == lab.settings.pixel_settings()
    assert lab.probed == ["a.svs"]
    for _ in range(3):
        assert lab.look(1000) == Report(slides=1)
    assert lab.probed == ["a.svs"]


def test_slow_write_in_ten_pieces_is_not_touched_before_it_is_complete(lab: Lab) -> None:
    path = lab.write("a.svs", b"")
    for number in range(10):
        with path.open("ab") as file:
            file.write(b"piece")
        os.utime(path, ns=(0, number))
        lab.look(SETTLE - 1)
    assert lab.probed == []
    assert lab.jobs()[0].size_bytes == 50, "the store shows how far the copy is"
    assert lab.look(SETTLE).queued
    assert len(lab.jobs()) == 1


def test_preallocated_to_full_size_with_content_still_arriving(lab: Lab) -> None:
    path = lab.write("a.svs", bytes(100))
    for number in range(5):
        os.utime(path, ns=(0, number))
        lab.look(SETTLE)
    assert lab.probed == []
    assert lab.look(SETTLE).queued


def test_preallocated_and_still_but_without_its_last_tile(lab: Lab) -> None:
    path = lab.write("a.svs", bytes(100))
    lab.faults["a.svs"] = TruncatedSlide()
    report = lab.settle()
    assert report.waiting[0].decision.error is lab.faults["a.svs"]
    assert lab.states() == {"a.svs": ["settling"]}
    del lab.faults["a.svs"]
    os.utime(path, ns=(0, 5))
    assert lab.settle().queued


def test_a_copy_that_sets_the_time_of_change_to_the_past_at_the_end(lab: Lab) -> None:
    path = lab.write("a.svs")
    lab.look()
    os.utime(path, ns=(0, 10**18))
    assert lab.look(SETTLE).queued == []
    assert lab.look(SETTLE).queued
    assert lab.jobs()[0].mtime_ns == 10**18


def test_a_time_of_change_in_the_future(lab: Lab) -> None:
    future = time.time_ns() + 10**17
    os.utime(lab.write("a.svs"), ns=(future, future))
    assert lab.settle().queued


@pytest.mark.parametrize("jump", [-900.0, 500.0])
def test_a_clock_that_jumps(lab: Lab, jump: float) -> None:
    lab.write("a.svs")
    lab.look()
    lab.look(jump)
    lab.look(SETTLE)
    assert lab.states() == {"a.svs": ["queued"]}


def test_moved_in_whole_and_nested(lab: Lab, tmp_path: Path) -> None:
    outside = tmp_path / "outside/case/slides"
    outside.mkdir(parents=True)
    (outside / "a.svs").write_bytes(b"1")
    (outside / "b.svs").write_bytes(b"2")
    (tmp_path / "outside").rename(lab.inbox / "batch")
    lab.settle()
    assert lab.states() == {"batch/case/slides/a.svs": ["queued"], "batch/case/slides/b.svs": ["queued"]}


def test_a_partial_name_is_not_looked_at_until_it_has_its_own(lab: Lab) -> None:
    path = lab.write("a.svs.part")
    lab.settle()
    assert lab.jobs() == []
    path.rename(lab.inbox / "a.svs")
    assert lab.settle().queued


def test_a_partial_name_that_no_pattern_knows_waits_for_its_own(lab: Lab) -> None:
    path = lab.write("a.svs.A1b2C3d4", b"II*\0" + bytes(100))
    lab.settle()
    assert lab.states() == {"a.svs.A1b2C3d4": ["settling"]}
    path.rename(lab.inbox / "a.svs")
    lab.settle()
    assert lab.states() == {"a.svs.A1b2C3d4": ["cancelled"], "a.svs": ["queued"]}


def test_odd_names_reach_the_store_and_come_back(lab: Lab) -> None:
    names = [b"new\nline.svs", b"latin\xe9.svs", b"a" * 251 + b".svs", b"'; drop table jobs; --.svs"]
    paths = [lab.write(os.fsdecode(name), name) for name in names]
    lab.settle()
    assert {job.slide for job in lab.jobs()} == {str(path) for path in paths}
    assert {job.state for job in lab.jobs()} == {JobState.QUEUED}


def test_a_folder_with_its_own_preset(make_lab) -> None:
    lab = make_lab()
    lab.settings = lab.settings.model_validate(
        {**lab.settings.model_dump(), "folders": [{"path": "sa", "preset": "scan"}]}
    )
    lab.start()
    lab.write("sa/deep/a.svs", b"1")
    lab.write("b.svs", b"2")
    lab.settle()
    assert {job.relative: job.preset for job in lab.jobs()} == {
        "sa/deep/a.svs": "scan",
        "b.svs": lab.settings.model.preset,
    }


# -- the same again


def test_touch_without_change_is_a_duplicate_of_what_was_done(lab: Lab) -> None:
    path = lab.write("a.svs")
    lab.finish(lab.settle().queued[0])
    os.utime(path, ns=(0, 5))
    assert lab.settle().duplicates
    assert lab.states() == {"a.svs": ["done", "duplicate"]}
    assert lab.look(1000) == Report(slides=1)


def test_touch_of_a_queued_file_keeps_its_job(lab: Lab) -> None:
    path = lab.write("a.svs")
    lab.settle()
    os.utime(path, ns=(0, 5))
    lab.settle()
    assert lab.states() == {"a.svs": ["queued"]}
    assert lab.jobs()[0].mtime_ns == 5


def test_touch_of_a_running_file_does_not_stop_it(lab: Lab) -> None:
    path = lab.write("a.svs")
    lab.settle()
    lab.store.claim(lab.store.register_daemon(host="here", pid=1, version="1"), 60)
    os.utime(path, ns=(0, 5))
    lab.settle()
    assert lab.states() == {"a.svs": ["running", "duplicate"]}
    assert not any(lab.store.cancel_requested(job.id) for job in lab.jobs())


def test_new_content_under_a_done_name_is_a_new_job(lab: Lab) -> None:
    lab.write("a.svs")
    lab.finish(lab.settle().queued[0])
    lab.write("a.svs", b"other pixels")
    lab.settle()
    assert lab.states() == {"a.svs": ["done", "queued"]}


def test_new_content_under_a_queued_name_is_queued_with_its_own_fingerprint(lab: Lab) -> None:
    lab.write("a.svs")
    lab.settle()
    before = lab.jobs()[0].fingerprint
    lab.write("a.svs", b"other pixels")
    lab.settle()
    assert lab.states() == {"a.svs": ["queued"]}
    assert lab.jobs()[0].fingerprint != before


def test_new_content_under_a_running_name_stops_the_old_job(lab: Lab) -> None:
    lab.write("a.svs")
    (old,) = lab.settle().queued
    lab.store.claim(lab.store.register_daemon(host="here", pid=1, version="1"), 60)
    lab.write("a.svs", b"other pixels")
    lab.settle()
    assert lab.states() == {"a.svs": ["running", "queued"]}
    assert lab.store.cancel_requested(old)


def rerun(lab: Lab, job: int) -> Job:
    """As the page does when a user reruns a slide with another preset."""
    settings = lab.settings
    return lab.store.rerun(
        job,
        preset="photo",
        settings=settings.pixel_settings(),
        settings_hash=settings.pixel_hash(),
        origin="person:page",
    )


def test_new_content_before_a_rerun_began_is_denoised_both_ways_and_the_old_job_keeps_its_own(lab: Lab) -> None:
    lab.write("a.svs")
    (old,) = lab.settle().queued
    lab.finish(old)
    before = lab.store.job(old)
    again = rerun(lab, old).id
    lab.write("a.svs", b"other pixels")
    lab.settle()
    lab.settle()
    done, photo, new = sorted(lab.jobs(), key=lambda job: job.id)
    assert done == before
    assert (photo.id, photo.state, photo.preset) == (again, JobState.QUEUED, "photo")
    assert (new.state, new.preset) == (JobState.QUEUED, before.preset)
    assert photo.fingerprint == new.fingerprint != done.fingerprint
    assert lab.look(1000) == Report(slides=1)


def test_touch_before_a_rerun_began_keeps_it(lab: Lab) -> None:
    path = lab.write("a.svs")
    (old,) = lab.settle().queued
    lab.finish(old)
    before = lab.store.job(old)
    again = rerun(lab, old).id
    os.utime(path, ns=(0, 5))
    lab.settle()
    lab.settle()
    assert lab.states() == {"a.svs": ["done", "queued", "duplicate"]}
    assert lab.store.job(old) == before
    assert (lab.store.job(again).preset, lab.store.job(again).mtime_ns) == ("photo", 5)


def test_same_content_under_another_name_is_a_duplicate(lab: Lab) -> None:
    lab.write("a.svs")
    lab.write("copy/b.svs")
    lab.settle()
    assert sorted(state for (state,) in lab.states().values()) == ["duplicate", "queued"]


def test_a_cancelled_job_stays_cancelled(lab: Lab) -> None:
    lab.write("a.svs")
    (job,) = lab.look().seen
    lab.store.cancel(job, "person:cli")
    lab.settle()
    lab.start()
    lab.settle()
    assert lab.states() == {"a.svs": ["cancelled"]}


# -- going away


def test_deleted_before_stable_is_forgotten(lab: Lab) -> None:
    path = lab.write("a.svs")
    lab.look()
    path.unlink()
    assert len(lab.look(SETTLE).forgotten) == 1
    assert lab.states() == {"a.svs": ["cancelled"]}
    assert lab.probed == []


def test_deleted_while_the_daemon_was_down_is_forgotten(lab: Lab) -> None:
    path = lab.write("a.svs")
    lab.look()
    path.unlink()
    lab.start()
    assert lab.look().forgotten


def test_deleted_and_put_back_unchanged_is_a_new_job(lab: Lab, tmp_path: Path) -> None:
    path = lab.write("a.svs")
    lab.look()
    path.rename(tmp_path / "kept")
    lab.look()
    (tmp_path / "kept").rename(path)
    lab.settle()
    assert lab.states() == {"a.svs": ["cancelled", "queued"]}


def test_put_back_while_the_daemon_was_down_is_a_new_job(lab: Lab, tmp_path: Path) -> None:
    path = lab.write("a.svs")
    lab.look()
    path.rename(tmp_path / "kept")
    lab.look()
    (tmp_path / "kept").rename(path)
    lab.start()
    lab.settle()
    assert lab.states() == {"a.svs": ["cancelled", "queued"]}


def test_a_job_that_failed_because_its_file_was_gone_is_tried_again_when_it_is_back(
    end_job, lab: Lab, tmp_path: Path
) -> None:
    path = lab.write("a.svs")
    (job,) = lab.settle().queued
    path.rename(tmp_path / "kept")
    lab.look()
    end_job(lab.store, job, SlideVanished())
    (tmp_path / "kept").rename(path)
    lab.settle()
    assert lab.states() == {"a.svs": ["failed", "queued"]}


def test_a_job_that_failed_for_another_reason_is_not_tried_for_ever(end_job, lab: Lab) -> None:
    lab.write("a.svs")
    end_job(lab.store, lab.settle().queued[0], InternalError())
    for _ in range(3):
        lab.start()
        lab.settle()
    assert lab.states() == {"a.svs": ["failed"]}


def test_renamed_while_settling(lab: Lab) -> None:
    path = lab.write("a.svs")
    lab.look()
    path.rename(lab.inbox / "b.svs")
    lab.settle()
    assert lab.states() == {"a.svs": ["cancelled"], "b.svs": ["queued"]}


def test_renamed_while_queued_is_not_the_duplicate_of_a_job_without_a_file(lab: Lab) -> None:
    path = lab.write("a.svs")
    lab.settle()
    path.rename(lab.inbox / "b.svs")
    lab.settle()
    assert lab.states() == {"a.svs": ["cancelled"], "b.svs": ["queued"]}


def test_renamed_while_queued_and_the_daemon_down(lab: Lab) -> None:
    path = lab.write("a.svs")
    lab.settle()
    path.rename(lab.inbox / "b.svs")
    lab.start()
    lab.settle()
    assert lab.states() == {"a.svs": ["cancelled"], "b.svs": ["queued"]}


def test_renamed_while_running_waits_for_the_old_job_to_stop(lab: Lab) -> None:
    path = lab.write("a.svs")
    (old,) = lab.settle().queued
    daemon = lab.store.register_daemon(host="here", pid=1, version="1")
    lab.store.claim(daemon, 60)
    path.rename(lab.inbox / "b.svs")
    lab.settle()
    assert lab.states() == {"a.svs": ["running"], "b.svs": ["settling"]}
    assert lab.store.cancel_requested(old)
    lab.store.cancelled(old, daemon)
    lab.look(1)
    assert lab.states() == {"a.svs": ["cancelled"], "b.svs": ["queued"]}


def test_a_duplicate_takes_over_when_the_file_of_the_first_is_deleted(lab: Lab) -> None:
    first = lab.write("a.svs")
    lab.settle()
    lab.write("b.svs")
    assert lab.settle().duplicates
    first.unlink()
    lab.look()
    lab.settle()
    lab.look()
    assert lab.states() == {"a.svs": ["cancelled"], "b.svs": ["duplicate", "queued"]}


def test_a_duplicate_takes_over_when_the_first_failed_for_its_place(end_job, lab: Lab) -> None:
    lab.write("a.svs")
    (first,) = lab.settle().queued
    lab.write("b.svs")
    lab.settle()
    end_job(lab.store, first, SlideChanged())
    lab.look(watcher.FULL_SECONDS)
    lab.settle()
    assert lab.states()["b.svs"] == ["duplicate", "queued"]


@pytest.mark.parametrize("told", ["watcher", "runner"])
def test_a_duplicate_takes_over_when_the_file_of_the_first_is_replaced(lab: Lab, told: str) -> None:
    lab.write("a.svs")
    (first,) = lab.settle().queued
    lab.write("b.svs")
    lab.settle()
    before = lab.store.job(first).fingerprint
    lab.write("a.svs", b"other pixels")
    if told == "runner":
        lab.store.settle_again(first, SlideChanged(), "daemon:1")
    lab.settle()
    lab.finish(first)
    lab.look(watcher.FULL_SECONDS)
    lab.settle()
    assert lab.states() == {"a.svs": ["done"], "b.svs": ["duplicate", "queued"]}
    assert max(lab.jobs(), key=lambda job: job.id).fingerprint == before


def test_a_duplicate_waits_while_the_file_of_the_first_was_only_touched(lab: Lab) -> None:
    path = lab.write("a.svs")
    lab.settle()
    lab.write("b.svs")
    lab.settle()
    os.utime(path, ns=(0, 5))
    lab.look(watcher.FULL_SECONDS)
    lab.look(SETTLE)
    lab.look(watcher.FULL_SECONDS)
    lab.settle()
    assert lab.states() == {"a.svs": ["queued"], "b.svs": ["duplicate"]}


def test_a_duplicate_of_a_job_that_a_person_cancelled_stays_one(lab: Lab) -> None:
    lab.write("a.svs")
    (first,) = lab.settle().queued
    lab.write("b.svs")
    lab.settle()
    lab.store.cancel(first, "person:cli")
    lab.look(watcher.FULL_SECONDS)
    lab.settle()
    assert lab.states() == {"a.svs": ["cancelled"], "b.svs": ["duplicate"]}


def test_deleted_between_probe_and_fingerprint(lab: Lab) -> None:
    path = lab.write("a.svs")
    lab.watcher._probe = lambda probed: probed.unlink()
    lab.settle()
    assert lab.states() == {"a.svs": ["settling"]}
    lab.look(1)
    assert lab.states() == {"a.svs": ["cancelled"]}
    assert not path.exists()


def test_changed_between_probe_and_fingerprint_settles_again(lab: Lab) -> None:
    lab.write("a.svs")

    def grows(probed: Path) -> None:
        probed.write_bytes(b"more pixels")

    lab.watcher._probe = grows
    lab.settle()
    assert lab.states() == {"a.svs": ["settling"]}
    lab.watcher._probe = lambda probed: None
    lab.settle()
    assert lab.states() == {"a.svs": ["queued"]}
    assert lab.jobs()[0].size_bytes == 11


# -- places that go away


def test_an_inbox_that_disappears_forgets_nothing(lab: Lab, caplog) -> None:
    lab.write("a.svs")
    lab.look()
    lab.inbox.rename(lab.folder / "away")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            report = lab.look(SETTLE)
            assert isinstance(report.unavailable[0], SourceUnavailable)
            assert report.forgotten == []
    assert len(caplog.records) == 1, "said once, not at every look"
    (lab.folder / "away").rename(lab.inbox)
    lab.settle()
    assert lab.states() == {"a.svs": ["queued"]}


def test_an_inbox_that_is_not_there_yet_is_waited_for(lab: Lab) -> None:
    lab.inbox.rmdir()
    assert lab.look().unavailable
    lab.write("a.svs")
    assert lab.settle().queued


def unmount(lab: Lab) -> Callable[[], None]:
    """Leave an empty folder in the place of the inbox; returns what mounts it again."""
    away = lab.folder / "away"
    lab.inbox.rename(away)
    lab.inbox.mkdir()

    def mount() -> None:
        shutil.rmtree(lab.inbox)
        away.rename(lab.inbox)

    return mount


@pytest.mark.parametrize("restarted", [False, True])
def test_an_unmounted_share_leaves_an_empty_folder_and_forgets_nothing(lab: Lab, caplog, restarted: bool) -> None:
    lab.write("broken.svs", b"other")
    lab.faults["broken.svs"] = UnsupportedSlide()
    lab.settle()
    lab.write("queued.svs")
    lab.settle()
    lab.write("settling.svs", b"third")
    lab.look()
    note = lab.settings.intake.quarantine / "broken.svs.txt"
    assert note.exists()
    mount = unmount(lab)
    if restarted:
        lab.start()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert lab.look(watcher.FULL_SECONDS).forgotten == []
    assert ["missing slides are waited for" in record.message for record in caplog.records] == [True]
    assert note.exists()
    mount()
    lab.settle()
    lab.look(watcher.FULL_SECONDS)
    assert lab.states() == {"broken.svs": ["quarantined"], "queued.svs": ["queued"], "settling.svs": ["queued"]}
    assert len(lab.jobs()) == 3


def test_a_slide_on_an_unmounted_share_is_not_done_a_second_time_from_its_copy(make_lab, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    lab = make_lab(**{"intake.inbox": ["inbox", "second"]})
    lab.write("a.svs")
    lab.settle()
    (tmp_path / "second" / "copy.svs").write_bytes(b"pixels")
    lab.settle()
    mount = unmount(lab)
    for _ in range(3):
        lab.look(watcher.FULL_SECONDS)
    mount()
    lab.settle()
    assert lab.states() == {"a.svs": ["queued"], "copy.svs": ["duplicate"]}


@pytest.mark.parametrize("listable", [False, True])
def test_a_job_that_failed_while_the_share_was_away_is_done_anew_without_a_restart(
    end_job, lab: Lab, listable: bool
) -> None:
    lab.write("a.svs")
    (job,) = lab.settle().queued
    mount = unmount(lab)
    if not listable:
        lab.inbox.rmdir()
    lab.look()
    end_job(lab.store, job, SlideVanished())  # by a version that did not ask for the place
    lab.look(SETTLE)
    lab.inbox.mkdir(exist_ok=True)
    mount()
    lab.settle()
    assert lab.states() == {"a.svs": ["failed", "queued"]}
    for _ in range(3):
        lab.look(SETTLE)
    assert len(lab.jobs()) == 2


@pytest.mark.parametrize("error", [SourceUnavailable(), SlideVanished()])
def test_a_job_that_waits_for_its_file_is_due_as_soon_as_that_is_back(lab: Lab, error: WsiDenoiseError) -> None:
    lab.write("a.svs")
    (job,) = lab.settle().queued
    later = datetime.now(UTC) + timedelta(hours=1)

    def wait() -> None:
        daemon = lab.store.register_daemon()
        assert lab.store.claim(daemon, 60)
        lab.store.retry_later(job, error, later, f"daemon:{daemon}", counts=False)

    mount = unmount(lab)
    wait()
    lab.look()
    assert lab.store.job(job).next_try == later
    mount()
    assert lab.look().resumed == [job]
    assert lab.store.job(job).next_try is None
    assert lab.store.events(job)[-1].message == "tried now: the file is back"
    wait()  # for another reason than a missing file, as this one was there all the time
    assert lab.look().resumed == []
    lab.start()
    assert lab.look().resumed == [job], "a daemon that starts has not seen what was before"


def test_the_place_of_a_slide_from_an_earlier_version_is_recorded_when_it_is_found(lab: Lab) -> None:
    lab.write("a.svs")
    (job,) = lab.settle().queued
    seen = places.place_of(lab.store, job)
    assert seen
    places.note_place(lab.store, job, "")
    lab.look()
    assert places.place_of(lab.store, job) == seen


def refuse_listing(monkeypatch, name: str, error: OSError) -> Callable[[], None]:
    """Have a folder that cannot be listed; returns what ends that."""
    listing = os.scandir

    def refuses(folder):
        if Path(folder).name == name:
            raise error
        return listing(folder)

    monkeypatch.setattr(os, "scandir", refuses)
    return lambda: monkeypatch.setattr(os, "scandir", listing)


def test_an_unreadable_folder_forgets_nothing(lab: Lab, monkeypatch) -> None:
    lab.write("deep/a.svs")
    lab.write("b.svs", b"other")
    lab.look()
    allow = refuse_listing(monkeypatch, "deep", OSError(errno.EIO, "Input/output error"))
    report = lab.look(SETTLE)
    assert report.forgotten == []
    assert [candidate.path.name for candidate in report.others] == ["deep"]
    assert len(report.queued) == 1
    allow()
    lab.settle()
    assert lab.states() == {"deep/a.svs": ["queued"], "b.svs": ["queued"]}


def test_an_unreadable_part_of_one_slide_keeps_no_other_waiting_and_forgets_nothing(lab: Lab, monkeypatch) -> None:
    lab.write("m.mrxs", b"key")
    lab.write("m/Slidedat.ini")
    lab.write("a.svs", b"other")
    lab.look()
    allow = refuse_listing(monkeypatch, "m", PermissionError(errno.EACCES, "Permission denied"))
    report = lab.look(SETTLE)
    assert len(report.queued) == 1
    assert [candidate.path.name for candidate in report.others] == ["m.mrxs"]
    assert lab.look(1000).forgotten == []
    assert lab.states() == {"a.svs": ["queued"], "m.mrxs": ["settling"]}
    allow()
    lab.settle()
    assert lab.states() == {"a.svs": ["queued"], "m.mrxs": ["queued"]}


def test_an_entry_that_one_listing_misses_is_not_forgotten(lab: Lab, monkeypatch) -> None:
    lab.write("a.svs")
    lab.look()
    monkeypatch.setattr(watcher.Scanner, "scan", lambda self: scan.Scan(readable=[lab.inbox]))
    assert lab.look(1).forgotten == []
    monkeypatch.undo()
    assert lab.look(SETTLE).queued


def test_two_inboxes_and_one_inside_the_other(make_lab, tmp_path: Path) -> None:
    lab = make_lab(**{"intake.inbox": ["inbox", "inbox/inner", "second"]})
    (lab.inbox / "inner").mkdir()
    (tmp_path / "second").mkdir()
    lab.write("a.svs", b"1")
    lab.write("inner/b.svs", b"2")
    (tmp_path / "second/c.svs").write_bytes(b"3")
    lab.settle()
    assert lab.states() == {"a.svs": ["queued"], "b.svs": ["queued"], "c.svs": ["queued"]}


def test_folders_of_the_program_inside_the_inbox_are_not_scanned(make_lab) -> None:
    lab = make_lab(**{"intake.inbox": ["."], "output.folder": "out"})
    for name in ("quarantine/q.svs", "out/o.tif", ".wsi-denoise/s.tif", "case/a.svs"):
        path = lab.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    lab.settle()
    assert list(lab.states()) == ["case/a.svs"]


# -- what does not open


def test_truncated_for_good_is_quarantined_after_the_grace_and_not_before(lab: Lab) -> None:
    path = lab.write("deep/a.svs")
    lab.write("b.svs", b"good")
    lab.faults["a.svs"] = TruncatedSlide()
    while lab.now < 1000 + GRACE - 5:
        assert lab.look(5).quarantined == []
    assert lab.states() == {"deep/a.svs": ["settling"], "b.svs": ["queued"]}
    assert len(lab.look(15).quarantined) == 1
    job = next(job for job in lab.jobs() if job.relative == "deep/a.svs")
    assert (job.state, job.error_code) == (JobState.QUARANTINED, "truncated")
    assert (lab.folder / "quarantine/deep/a.svs").resolve() == path
    assert "truncated" in (lab.folder / "quarantine/deep/a.svs.txt").read_text()
    probes = len(lab.probed)
    assert lab.look(10_000) == Report(slides=2)
    assert len(lab.probed) == probes


def test_unsupported_is_quarantined_at_once(lab: Lab) -> None:
    lab.write("a.svs")
    lab.faults["a.svs"] = UnsupportedSlide()
    assert lab.settle().quarantined


@pytest.mark.parametrize("error", [TruncatedSlide(), SourceUnavailable(), WorkerLost()])
def test_a_probe_that_raises_is_one_that_fails(lab: Lab, error: WsiDenoiseError) -> None:
    def raises(path: Path) -> None:
        raise error

    lab.write("a.svs")
    lab.watcher._probe = raises
    assert lab.settle().waiting[0].decision.error is error


def test_a_probe_that_nobody_foresaw_keeps_no_other_file_waiting(lab: Lab) -> None:
    """Seen: an error that could not be unpickled came out of every look, and no file was taken up any more."""

    def raises(path: Path) -> WsiDenoiseError | None:
        if path.name == "a.svs":
            raise TypeError("__init__() takes exactly 3 positional arguments (2 given)")
        return None

    lab.write("a.svs")
    lab.write("b.svs", b"other")
    lab.watcher._probe = raises
    report = lab.settle()
    assert len(report.queued) == 1
    assert report.waiting[0].decision.error.code == "internal_error"
    lab.look(10_000)
    (job,) = (job for job in lab.store.jobs().jobs if job.relative == "a.svs")
    assert (job.state, job.error_code) == (JobState.FAILED, "internal_error")


@pytest.mark.parametrize("error", [SchedulerUnreachable(), NoWorkers(), WorkerLost()])
def test_no_slide_is_quarantined_while_the_cluster_is_away(lab: Lab, error: WsiDenoiseError) -> None:
    path = lab.write("a.svs")
    lab.faults["a.svs"] = error
    for _ in range(10):
        assert lab.look(10 * GRACE).quarantined == []
    assert lab.states() == {"a.svs": ["settling"]}
    assert path.exists()
    assert not (lab.folder / "quarantine").exists()
    del lab.faults["a.svs"]
    assert lab.look(10 * GRACE).queued


def test_only_a_fault_of_the_slide_quarantines_it(lab: Lab) -> None:
    path = lab.write("a.svs")
    lab.faults["a.svs"] = WeightsDamaged()
    lab.settle()
    assert lab.look(GRACE).quarantined == []
    assert [(job.state.value, job.error_code) for job in lab.jobs()] == [("failed", "weights_damaged")]
    assert path.exists()


def test_a_change_of_a_quarantined_file_is_a_new_job_and_the_note_goes(lab: Lab) -> None:
    lab.write("a.svs")
    lab.faults["a.svs"] = UnsupportedSlide()
    lab.settle()
    del lab.faults["a.svs"]
    lab.write("a.svs", b"repaired")
    lab.settle()
    assert lab.states() == {"a.svs": ["quarantined", "queued"]}
    assert list((lab.folder / "quarantine").iterdir()) == []


def test_a_quarantined_file_that_a_person_tries_again_settles_again(lab: Lab) -> None:
    lab.write("a.svs")
    lab.faults["a.svs"] = UnsupportedSlide()
    (job,) = lab.settle().quarantined
    del lab.faults["a.svs"]
    lab.store.retry(job, "person:cli")
    lab.settle()
    assert lab.states() == {"a.svs": ["queued"]}
    assert list((lab.folder / "quarantine").iterdir()) == []


def test_a_quarantined_file_that_is_deleted_takes_its_note_along(lab: Lab) -> None:
    path = lab.write("a.svs")
    lab.faults["a.svs"] = UnsupportedSlide()
    lab.settle()
    path.unlink()
    lab.look()
    assert list((lab.folder / "quarantine").iterdir()) == []
    assert lab.states() == {"a.svs": ["quarantined"]}


def test_zero_bytes_wait_and_are_then_said_to_be_empty(lab: Lab) -> None:
    lab.write("a.svs", b"")
    assert lab.settle().quarantined == []
    lab.look(GRACE)
    assert [(job.state.value, job.error_code) for job in lab.jobs()] == [("quarantined", "empty_file")]
    assert lab.probed == []


@pytest.mark.timeout(60)
def test_pipes_and_links_out_of_the_inbox_are_quarantined_and_never_opened(lab: Lab, tmp_path: Path) -> None:
    os.mkfifo(lab.inbox / "pipe.svs")
    (tmp_path / "secret.svs").write_bytes(b"secret")
    (lab.inbox / "link.svs").symlink_to(tmp_path / "secret.svs")
    assert len(lab.settle().quarantined) == 2
    assert {job.error_code for job in lab.jobs()} == {"not_a_regular_file"}
    assert lab.probed == []


def test_a_full_quarantine_folder_does_not_stop_the_scan(lab: Lab) -> None:
    (lab.folder / "quarantine").write_bytes(b"in the way")
    lab.write("a.svs")
    lab.write("b.svs", b"good")
    lab.faults["a.svs"] = UnsupportedSlide()
    report = lab.settle()
    assert (len(report.quarantined), len(report.queued)) == (1, 1)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="wsi-denoise-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def nobody() -> Iterator[None]:
    """Root may read everything, so the watcher runs as another user."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_without_permission_is_said_to_be_so_and_queued_once_it_has_it(make_lab, open_folder: Path) -> None:
    with nobody():
        lab = make_lab(folder=open_folder)
        lab.write("a.svs").chmod(0)
        lab.settle()
        lab.look(GRACE)
        assert [(job.state.value, job.error_code) for job in lab.jobs()] == [("quarantined", "no_permission")]
        assert lab.probed == []
        lab.start()
        lab.look()
        (lab.inbox / "a.svs").chmod(0o644)
        lab.settle()
        assert lab.states() == {"a.svs": ["quarantined", "queued"]}


def test_a_read_only_inbox_works_and_stays_as_it_was(make_lab, open_folder: Path) -> None:
    # As a user who may not write there; a read-only mount is not possible in every test environment.
    with nobody():
        lab = make_lab(folder=open_folder)
        path = lab.write("deep/a.svs")
        lab.write("b.svs", b"bad")
        before = path.stat()
        lab.faults["b.svs"] = UnsupportedSlide()
        for folder in (path.parent, lab.inbox):
            folder.chmod(0o555)
        try:
            lab.settle()
        finally:
            for folder in (lab.inbox, path.parent):
                folder.chmod(0o755)
        assert lab.states() == {"b.svs": ["quarantined"], "deep/a.svs": ["queued"]}
        after = path.stat()
        assert (after.st_mtime_ns, after.st_size, after.st_ino) == (before.st_mtime_ns, before.st_size, before.st_ino)


# -- slides of several files


def test_mrxs_and_folder_arriving_in_any_order_are_one_job(lab: Lab) -> None:
    lab.write("s/Data0000.dat", b"12")
    lab.look(SETTLE)
    lab.write("s/Slidedat.ini", b"3")
    lab.look(SETTLE)
    lab.look(SETTLE)
    assert lab.jobs() == []
    lab.write("s.mrxs", b"4")
    lab.look(1)
    lab.write("s/Data0001.dat", b"5")
    lab.look(SETTLE)
    assert lab.states() == {"s.mrxs": ["settling"]}
    lab.look(SETTLE)
    assert lab.states() == {"s.mrxs": ["queued"]}
    assert lab.jobs()[0].size_bytes == 5


def test_a_part_that_arrives_before_its_key_file_is_taken_back(lab: Lab) -> None:
    lab.write("map.jpg")
    lab.look()
    lab.write("s.vms", b"MapFile=map.jpg\n")
    lab.look(1)
    lab.look(1)
    lab.look(SETTLE)
    assert lab.states() == {"map.jpg": ["cancelled"], "s.vms": ["queued"]}
    events = [event.message for job in lab.jobs() for event in lab.store.events(job.id)]
    assert any("part of another slide" in message for message in events)


def test_a_dicom_series_that_grows_is_one_job_and_one_more_when_it_grows_later(lab: Lab) -> None:
    for number in range(4):
        lab.write(f"case/{number}.dcm", b"%d" % number)
        lab.look(SETTLE - 1)
    assert lab.states() == {"case": ["settling"]}
    lab.finish(lab.look(SETTLE).queued[0])
    lab.write("case/9.dcm", b"one level more")
    lab.settle()
    assert lab.states() == {"case": ["done", "queued"]}


# -- several daemons, and the store


def test_two_watchers_on_one_store_make_one_job(lab: Lab) -> None:
    other = Watcher(lab.settings, lab.store, probe=lambda path: None, origin="daemon:2")
    lab.write("a.svs")
    lab.look()
    other.look(lab.now)
    lab.look(SETTLE)
    other.look(lab.now)
    assert lab.states() == {"a.svs": ["queued"]}
    other.close()


@pytest.mark.parametrize("decided", ["cancel", "forget", "quarantine", "queue"])
def test_a_job_that_somebody_else_decides_during_the_probe_is_left_to_them(lab: Lab, decided: str) -> None:
    lab.write("a.svs")
    (job,) = lab.look().seen

    def decide(path: Path) -> None:
        if decided == "cancel":
            lab.store.cancel(job, "person:cli")
        elif decided == "forget":
            lab.store.forget(job, "gone")
        elif decided == "quarantine":
            lab.store.quarantine(job, TruncatedSlide(), "daemon:2")
        else:
            lab.store.queue(job, fingerprint="0" * 64, settings={}, settings_hash="", preset="p", origin="daemon:2")

    lab.watcher._probe = decide
    report = lab.look(SETTLE)
    assert (report.queued, report.quarantined) == ([], [])
    assert len(lab.jobs()) == 1
    lab.look(1)


def test_nothing_is_lost_when_the_database_fails_in_the_middle(lab: Lab, monkeypatch) -> None:
    for number in range(3):
        lab.write(f"{number}.svs", b"%d" % number)
    queue, calls = lab.store.queue, []

    def fails_once(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise DatabaseBusy
        return queue(*args, **kwargs)

    monkeypatch.setattr(lab.store, "queue", fails_once)
    lab.look()
    with pytest.raises(DatabaseBusy):
        lab.look(SETTLE)
    lab.look(1)
    assert list(lab.states().values()) == [["queued"]] * 3


def test_a_file_that_another_daemon_forgot_and_saw_again_is_watched_under_its_new_job(lab: Lab) -> None:
    path = lab.write("a.svs")
    (job,) = lab.look().seen
    known = lab.store.known()[str(path)]
    lab.store.forget(job, "gone", origin="daemon:2")
    lab.store.see(
        path, "a.svs", size_bytes=known.size_bytes, mtime_ns=known.mtime_ns, preset="paper", origin="daemon:2"
    )
    lab.look(1)
    lab.look(SETTLE)
    assert lab.states() == {"a.svs": ["cancelled", "queued"]}


def test_a_restart_while_settling_goes_on_with_the_same_job(lab: Lab) -> None:
    lab.write("a.svs")
    lab.look()
    lab.start()
    lab.settle()
    assert lab.states() == {"a.svs": ["queued"]}


def test_a_long_look_is_cut_and_says_so(lab: Lab, monkeypatch) -> None:
    for number in range(3):
        lab.write(f"{number}.svs", b"%d" % number)
    lab.look()
    monkeypatch.setattr(watcher, "BUSY_SECONDS", -1)
    assert lab.look(SETTLE).unfinished
    monkeypatch.undo()
    report = lab.look(1)
    assert len(report.queued) == 3
    assert not report.unfinished


def test_closing_ends_a_look_before_the_next_file(lab: Lab) -> None:
    for number in range(3):
        lab.write(f"{number}.svs", b"%d" % number)
    lab.look()
    lab.watcher._probe = lambda path: lab.watcher.close()
    report = lab.look(SETTLE)
    assert report.unfinished
    assert report.queued == []


# -- others


def test_what_is_no_slide_is_said_once(lab: Lab, caplog) -> None:
    lab.write("notes\n.txt")
    with caplog.at_level(logging.INFO):
        assert len(lab.look().others) == 1
        assert lab.look(1).others == []
    assert [record.getMessage() for record in caplog.records if "not a slide" in record.getMessage()] == [
        "not a slide: notes\\n.txt: not a slide by its name, nor an image by its first bytes"
    ]
    lab.write("notes\n.txt", b"changed")
    assert lab.look(1).others == []  # such as the log of a scanner, which grows all day


# -- file events


def test_events_wake_up_the_wait(make_lab) -> None:
    lab = make_lab(**{"intake.events": True})
    lab.look()
    writer = threading.Timer(0.2, lambda: lab.write("a.svs"))
    writer.start()
    assert lab.watcher.wait(600) is True
    writer.join()


def test_a_scan_does_not_wake_up_itself(make_lab) -> None:
    lab = make_lab(**{"intake.events": True})
    lab.write("case/a.svs")
    lab.look()
    lab.watcher.wait(0.1)
    lab.settle()
    assert lab.watcher.wait(0.5) is False


def test_polling_only_waits_its_time_and_finds_everything(lab: Lab) -> None:
    lab.write("a.svs")
    lab.look()
    assert lab.watcher.wait(0.05) is False
    assert lab.look(SETTLE).queued


def test_without_inotify_it_polls(make_lab, monkeypatch, caplog) -> None:
    def no_watches(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "inotify watch limit reached")

    monkeypatch.setattr(InotifyObserver, "schedule", no_watches)
    lab = make_lab(**{"intake.events": True})
    lab.write("a.svs")
    with caplog.at_level(logging.WARNING):
        assert lab.settle().queued
    assert [record.getMessage() for record in caplog.records if "no file events" in record.getMessage()] != []
    assert len(caplog.records) == 1


def test_closing_ends_a_wait_and_leaves_no_thread(make_lab) -> None:
    threads = threading.active_count()
    lab = make_lab(**{"intake.events": True})
    lab.look()
    assert threading.active_count() > threads
    threading.Timer(0.1, lab.watcher.close).start()
    start = time.monotonic()
    lab.watcher.wait(600)
    assert time.monotonic() - start < 300
    lab.watcher.close()
    while threading.active_count() > threads:
        assert time.monotonic() - start < 300
        time.sleep(0.05)


def test_a_storm_of_events_is_one_scan_a_second(make_lab, monkeypatch) -> None:
    monkeypatch.setattr(fs_events, "CALM_SECONDS", 0.3)
    lab = make_lab(**{"intake.events": True})
    lab.look()
    path = lab.write("a.svs")
    stop = threading.Event()

    def storm() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.wait(0.01):
                file.write(b"x")

    thread = threading.Thread(target=storm)
    thread.start()
    start = time.monotonic()
    for _ in range(3):
        lab.watcher.wait(200)
    stop.set()
    thread.join()
    assert 0.85 <= time.monotonic() - start < 300
