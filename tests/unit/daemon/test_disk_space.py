"""Reservations of disk space, and the pause while the disk is full."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from wsi_denoise.daemon import disk_space, pauses
from wsi_denoise.daemon.disk_space import Hold, Need, Promises
from wsi_denoise.daemon.pauses import Pauses, lift_stale
from wsi_denoise.errors import DatabaseFull, DiskFull, OutputUnwritable
from wsi_denoise.jobs import pruning
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.processing import publish
from wsi_denoise.settings import OutputSettings, Settings, load
from wsi_denoise.system import disk, process


@pytest.fixture
def room(monkeypatch):
    """What the system says is free, in bytes."""
    free = SimpleNamespace(bytes=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=free.bytes))
    return free


def test_what_does_not_fit_is_refused_with_figures(room, tmp_path):
    promises = Promises(tmp_path / "space", kept=100)
    promises.reserve([Need(tmp_path, 600), Need(tmp_path / "not" / "there", 300)])
    with pytest.raises(DiskFull, match=r"needed in .*, .* are free"):
        promises.reserve([Need(tmp_path, 600), Need(tmp_path, 301)])


def test_what_others_were_promised_is_not_free(room, tmp_path):
    promises = Promises(tmp_path / "space", kept=0)
    device = tmp_path.stat().st_dev
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        theirs = tmp_path / "space" / f"{socket.gethostname()}-{other.pid}.json"
        theirs.parent.mkdir()
        theirs.write_text(json.dumps({str(device): 700}))
        promises.reserve([Need(tmp_path, 300)])
        with pytest.raises(DiskFull, match="promised to other slides"):
            promises.reserve([Need(tmp_path, 301)])
        other.communicate(b"\n")
    # A daemon that was killed promises nothing any more.
    promises.reserve([Need(tmp_path, 1000)])
    assert not theirs.exists()


OTHER_PROCESS = [
    ({}, True),
    ({"process": {}}, True),
    ({"process": {"began": 1}}, False),
    ({"process": {"boot": "another"}}, False),
    ({"process": {"namespace": "a container's", "began": 1}}, True),
]


@pytest.mark.parametrize(("whose", "believed"), OTHER_PROCESS)
def test_a_promise_to_a_process_whose_number_is_another_ones_now_is_over(room, tmp_path, whose, believed):
    """Files of an earlier version do not say whose they are, and are believed while anybody has the number."""
    promises = Promises(tmp_path / "space", kept=0)
    alive = os.getppid()
    theirs = tmp_path / "space" / f"{socket.gethostname()}-{alive}.json"
    theirs.parent.mkdir()
    known = {"process": {**process.identity(), "began": process.began(alive), **whose["process"]}} if whose else {}
    theirs.write_text(json.dumps({str(tmp_path.stat().st_dev): 700, **known}))
    missing = promises.missing([Need(tmp_path, 301)])
    assert ("promised to other slides" in missing) is believed
    assert theirs.exists() is believed


def test_a_promise_of_a_container_is_over_when_it_is_silent_for_long(room, tmp_path):
    theirs = tmp_path / "space" / f"{socket.gethostname()}-{os.getppid()}.json"
    theirs.parent.mkdir()
    theirs.write_text(json.dumps({"process": {**process.identity(), "namespace": "a container's"}}))
    os.utime(theirs, (0, 0))
    assert not Promises(tmp_path / "space", kept=0).missing([Need(tmp_path, 1000)])
    assert not theirs.exists()


def test_what_daemons_of_other_working_folders_were_promised_is_not_free(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    room = shutil.disk_usage(tmp_path).free
    settings = load(folder=tmp_path / "ours", environ={}).settings
    need = [Need(tmp_path, room // 2)]
    code = """if True:
        import pathlib, sys
        from wsi_denoise import settings
        from wsi_denoise.daemon import disk_space
        folder = pathlib.Path(sys.argv[1])
        promises = disk_space.promises(settings.load(folder=folder, environ={}).settings)
        promises.reserve([disk_space.Need(folder, int(sys.argv[2]))])
        print("reserved", flush=True)
        input()
    """
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "theirs", str(room // 4 * 3)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "reserved\n"
        with pytest.raises(DiskFull, match="promised to other slides"):
            disk_space.promises(settings).reserve(need)
        other.kill()
    disk_space.promises(settings).reserve(need)
    disk_space.promises(settings).release()


def test_a_folder_of_promises_that_somebody_else_may_write_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shared = tmp_path / f"wsi-denoise-{os.getuid()}"
    assert disk_space.shared_folder() == shared / "space"
    shared.chmod(0o777)
    assert disk_space.shared_folder() is None
    shared.rmdir()
    (tmp_path / "elsewhere").mkdir()
    shared.symlink_to(tmp_path / "elsewhere")
    assert disk_space.shared_folder() is None


def test_what_is_written_by_now_is_not_promised_twice(room, tmp_path):
    promises = Promises(tmp_path / "space", kept=0)
    promises.reserve([Need(tmp_path, 400, by_block=True), Need(tmp_path, 200)])
    (file,) = (tmp_path / "space").glob("*.json")

    def promised() -> int:
        return sum(size for device, size in json.loads(file.read_text()).items() if device != "process")

    assert promised() == 600
    promises.keep(0.25)
    assert promised() == 300
    promises.keep(0.0)
    assert promised() == 200
    assert [need.size for need in promises.left()] == [0, 200]
    promises.release()
    assert not file.exists()


def test_estimates_grow_with_quality_and_are_not_below_what_was_measured():
    sizes = [disk_space.estimate(1000, 1000, OutputSettings(quality=quality)) for quality in (50, 75, 80, 95, 100)]
    assert sizes == sorted(sizes)
    assert sizes[3][1] >= 0.61 * 1.34 * 1e6  # the largest of the slides in docs/evidence/compression.md
    assert disk_space.estimate(1000, 1000, OutputSettings(compression="deflate"))[1] >= 2.5e6


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EACCES, OutputUnwritable)]
)
def test_errors_of_the_system(number, kind):
    assert type(disk.write_error(OSError(number, os.strerror(number)), Path("/out"))) is kind


class Waiting:
    """A queued job in a real store, and a clock for the hold."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(disk_space.time, "monotonic", lambda: self.now)
        self.store = JobStore(f"sqlite:///{folder / 'jobs.sqlite'}")
        self.store.upgrade()
        self.daemon = self.store.register_daemon()
        job = self.store.see(folder / "a", "a", size_bytes=1, mtime_ns=1, preset="paper", origin="test")
        common = {"settings": {}, "settings_hash": "s", "preset": "paper", "origin": "test"}
        self.job = self.store.queue(job.id, fingerprint="f", **common)
        self.told = 0
        self.promises = Promises(folder / "space", kept=0)
        self.hold = Hold(self.store, f"daemon:{self.daemon}", self.promises, on_pause=self._tell)
        self.needs = [Need(folder, 2000)]

    def _tell(self) -> None:
        self.told += 1


