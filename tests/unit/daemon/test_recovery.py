"""Recovery after a crash: dead daemons, unused finished blocks, partial files, missing notes."""

import os
import shutil
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from wsi_denoise.daemon import recovery
from wsi_denoise.errors import UnreadableTile, VerificationFailed
from wsi_denoise.jobs.states import JobState
from wsi_denoise.settings import load

ONE, OTHER, UNKNOWN = "1" * 64, "2" * 64, "3" * 64
KEY = "f" * 20


@pytest.fixture
def settings(tmp_path):
    return load(folder=tmp_path, environ={}).settings


def queued(store, settings, fingerprint, name="a.tiff"):
    slide = settings.intake.inbox[0] / name  # or elsewhere: name may be absolute
    slide.parent.mkdir(parents=True, exist_ok=True)
    slide.write_bytes(b"slide")
    changed = slide.stat().st_mtime_ns
    job = store.see(slide, slide.name, size_bytes=5, mtime_ns=changed, preset="paper", origin="test")
    return store.queue(job.id, fingerprint=fingerprint, settings={}, settings_hash="s", preset="paper", origin="test")


# -- daemons


def daemon_with(store, pid, **facts):
    return store.register_daemon(host=socket.gethostname(), pid=pid, facts={**recovery.identity(), **facts})


