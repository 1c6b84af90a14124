"""Backup, retention, and the mode of outputs: what runs beside the slides for months."""

import os
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from wsi_denoise.daemon import retention
from wsi_denoise.errors import NotASlide, OutputUnwritable, SettingsInvalid, UsageError, WorkerLost
from wsi_denoise.jobs.database import backup, upgrades
from wsi_denoise.jobs.database.engine import Database
from wsi_denoise.jobs.database.models import HEAD, JobRow
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.processing.dask import cluster
from wsi_denoise.settings import ComputeSettings, OutputSettings, Settings, load
from wsi_denoise.system import permissions

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Lab:
    """A working folder with a store whose clock stands where it is put."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, NOW
        self.settings = load(folder=folder, environ={}).settings
        self.store = JobStore(self.settings.database_url, clock=lambda: self.now)
        self.store.upgrade()
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        self.daemon = self.store.register_daemon()
        self.count = 0

    def job(self, name: str, *, age: float = 0.0, end: str = "done"):
        """A job that ended some days ago, with its file in place."""
        self.now = NOW - timedelta(days=age)
        path = self.inbox / name
        path.write_bytes(name.encode())
        seen = self.store.see(path, name, size_bytes=1, mtime_ns=1, preset="paper", origin="test")
        self.count += 1
        fingerprint = f"{self.count:064x}"[::-1]
        common = {"settings": {}, "settings_hash": "s", "preset": "paper", "origin": "test"}
        job = self.store.queue(seen.id, fingerprint=fingerprint, **common)
        if end != "queued":
            job = self.store.claim(self.daemon, 60, only=job.id)
        if end == "done":
            output = self.folder / "denoised" / f"{name}.denoised.tiff"
            output.parent.mkdir(exist_ok=True)
            output.write_bytes(b"tiff")
            maps = self.settings.jobs.state / "maps" / f"{job.id}.npz"
            maps.parent.mkdir(exist_ok=True, parents=True)
            maps.write_bytes(b"maps")
            facts = {"verdict": "pass", "reasons": [], "metrics": {"psnr": 30.0}, "output": output}
            job = self.store.finish(job.id, self.daemon, output_sha256="0", maps=maps, **facts)
        elif end == "failed":
            job = self.store.fail(job.id, WorkerLost(), f"daemon:{self.daemon}", holder=self.daemon)
        elif end == "quarantined":
            job = self.store.quarantine(job.id, NotASlide(), f"daemon:{self.daemon}", holder=self.daemon)
        self.now = NOW
        return job

    def spool(self, job, *, age: float) -> Path:
        folder = self.settings.jobs.state / "spool" / f"{job.fingerprint[:20]}-{'0' * 20}"
        folder.mkdir(parents=True)
        (folder / "0-0.block").write_bytes(bytes(1000))
        changed = (NOW - timedelta(days=age)).timestamp()
        os.utime(folder, (changed, changed))
        return folder

    def tidy(self, *, dry: bool = False, **values: float) -> retention.Tidied:
        settings = self.settings.with_values({f"jobs.{name}": value for name, value in values.items()})
        return retention.tidy(settings, self.store, NOW, origin="test", dry=dry)


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path)
    yield made
    made.store.close()


# -- retention


def test_by_default_no_record_is_ever_removed_and_blocks_of_failed_jobs_after_two_weeks(lab):
    old = lab.spool(lab.job("old.svs", end="failed"), age=15)
    young = lab.spool(lab.job("young.svs", end="failed"), age=13)
    waiting = lab.spool(lab.job("waiting.svs", end="queued"), age=100)
    lab.job("ancient.svs", age=5000)
    other = lab.settings.jobs.state / "spool" / "somebody-else"
    other.mkdir()
    os.utime(other, (0, 0))
    seen = lab.tidy(dry=True)
    assert (seen.spools, seen.size, seen.jobs) == ((old,), 1000, ())
    assert old.exists()
    assert lab.tidy() == seen
    assert not old.exists()
    assert all(folder.exists() for folder in (young, waiting, other))
    assert not lab.tidy()


@pytest.mark.parametrize("days", [999_999, 1e300])
def test_longer_than_the_calendar_is_for_ever(lab, days):
    spool = lab.spool(lab.job("old.svs", age=5000, end="failed"), age=5000)
    (lab.inbox / "old.svs").unlink()
    lab.job("other.svs")
    assert not lab.tidy(keep_days=days, keep_spool_days=days)
    assert not lab.tidy(keep_days=0, keep_spool_days=days)
    assert lab.tidy(keep_days=30, keep_spool_days=days).jobs
    assert spool.exists()
    assert lab.tidy(keep_days=days).spools == (spool,)


def test_the_record_of_what_is_still_there_stays(lab):
    here, no_output, gone = lab.job("here.svs", age=50), lab.job("no_output.svs", age=50), lab.job("gone.svs", age=50)
    young = lab.job("young.svs", age=5)
    for job in (no_output, gone, young):
        Path(job.output).unlink()
    for job in (here, gone, young):
        Path(job.slide).unlink()
    # here: its output could not be verified any more; no_output: its slide would be taken for a new one.
    assert lab.tidy(keep_days=30).jobs == (gone.id,)
    assert {job.id for job in lab.store.jobs().jobs} == {here.id, no_output.id, young.id}
    assert Path(here.output).exists()
    assert Path(no_output.slide).exists()
    assert not Path(gone.maps).exists()
    assert Path(young.maps).exists()
    assert "tidied" in [event.kind for event in lab.store.events()]


def test_a_superseded_job_goes_and_what_others_refer_to_stays(lab):
    first = lab.job("a.svs", age=50, end="quarantined")
    newest = lab.job("a.svs", age=40, end="quarantined")
    assert lab.tidy(keep_days=30).jobs == (first.id,)
    done = lab.job("b.svs", age=50)
    seen = lab.store.see("/elsewhere/c.svs", "c.svs", size_bytes=1, mtime_ns=1, preset="paper", origin="test")
    common = {"settings": {}, "settings_hash": "s", "preset": "paper", "origin": "test"}
    assert lab.store.queue(seen.id, fingerprint=done.fingerprint, **common).duplicate_of == done.id
    Path(done.slide).unlink()
    Path(done.output).unlink()
    assert lab.tidy(keep_days=30).jobs == ()
    assert lab.store.job(newest.id).id == newest.id


def test_a_trial_does_not_stand_for_a_slide_that_is_still_there(lab):
    done = lab.job("a.svs", age=50)
    Path(done.output).unlink()
    stat = {"size_bytes": 1, "mtime_ns": 1}
    lab.store.see(done.slide, "a.svs", **stat, preset="paper", origin="person:cli", region=(0, 0, 9, 9))
    assert lab.tidy(keep_days=30).jobs == ()


@pytest.mark.parametrize("left", ["nothing", "the mount point"])
def test_a_share_with_originals_that_is_not_mounted_is_not_gone(lab, left):
    job, other = lab.job("a.svs", age=50), lab.job("b.svs", age=50)
    Path(job.output).unlink()
    away = lab.inbox.rename(lab.folder / "away")
    if left == "the mount point":
        lab.inbox.mkdir()
    assert lab.tidy(keep_days=30).jobs == ()
    if left == "the mount point":
        lab.inbox.rmdir()
    away.rename(lab.inbox)
    assert lab.tidy(keep_days=30).jobs == ()
    Path(job.slide).unlink()
    assert lab.tidy(keep_days=30).jobs == (job.id,)
    assert lab.store.job(other.id).id == other.id


@pytest.mark.parametrize("left", ["nothing", "the mount point"])
def test_a_share_with_outputs_that_is_not_mounted_is_not_gone(lab, left):
    job, other = lab.job("a.svs", age=50), lab.job("b.svs", age=50)
    Path(job.slide).unlink()
    share = lab.folder / "denoised"
    away = share.rename(lab.folder / "away")
    if left == "the mount point":
        share.mkdir()
    assert lab.tidy(keep_days=30).jobs == ()
    if left == "the mount point":
        share.rmdir()
    away.rename(share)
    assert lab.tidy(keep_days=30).jobs == ()
    Path(job.output).unlink()
    assert lab.tidy(keep_days=30).jobs == (job.id,)
    assert lab.store.job(other.id).id == other.id


def test_a_share_with_both_that_is_not_mounted_is_not_gone(lab):
    """Outputs below the inbox, as on a share for everything."""
    lab.settings = lab.settings.with_values({"output.folder": str(lab.inbox / "denoised")})
    job = lab.job("a.svs", age=50)
    inside = lab.inbox / "denoised" / "a.svs.denoised.tiff"
    with lab.store.writing() as session:
        session.get(JobRow, job.id).output = str(inside)
    lab.inbox.rename(lab.folder / "away")
    lab.inbox.mkdir()
    assert lab.tidy(keep_days=30).jobs == ()


def test_a_daemon_tidies_once_a_day(lab, monkeypatch):
    calls = []
    monkeypatch.setattr(retention, "tidy", lambda *_args, **_named: calls.append(1))
    daily = retention.Tidying(lab.settings, lab.store, "daemon:1")
    for hours in (0, 1, 23, 25, 26, 49.5):
        daily.look(NOW + timedelta(hours=hours))
    daily.look(NOW - timedelta(days=400))  # a clock that was wrong
    assert len(calls) == 4


# -- backup


def test_a_backup_is_whole_while_others_write(lab, tmp_path):
    stop = threading.Event()
    names = iter(range(10_000))

    def write() -> None:
        while not stop.is_set():
            lab.store.see(f"/x/{next(names)}", "x", size_bytes=1, mtime_ns=1, preset="paper", origin="test")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        target = tmp_path / "backups" / "copy.sqlite"
        assert backup.backup(lab.store, target) == target.stat().st_size
    finally:
        stop.set()
        thread.join()
    assert list(target.parent.iterdir()) == [target]
    with sqlite3.connect(target) as copy:
        jobs, events = (copy.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("jobs", "events"))
    copy.close()
    assert events == jobs + 1
    restored = JobStore(f"sqlite:///{target}")
    try:
        restored.check()
        assert restored.jobs().total == jobs
    finally:
        restored.close()


def test_a_backup_replaces_nothing_and_leaves_nothing_half(lab, tmp_path):
    target = tmp_path / "copy.sqlite"
    target.write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists already"):
        backup.backup(lab.store, target)
    assert target.read_bytes() == b"mine"
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(OutputUnwritable):
        backup.backup(lab.store, file / "copy.sqlite")
    assert not [each for each in tmp_path.iterdir() if each.name.endswith(".part")]


def test_postgresql_has_its_own_tool(tmp_path):
    class Elsewhere(Database):
        def __init__(self) -> None:
            self.file = None

    with pytest.raises(UsageError, match="pg_dump"):
        backup.backup(Elsewhere(), tmp_path / "copy")


# -- mode


def test_outputs_and_new_folders_get_the_mode_and_others_keep_theirs(tmp_path):
    output = OutputSettings(mode="0640")
    old = tmp_path / "old"
    old.mkdir(mode=0o700)
    permissions.make_folder(old / "a" / "b", output)
    file = old / "a" / "b" / "slide.tiff"
    file.write_bytes(b"")
    permissions.give(file, output)
    assert [each.stat().st_mode & 0o777 for each in (old, old / "a", old / "a" / "b", file)] == [
        0o700,
        0o750,
        0o750,
        0o640,
    ]


def test_without_settings_the_umask_decides(tmp_path):
    old = os.umask(0o027)
    try:
        permissions.make_folder(tmp_path / "a", OutputSettings())
        (tmp_path / "a" / "file").write_bytes(b"")
        permissions.give(tmp_path / "a" / "file", OutputSettings())
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "a" / "file").stat().st_mode & 0o777 == 0o640


def test_a_mode_in_letters_is_refused():
    with pytest.raises(SettingsInvalid, match=r"output\.mode"):
        Settings().with_values({"output.mode": "rw-r--r--"})


def test_a_cap_on_cores():
    assert cluster.shape(ComputeSettings(cores=2), cores=16) == (2, 1)
    assert cluster.shape(ComputeSettings(cores=8), cores=16) == (4, 2)
    assert cluster.shape(ComputeSettings(cores=32), cores=16) == cluster.shape(ComputeSettings(), cores=16)


# -- upgrading while a daemon runs


def at_revision(store: JobStore, revision: str) -> None:
    with store.writing() as session:
        session.connection().exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")


def test_an_old_daemon_finishes_before_the_database_is_migrated(lab, monkeypatch):
    lab.now = datetime.now(UTC)
    old = lab.store.register_daemon(host="lab", pid=7, version="0.0.9")
    lab.store.stop_daemon(lab.daemon)
    at_revision(lab.store, "0000")
    told, upgraded = [], []
    looks = iter(range(100))

    def sleep(_seconds: float) -> None:
        assert not upgraded
        if next(looks) == 3:
            at_revision(lab.store, HEAD)  # as the old program knows its tables
            lab.store.stop_daemon(old)
            at_revision(lab.store, "0000")

    monkeypatch.setattr(upgrades.time, "sleep", sleep)
    monkeypatch.setattr(lab.store, "upgrade", lambda: upgraded.append(1))
    upgrades.upgrade(lab.store, told.append)
    assert upgraded == [1]
    assert told == ["the database is upgraded once these have stopped: daemon 2 of version 0.0.9 (lab, process 7)"]


def test_nobody_is_waited_for_without_need(lab):
    now = datetime.now(UTC)
    lab.now = now
    lab.store.register_daemon()
    assert upgrades.running(lab.store, now) == []  # of the same revision: several may work
    at_revision(lab.store, "0000")
    assert len(upgrades.running(lab.store, now)) == 1
    assert upgrades.running(lab.store, now + timedelta(minutes=2)) == []  # it died without a word
    nowhere = JobStore(f"sqlite:///{lab.folder / 'nowhere.sqlite'}")
    assert upgrades.running(nowhere, now) == []
    nowhere.close()