@pytest.fixture
def waiting(tmp_path, monkeypatch, room):
    made = Waiting(tmp_path, monkeypatch)
    yield made
    made.store.close()


def test_the_queue_is_paused_until_there_is_room(waiting, room):
    assert not waiting.hold.look()
    waiting.hold.begin(waiting.job.id, DiskFull("2 kB needed"), waiting.needs)
    assert "2 kB needed" in waiting.store.paused()
    assert waiting.store.claim(waiting.daemon, 60) is None
    waiting.now = 100.0
    assert waiting.hold.look()
    room.bytes = 2000
    waiting.now = 200.0
    assert not waiting.hold.look()
    assert waiting.store.paused() is None
    assert waiting.store.claim(waiting.daemon, 60).id == waiting.job.id
    assert waiting.told == 1


def test_room_that_was_not_enough_after_all_is_waited_for_longer_each_time(waiting, room):
    room.bytes = 10_000  # a quota: free for others
    waits = []
    for _ in range(9):
        begun = waiting.now
        waiting.hold.begin(waiting.job.id, DiskFull("in /out"), waiting.needs)
        while waiting.hold.look():
            waiting.now += 1.0
        waits.append(waiting.now - begun)
    assert waits[:3] == [5.0, 10.0, 20.0]
    assert waits[-1] == 300.0
    waiting.hold.finished()
    waiting.hold.begin(waiting.job.id, DiskFull("in /out"), waiting.needs)
    waiting.now += 5.0
    assert not waiting.hold.look()


def test_a_job_that_nobody_wants_any_more_holds_nothing_up(waiting):
    waiting.hold.begin(waiting.job.id, DiskFull("x"), waiting.needs)
    waiting.store.cancel(waiting.job.id, "person:test")
    waiting.now = 100.0
    assert not waiting.hold.look()
    assert waiting.store.paused() is None


def test_a_person_may_lift_the_pause(waiting):
    waiting.hold.begin(waiting.job.id, DiskFull("x"), waiting.needs)
    waiting.store.resume("person:test")
    waiting.now = 100.0
    assert not waiting.hold.look()


OTHERS = ("daemon:1:quiet", "daemon:77", "daemon:77:quiet", "person:page")


def test_only_its_own_pause_is_lifted(waiting, room):
    waiting.hold.begin(waiting.job.id, DiskFull("x"), waiting.needs)
    assert waiting.hold._origin == "daemon:1"
    for origin in OTHERS:
        waiting.store.pause(origin, "why")
    room.bytes = 2000
    waiting.now = 100.0
    assert not waiting.hold.look()
    assert set(waiting.store.pauses()) == set(OTHERS)
    assert waiting.store.claim(waiting.daemon, 60) is None