@pytest.fixture
def ended():
    """The number of a process that was."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_jobs_of_a_dead_daemon_are_taken_up_at_once(store, settings, ended):
    job = queued(store, settings, ONE)
    daemon = daemon_with(store, ended)
    store.claim(daemon, 600)
    assert recovery.recover(store) == [job.id]
    assert store.job(job.id).state is JobState.QUEUED
    assert store.daemons() == []
    assert recovery.recover(store) == []


def test_a_living_daemon_keeps_its_job(store, settings):
    job = queued(store, settings, ONE)
    store.claim(daemon_with(store, os.getpid()), 600)
    assert recovery.recover(store) == []
    assert store.job(job.id).state is JobState.RUNNING


def test_a_number_that_was_given_to_another_program_is_no_daemon(store, settings):
    job = queued(store, settings, ONE)
    store.claim(daemon_with(store, os.getpid(), began=recovery.identity()["began"] - 1), 600)
    assert recovery.recover(store) == [job.id]


def test_numbers_of_another_container_say_nothing(store, settings, ended):
    queued(store, settings, ONE)
    store.claim(daemon_with(store, ended, namespace="pid:[1]"), 600)
    assert recovery.recover(store) == []


def test_after_a_restart_of_the_machine_silence_decides(store, settings, ended, monkeypatch):
    """Or it is another machine of the same name, whose daemon lives."""
    job = queued(store, settings, ONE)
    store.claim(daemon_with(store, ended, boot="another"), 600)
    assert recovery.recover(store) == []
    (daemon,) = store.daemons()
    assert recovery.is_dead(daemon, daemon.heartbeat + 2 * recovery.ELSEWHERE)
    monkeypatch.setattr(recovery, "ELSEWHERE", -recovery.ELSEWHERE)
    assert recovery.recover(store) == [job.id]


# -- files


def spool_of(settings, fingerprint):
    folder = settings.jobs.state / "spool" / f"{fingerprint[:20]}-{KEY}"
    folder.mkdir(parents=True)
    (folder / "0-0.block").write_bytes(b"block")
    return folder


def partial_of(settings, fingerprint, attempt=".0123abcd-4567ef01"):
    """The partial output of an attempt; of older versions, which had one for all attempts, without one."""
    file = settings.output.folder / "deep" / "down" / f".{fingerprint[:20]}-{KEY}{attempt}.part"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"half a slide")
    return file


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_what_a_waiting_job_will_go_on_from_is_kept(store, settings):
    queued(store, settings, ONE)
    kept = spool_of(settings, ONE)
    age(kept, 1e7)
    assert recovery.sweep(settings, store) == []
    assert kept.exists()


@pytest.mark.parametrize("attempt", [".0123abcd-4567ef01", ""])
def test_a_partial_output_is_kept_while_somebody_may_write_it_and_no_longer(store, settings, attempt, end_job):
    """No attempt resumes that of another daemon: each would leave gigabytes behind."""
    job = queued(store, settings, ONE)
    daemon = store.register_daemon()
    store.claim(daemon, 600)
    partial = partial_of(settings, ONE, attempt)
    age(partial, 1e7)
    assert recovery.sweep(settings, store) == []
    assert partial.exists()
    store.release(job.id, daemon, "stopping")
    assert len(recovery.sweep(settings, store)) == 1
    assert not partial.exists()
    end_job(store, job.id, VerificationFailed())
    partial = partial_of(settings, ONE, attempt)
    assert len(recovery.sweep(settings, store)) == 1
    assert not partial.exists()


def test_what_a_failed_job_left_is_kept_for_a_retry(store, settings, end_job):
    end_job(store, queued(store, settings, ONE).id, VerificationFailed())
    folder = spool_of(settings, ONE)
    assert recovery.sweep(settings, store) == []
    assert folder.exists()


@pytest.mark.parametrize("attempt", [".0123abcd-4567ef01", ""])
@pytest.mark.parametrize("fingerprint", [ONE, OTHER])
def test_what_nobody_wants_is_removed_and_said(store, settings, fingerprint, attempt, caplog):
    daemon = store.register_daemon()
    queued(store, settings, ONE)
    job = store.claim(daemon, 600)
    store.finish(job.id, daemon, verdict="pass", reasons=[], metrics={}, output="/o", output_sha256="0")
    store.cancel(queued(store, settings, OTHER, "b.tiff").id, "person:cli")
    spool, partial = spool_of(settings, fingerprint), partial_of(settings, fingerprint, attempt)
    said = recovery.sweep(settings, store)
    # The cancelled one's blocks may be wanted again.
    assert spool.exists() == (fingerprint == OTHER)
    assert not partial.exists()
    assert len(said) == (1 if fingerprint == OTHER else 2)
    assert all(line in caplog.text for line in said)


def test_what_this_database_does_not_know_is_left_for_a_day(store, settings):
    paths = [spool_of(settings, UNKNOWN), partial_of(settings, UNKNOWN)]
    assert recovery.sweep(settings, store) == []
    assert all(path.exists() for path in paths)
    for path in paths:
        age(path, 2 * recovery.STRANGE_SECONDS)
    assert len(recovery.sweep(settings, store)) == 2
    assert not any(path.exists() for path in paths)


def test_other_files_are_never_touched(store, settings):
    names = [".hidden.part", "x.part", f".{ONE[:20]}-{KEY}.part.tiff", f".{ONE[:19]}-{KEY}.part", "slide.denoised.tiff"]
    names += [f".{ONE[:20]}-{KEY}{attempt}.part" for attempt in (".", ".0123abcd", ".0123abcd-4567ef0", ".x-y", "-1")]
    settings.output.folder.mkdir(parents=True)
    files = [settings.output.folder / name for name in names]
    strange = settings.jobs.state / "spool" / "mine"
    strange.mkdir(parents=True)
    for path in files:
        path.write_text("x")
    for path in (*files, strange):
        age(path, 1e8)
    assert recovery.sweep(settings, store) == []
    assert all(path.exists() for path in (*files, strange))


# -- notes


def test_a_note_that_a_crash_kept_from_being_written(store, settings, end_job):
    error = UnreadableTile("level 0, x 512, y 1024: it says so.")
    job = end_job(store, queued(store, settings, ONE).id, error)
    (line,) = recovery.sweep(settings, store)
    assert f"job {job.id}" in line
    note = (settings.intake.quarantine / "a.tiff.txt").read_text()
    assert note.startswith(f"{error.happened}: level 0, x 512, y 1024: it says so")
    assert f"code: {error.code}" in note
    assert recovery.sweep(settings, store) == []


def test_no_note_for_what_is_gone_or_tried_again(store, settings, end_job):
    job = end_job(store, queued(store, settings, ONE).id, UnreadableTile())
    again = store.see(job.slide, job.relative, size_bytes=6, mtime_ns=2, preset="paper", origin="test")
    assert recovery.sweep(settings, store) == []
    store.forget(again.id, "gone")
    shutil.rmtree(settings.intake.inbox[0])
    assert recovery.sweep(settings, store) == []
    assert not settings.intake.quarantine.exists() or not list(settings.intake.quarantine.iterdir())


def test_a_slide_outside_an_inbox_gets_no_note(store, settings, tmp_path, end_job):
    (tmp_path / "archive").mkdir()
    settings.intake.inbox[0].mkdir()
    (settings.intake.inbox[0] / "link").symlink_to(tmp_path / "archive")
    names = [tmp_path / "archive/a.tiff", settings.intake.inbox[0] / "../archive/b.tiff", "link/c.tiff"]
    for name in names:
        end_job(store, queued(store, settings, ONE, name).id, UnreadableTile())
    assert recovery.sweep(settings, store) == []
    assert sorted(path.name for path in (tmp_path / "archive").iterdir()) == ["a.tiff", "b.tiff", "c.tiff"]
    assert not settings.intake.quarantine.exists()


@pytest.mark.parametrize("size", [5, 6])
def test_another_file_at_the_path_of_a_quarantined_one_gets_no_note(store, settings, size, end_job):
    job = end_job(store, queued(store, settings, ONE).id, UnreadableTile())
    slide = Path(job.slide)
    slide.write_bytes(bytes(size))
    age(slide, -10)
    assert recovery.sweep(settings, store) == []
    assert slide.read_bytes() == bytes(size)
    assert not settings.intake.quarantine.exists()


@pytest.mark.parametrize("detail", ["", "x 1", "it ends. here", "with: colons"])
def test_an_error_comes_back_from_the_record(store, settings, detail, end_job):
    job = end_job(store, queued(store, settings, ONE).id, UnreadableTile(detail))
    found = recovery.error_of(job)
    assert type(found) is UnreadableTile
    assert str(found).rstrip(".") == str(UnreadableTile(detail.rstrip("."))).rstrip(".")


def test_an_error_of_another_version_keeps_its_text(store, settings, end_job):
    class Other(UnreadableTile):
        code = "not known any more"
        happened = "Something else"

    job = end_job(store, queued(store, settings, ONE).id, Other("x 1"))
    assert "Something else: x 1" in str(recovery.error_of(job))
    assert datetime.now(UTC) >= job.finished
    assert Path(job.slide).exists()
