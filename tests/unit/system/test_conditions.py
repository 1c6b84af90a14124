"""A condition that lasts is logged when it begins, changes and ends, and not at each check in between."""

import logging
import os
import sqlite3
import threading
import time
from contextlib import closing, contextmanager

import pytest

from wsi_denoise.daemon.heartbeat import Heartbeat
from wsi_denoise.daemon.service import Daemon
from wsi_denoise.errors import DatabaseBusy, DatabaseUnreachable
from wsi_denoise.intake.scan import Scanner
from wsi_denoise.intake.watcher import Watcher
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.settings import load
from wsi_denoise.system.conditions import Conditions

PATIENCE = 120.0


@pytest.fixture
def loaded(tmp_path):
    fast = {"intake.scan_seconds": 0.01, "intake.events": False, "jobs.heartbeat_seconds": 0.01}
    return load(folder=tmp_path, environ={}, overrides=fast)


@pytest.fixture
def store(loaded):
    made = JobStore(loaded.settings.database_url)
    made.upgrade()
    yield made
    made.close()


def lines(caplog, level=logging.WARNING):
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def without(store, table):
    """The database fails, as one does that is away."""
    with closing(sqlite3.connect(store.file)) as connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO away")
        yield
        connection.execute(f"ALTER TABLE away RENAME TO {table}")


@contextmanager
def intake(loaded, store):
    """The daemon's intake, without a cluster; gives how often it has scanned."""
    daemon, stop, scans = Daemon(loaded, store, say=lambda _text: None), threading.Event(), []
    watcher = Watcher(loaded.settings, store, probe=lambda _path: None, origin="daemon:1")
    scan = watcher._scanner.scan

    def counted():
        scans.append(None)
        return scan()

    watcher._scanner.scan = counted
    thread = threading.Thread(target=daemon._intake, args=(watcher, stop))
    thread.start()
    try:
        yield scans
    finally:
        stop.set()
        watcher.close()
        thread.join(PATIENCE)


def test_an_inbox_that_is_away_is_logged_once(loaded, store, caplog):
    caplog.set_level(logging.INFO)
    inbox = loaded.settings.intake.inbox[0]
    with intake(loaded, store) as scans:
        for _ in range(2):
            caplog.clear()
            until(lambda: lines(caplog))
            begun = len(scans)
            until(lambda begun=begun: len(scans) > begun + 20)
            assert len(lines(caplog)) == 1
            assert str(inbox) in lines(caplog)[0]
            caplog.clear()
            inbox.mkdir()
            until(lambda: any("can be read again" in line for line in lines(caplog, logging.INFO)))
            inbox.rmdir()


def test_a_database_that_is_away_is_logged_once_by_intake(loaded, store, caplog):
    caplog.set_level(logging.INFO)
    loaded.settings.intake.inbox[0].mkdir()
    (loaded.settings.intake.inbox[0] / "a.svs").write_bytes(b"a slide, perhaps")
    with intake(loaded, store) as scans:
        until(lambda: len(scans) > 3)
        caplog.clear()
        with without(store, "slides"):
            until(lambda: lines(caplog))
            begun = len(scans)
            until(lambda: len(scans) > begun + 20)
            assert len(lines(caplog)) == 1
        caplog.clear()
        until(lambda: any("intake: works again" in line for line in lines(caplog, logging.INFO)))


def test_a_database_that_is_away_is_logged_once_by_the_heartbeat(loaded, store, caplog):
    caplog.set_level(logging.INFO)
    daemon = store.register_daemon()
    with Heartbeat(store, daemon, loaded.settings):
        with without(store, "daemons"):
            until(lambda: lines(caplog))
            time.sleep(0.5)
            assert len(lines(caplog)) == 1
        until(lambda: any("heartbeat: works again" in line for line in lines(caplog, logging.INFO)))


def test_a_file_that_grows_and_is_no_slide_is_logged_once(loaded, caplog):
    caplog.set_level(logging.INFO)
    inbox = loaded.settings.intake.inbox[0]
    inbox.mkdir()
    scanner, file = Scanner(loaded.settings), inbox / "scanner.txt"
    for _ in range(5):
        with file.open("a") as opened:
            opened.write("a line\n")
        scanner.scan()
    assert len([line for line in lines(caplog, logging.INFO) if "scanner.txt" in line]) == 1
    inbox.rename(inbox.with_name("away"))
    scanner.scan()
    os.rename(inbox.with_name("away"), inbox)  # noqa: PTH104
    scanner.scan()
    assert len([line for line in lines(caplog, logging.INFO) if "scanner.txt" in line]) == 1


def test_a_change_of_the_failure_and_its_end_are_logged(caplog):
    caplog.set_level(logging.INFO)
    conditions = Conditions(logging.getLogger("test"))
    assert [conditions.failed("queue", DatabaseBusy(f"waited {number} s")) for number in (1, 2, 3)] == [True, 0, 0]
    assert conditions.failed("queue", DatabaseUnreachable())
    assert conditions.failed("intake", DatabaseUnreachable())
    conditions.works("queue")
    conditions.works("queue")
    assert conditions.failed("queue", DatabaseUnreachable())
    shown = [line.split(":")[0] for line in lines(caplog, logging.INFO)]
    assert shown == ["queue", "queue", "intake", "queue", "queue"]
    assert "works again after 4 failures" in lines(caplog, logging.INFO)[3]


def test_an_unforeseen_error_is_logged_with_its_traceback_once(caplog):
    conditions = Conditions(logging.getLogger("test"))
    for number in (1, 2, 3):
        try:
            number / 0
        except ZeroDivisionError as error:
            conditions.failed("queue", error)
    (record,) = caplog.records
    assert record.exc_info[0] is ZeroDivisionError
