"""The state folder, or the database in it, is removed or replaced while the program uses it."""

import logging
import os
import shutil
import sqlite3
import threading

import pytest

from wsi_denoise.cli import app
from wsi_denoise.daemon.folders import MarkedFolder
from wsi_denoise.daemon.service import Daemon
from wsi_denoise.errors import DatabaseReplaced, OutputUnwritable
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.processing.spool import Spool
from wsi_denoise.settings import load
from wsi_denoise.system import logs

KNOWN = {"preset": "paper", "origin": "test"}


@pytest.fixture
def settings(tmp_path):
    return load(folder=tmp_path, environ={}).settings


def queued(store):
    seen = store.see("/inbox/a.svs", "a.svs", size_bytes=1, mtime_ns=1, **KNOWN)
    return store.queue(seen.id, fingerprint="f", settings={}, settings_hash="s", **KNOWN)


def removed(state):
    shutil.rmtree(state)


def file_removed(state):
    for file in state.glob("jobs.sqlite*"):
        file.unlink()


def replaced_by_a_backup(state):
    with sqlite3.connect(state / "jobs.sqlite") as old, sqlite3.connect(state / "copy") as new:
        old.backup(new)
    old.close()
    new.close()
    (state / "copy").replace(state / "jobs.sqlite")


def replaced_by_an_empty_folder(state):
    state.rename(state.with_name("moved"))
    state.mkdir()


def replaced_by_a_new_database(state):
    shutil.rmtree(state)
    other = JobStore(f"sqlite:///{state / 'jobs.sqlite'}")
    other.upgrade()
    other.close()


WAYS = [removed, file_removed, replaced_by_a_backup, replaced_by_an_empty_folder, replaced_by_a_new_database]


@pytest.mark.parametrize("way", WAYS)
def test_no_job_is_claimed_and_nothing_is_written_any_more(settings, store, way):
    job = queued(store)
    daemon = store.register_daemon()
    way(settings.jobs.state)
    for call in (
        lambda: store.claim(daemon, 60),
        lambda: store.heartbeat(daemon, None, 60),
        lambda: store.pause("person:cli"),
        lambda: store.cancel(job.id, "person:cli"),
        store.jobs,
    ):
        with pytest.raises(DatabaseReplaced, match=r"jobs\.sqlite"):
            call()
    made = {file.name for file in settings.jobs.state.glob("*")} if settings.jobs.state.exists() else set()
    assert made <= {"jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm"}
    assert way is not removed or not made


def test_a_new_connection_never_opens_another_file(settings, store):
    queued(store)
    identity = store._identity
    replaced_by_a_backup(settings.jobs.state)
    for engine in (store._reader, store._writer):
        engine.dispose()
        with pytest.raises(DatabaseReplaced), engine.connect():
            pass
    assert store._identity == identity


def test_a_database_that_is_put_back_is_used_again(settings, store):
    job = queued(store)
    state = settings.jobs.state
    state.rename(state.with_name("moved"))
    with pytest.raises(DatabaseReplaced):
        store.job(job.id)
    state.with_name("moved").rename(state)
    assert store.claim(store.register_daemon(), 60).id == job.id


def test_after_closing_the_database_that_is_there_is_opened(settings, store):
    queued(store)
    replaced_by_a_new_database(settings.jobs.state)
    store.close()
    assert store.jobs().total == 0


def test_the_daemon_says_so_once_and_takes_no_job(settings, store, tmp_path):
    queued(store)
    said = []
    daemon = Daemon(load(folder=tmp_path, environ={}), store, say=said.append)
    number = store.register_daemon()
    removed(settings.jobs.state)

    class Stop(threading.Event):
        waits = 0

        def wait(self, timeout=None):
            self.waits += 1
            if self.waits == 3:
                self.set()
            return self.is_set()

    class Cluster:
        def is_closed(self):
            return False

    class Pauses:
        def look(self):
            return False

    daemon._work(None, Cluster(), number, Stop(), Pauses())
    assert ["removed or replaced" in line for line in said] == [True]
    assert not settings.jobs.state.exists()


def test_finished_blocks_do_not_make_a_removed_state_folder_anew(settings):
    spool = Spool(settings.jobs.state / "spool" / "slide")
    with pytest.raises(FileNotFoundError):
        spool.make()
    settings.jobs.state.mkdir()
    spool.make()
    assert spool.folder.is_dir()


# -- the log


@pytest.fixture
def log(settings):
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    file = logs.setup(settings, "daemon", console=False)
    yield file
    for handler in [each for each in root.handlers if each not in before]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def test_a_log_file_that_was_removed_is_made_anew(log):
    for take_away in (log.unlink, lambda: log.rename(log.with_name("rotated")), lambda: shutil.rmtree(log.parent)):
        take_away()
        logging.getLogger("wsi_denoise").warning("still here")
        logging.getLogger("wsi_denoise").warning("and again")
        assert ["still here" in line for line in log.read_text().splitlines()] == [True, False]


def test_a_log_whose_folder_is_made_anew_is_still_of_one_process(log, settings):
    shutil.rmtree(log.parent)
    logging.getLogger("wsi_denoise").warning("still here")
    name, handle = logs._own_name(log.parent, "daemon")
    assert name == "daemon-2"
    logging.getLogger("wsi_denoise").warning("and again")
    assert len(log.read_text().splitlines()) == 2
    os.close(handle)


def test_the_log_does_not_make_a_removed_state_folder_anew(log, settings, capsys):
    shutil.rmtree(settings.jobs.state)
    logging.getLogger("wsi_denoise").warning("nowhere")
    assert not settings.jobs.state.exists()
    assert capsys.readouterr().err == ""
    settings.jobs.state.mkdir()
    logging.getLogger("wsi_denoise").warning("back")
    assert "back" in log.read_text()


# -- confirming


def test_an_output_folder_is_confirmed_on_the_command_line(settings, store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = MarkedFolder(tmp_path / "out", store)
    folder.check()
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(OutputUnwritable):
        folder.check()
    assert app.run(["confirm", "elsewhere"]) == 2
    assert str(tmp_path / "out") in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()
    assert app.run(["confirm", "out"]) == 0
    folder.check()
    shutil.rmtree(tmp_path / "out")
    assert app.run(["confirm", "--output", "out", "--json"]) == 0
    folder.check()