def test_a_person_may_lift_the_pause_though_another_daemon_begins_one(waiting):
    waiting.hold.begin(waiting.job.id, DiskFull("x"), waiting.needs)
    waiting.store.resume("person:test")
    waiting.store.pause("daemon:77", "there is no room there either")
    waiting.now = 100.0
    assert not waiting.hold.look()
    assert set(waiting.store.pauses()) == {"daemon:77"}


def test_a_job_that_is_not_in_the_record_any_more_holds_nothing_up(waiting):
    waiting.hold.begin(waiting.job.id, DiskFull("x"), waiting.needs)
    waiting.store.cancel(waiting.job.id, "person:test")
    assert pruning.remove(waiting.store, [waiting.job.id], "retention", datetime.now(UTC)) == 1
    waiting.now = 100.0
    assert not waiting.hold.look()
    assert waiting.store.paused() is None


def test_a_pause_that_the_database_does_not_take_is_written_down_later(waiting, monkeypatch):
    full = [True]
    pause = waiting.store.pause

    def refuse(*args):
        if full[0]:
            raise DatabaseFull("jobs.sqlite")
        return pause(*args)

    monkeypatch.setattr(waiting.store, "pause", refuse)
    waiting.hold.begin(waiting.job.id, DiskFull("x"), waiting.needs)
    waiting.now = 100.0
    assert waiting.hold.look()
    assert waiting.store.paused() is None
    full[0] = False
    waiting.now = 200.0
    assert waiting.hold.look()
    assert waiting.store.paused() is not None


def test_a_pause_does_not_outlast_its_daemon(tmp_path):
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    store.upgrade()
    try:
        gone, here, there = (store.register_daemon() for _ in range(3))
        for origin in (f"daemon:{gone}", f"daemon:{gone}:quiet", f"daemon:{here}", "person:page"):
            store.pause(origin, "why")
        store.stop_daemon(gone)
        assert lift_stale(store) == [f"daemon:{gone}", f"daemon:{gone}:quiet"]
        with Pauses(Settings(), store, here).lifted():
            assert set(store.pauses()) == {f"daemon:{here}", "person:page"}
        assert set(store.pauses()) == {"person:page"}
        store.pause(f"daemon:{there}:quiet", "why")
        assert lift_stale(store, datetime.now(UTC) + timedelta(hours=1)) == [f"daemon:{there}:quiet"]
        assert store.paused() == "why"
    finally:
        store.close()


def test_a_pause_of_a_daemon_that_died_is_lifted_by_any_that_lives(tmp_path, monkeypatch):
    clock = SimpleNamespace(wall=datetime.now(UTC) - timedelta(hours=1), steady=0.0)
    monkeypatch.setattr(pauses.time, "monotonic", lambda: clock.steady)
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", clock=lambda: clock.wall)
    store.upgrade()
    try:
        gone, slept, here = (store.register_daemon() for _ in range(3))
        clock.wall = datetime.now(UTC)
        there = store.register_daemon()
        kept = {f"daemon:{here}", f"daemon:{there}:quiet", f"daemon:{slept}:quiet", "person:page"}
        ours = Pauses(Settings(), store, here)
        for origin in (*kept, f"daemon:{gone}", f"daemon:{gone}:quiet"):
            store.pause(origin, "why")
        clock.steady = 1.5 * pauses.OTHERS_SECONDS
        assert not ours.look()
        assert len(store.pauses()) == len(kept) + 2  # all may have slept, or the database been away
        store.heartbeat(slept, None, 60)
        assert not ours.look()
        assert len(store.pauses()) == len(kept) + 2
        clock.steady = 3.0 * pauses.OTHERS_SECONDS
        assert not ours.look()
        assert set(store.pauses()) == kept
    finally:
        store.close()


def test_settings_say_where_and_how_much():
    settings = Settings()
    spool, output = disk_space.needs(settings, 1000, 1000, share=0.5)
    assert (spool.folder, output.folder) == (settings.jobs.state, settings.output.folder)
    assert spool.size == disk_space.estimate(1000, 1000, settings.output)[0] // 2
    assert output.size == disk_space.estimate(1000, 1000, settings.output)[1]


def test_publishing_without_room_says_so_and_leaves_no_final_name(tmp_path, monkeypatch):
    part, target = tmp_path / ".work.part", tmp_path / "a.svs.denoised.tiff"
    part.write_bytes(b"verified")
    real = os.rename, os.link

    def refuse(*_args, **_named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # Names need room too: a directory that has to grow, or the last inode.
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(DiskFull):
        publish.publish(part, target, {})
    assert not target.exists()
    monkeypatch.setattr(os, "link", real[1])
    publish.publish(part, target, {})
    assert target.read_bytes() == b"verified"
