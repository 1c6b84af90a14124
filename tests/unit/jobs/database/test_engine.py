"""Several processes and threads on one database, and a database that is busy, full, damaged or not there."""

import json
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert, make_url, text
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, InternalError, NotSupportedError, ProgrammingError

from wsi_denoise.errors import (
    DatabaseBusy,
    DatabaseOutdated,
    DatabaseUnreachable,
    DiskFull,
    SettingsInvalid,
    StoreError,
)
from wsi_denoise.jobs.database import engine
from wsi_denoise.jobs.database.models import JobRow, SlideRow
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import JobQuery

ROOT = Path(__file__).parents[4]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "state" / "jobs.sqlite"


@pytest.fixture
def store(file):
    store = JobStore(f"sqlite:///{file}")
    store.upgrade()
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request):
    """A store and its URL, on each of the databases."""
    if request.param == "sqlite":
        yield request.getfixturevalue("store"), f"sqlite:///{request.getfixturevalue('file')}"
        return
    with request.getfixturevalue("postgres").database() as url:
        store = JobStore(url)
        store.upgrade()
        yield store, url
        store.close()


def queued(store, count):
    """Queue so many jobs, in one transaction."""
    created = datetime(2026, 3, 1, 12, tzinfo=UTC)
    numbers = range(1, count + 1)
    with store.writing() as session:
        session.execute(
            insert(SlideRow),
            [
                {
                    "id": i,
                    "path": f"/inbox/{i}",
                    "relative": str(i),
                    "size_bytes": 1,
                    "mtime_ns": 1,
                    "fingerprint": str(i),
                }
                for i in numbers
            ],
        )
        same = {"state": JobState.QUEUED, "preset": "paper", "priority": 0, "origin": "test", "settings_hash": "s"}
        session.execute(insert(JobRow), [{"id": i, "slide_id": i, "created": created, **same} for i in numbers])


def claim_all(url, start, results):
    """Claim and finish until nothing is left (runs in a process of its own)."""
    store = JobStore(url)
    daemon = store.register_daemon()
    start.wait(60)
    claimed = []
    while job := store.claim(daemon, 600):
        claimed.append(job.id)
        store.progress(job.id, daemon, 1, 1)
        time.sleep(0.02)  # a job takes time; without it, one process may claim them all
        store.finish(
            job.id, daemon, verdict="pass", reasons=[], metrics={"a": 1.0}, output="/o", output_sha256="0" * 64
        )
    results.put(claimed)
    store.close()


def test_four_processes_claim_each_job_exactly_once(either, monkeypatch):
    store, url = either
    queued(store, 60)
    # A spawned process finds this file by its module's name, which pytest has not put on the path.
    monkeypatch.setitem(sys.modules, "test_engine", sys.modules[__name__])
    monkeypatch.setattr(claim_all, "__module__", "test_engine")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(4), spawn.Queue()
    processes = [spawn.Process(target=claim_all, args=(url, start, results)) for _ in range(4)]
    for process in processes:
        process.start()
    claimed = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(job for part in claimed for job in part) == list(range(1, 61))
    assert sum(bool(part) for part in claimed) > 1, "one process did everything: nothing was tested"
    assert store.count_by_state()[JobState.DONE] == 60
    assert all(len(store.attempts(job)) == 1 for job in range(1, 61))
    kinds = [event.kind for event in store.events() if event.job_id is not None]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"running": 60, "done": 60}


def test_threads_share_a_store(either):
    store, _ = either
    queued(store, 30)
    daemon = store.register_daemon()
    claimed, failed = [], []

    def work():
        try:
            while job := store.claim(daemon, 600):
                claimed.append(job.id)
                assert store.heartbeat(daemon, job.id, 600)
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert sorted(claimed) == list(range(1, 31))


def test_several_programs_may_upgrade_at_once(file):
    code = f"from wsi_denoise.jobs.store import JobStore; s = JobStore('sqlite:///{file}'); s.upgrade(); s.check()"
    programs = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    for program in programs:
        said, _ = program.communicate(timeout=60)
        assert (program.returncode, said) == (0, b"")


def test_a_new_database_has_its_tables_when_it_appears(tmp_path):
    """A program that starts beside the first one must not find a database without tables."""
    found = []

    def first_look(file):
        while not file.exists():
            time.sleep(0.0002)
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            found.append(connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'jobs'").fetchone()[0])

    for number in range(3):
        file = tmp_path / str(number) / "jobs.sqlite"
        looking = threading.Thread(target=first_look, args=(file,))
        looking.start()
        with closing(JobStore(f"sqlite:///{file}")) as made:
            made.upgrade()
            looking.join()
            assert made.jobs().total == 0
        assert [left.name for left in file.parent.iterdir()] == ["jobs.sqlite"]
    assert found == [1, 1, 1]


def test_readers_do_not_wait_for_a_writer(either):
    store, _ = either
    store.see("/in/a", "a", size_bytes=1, mtime_ns=1, preset="p", origin="test")
    with store.writing():  # holds SQLite's only write lock
        # This thread holds the lock: what waited for it would never get it, and end with an error.
        assert store.jobs().total == 1
        assert store.known()
        assert store.claim(1, 60) is None, "there is nothing to claim, and asking needs no lock"


def test_a_reader_cannot_write(store):
    with pytest.raises(DatabaseUnreachable, match="readonly"), store.reading() as session:
        session.connection().exec_driver_sql("DELETE FROM jobs")


def test_a_short_lock_only_delays(store, file):
    queued(store, 1)
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.5, other.execute, ["ROLLBACK"])
    timer.start()
    try:
        assert store.set_priority(1, 3, "test").priority == 3
    finally:
        timer.join()
        other.close()


def test_a_long_lock_is_said(file, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(engine, "BUSY_WAITS", (0.01, 0.01))
    store = JobStore(f"sqlite:///{file}")
    store.upgrade()
    queued(store, 1)
    other = sqlite3.connect(file, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusy, match="locked"):
            store.set_priority(1, 3, "test")
        assert store.job(1).priority == 0
        other.execute("ROLLBACK")
        assert store.set_priority(1, 3, "test").priority == 3
    finally:
        other.close()
        store.close()


def test_a_full_disk_loses_nothing(store):
    queued(store, 1)
    before = store.job(1), store.events(1)
    with store.writing() as session:
        # No page more than there are: the next one is SQLite's own "database or disk is full".
        session.connection().exec_driver_sql("PRAGMA max_page_count = 1")
    with pytest.raises(DiskFull, match="full") as caught:
        store.set_slide_facts(1, 7, 7, None, {"long": "x" * 1_000_000})
    assert isinstance(caught.value, StoreError)  # a daemon waits for its store, and does not end
    assert (store.job(1), store.events(1)) == before
    with store.writing() as session:
        session.connection().exec_driver_sql("PRAGMA max_page_count = 100000")
    store.set_slide_facts(1, 7, 7, None, {"long": "x" * 1_000_000})
    assert store.job(1).width == 7


def test_an_exception_rolls_everything_back(store):
    queued(store, 1)
    before = store.events()

    class Stop(Exception):
        pass

    def interrupted():
        with store.writing() as session:
            session.connection().exec_driver_sql("DELETE FROM events")
            raise Stop

    with pytest.raises(Stop):
        interrupted()
    assert store.events() == before


def test_reading_does_not_make_a_file(tmp_path):
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    with pytest.raises(DatabaseOutdated, match="there is no"):
        store.check()
    with pytest.raises(DatabaseUnreachable):
        store.jobs()
    assert list(tmp_path.iterdir()) == []


class Refused(Exception):
    """What a driver says."""

    def __init__(self, sqlstate):
        super().__init__("the server said no")
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    "error",
    [
        InternalError("UPDATE", {}, Refused("25006")),  # may only be read, after a failover
        NotSupportedError("SET", {}, Refused("0A000")),
        DatabaseError("UPDATE", {}, Refused(None)),
        ProgrammingError("UPDATE", {}, Refused("42501")),  # no right to
    ],
)
def test_whatever_the_server_refuses_is_waited_for(store, error):
    with pytest.raises(DatabaseUnreachable, match="said no") as caught, store.writing():
        raise error
    assert caught.value.outlasts


@pytest.mark.parametrize("kind", [IntegrityError, DataError, ProgrammingError])
def test_our_own_mistakes_are_not_waited_for(store, kind):
    with pytest.raises(kind), store.writing():
        raise kind("UPDATE", {}, Refused("22000"))


def test_a_server_that_may_only_be_read_is_waited_for(postgres):
    with postgres.database() as url:
        store = JobStore(url)
        store.upgrade()
        daemon = store.register_daemon()
        store.close()
        server = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with server.begin() as connection:
            name = connection.scalar(text("SELECT current_database()"))
            connection.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
        server.dispose()
        with pytest.raises(DatabaseUnreachable, match="read-only") as caught:
            store.heartbeat(daemon, None, 60)
        store.close()
    assert caught.value.outlasts


def test_a_damaged_file_is_said(tmp_path):
    file = tmp_path / "jobs.sqlite"
    file.write_bytes(os.urandom(8192))
    store = JobStore(f"sqlite:///{file}")
    for call in (store.check, store.upgrade, store.jobs, store.register_daemon):
        with pytest.raises(DatabaseUnreachable, match="not a database"):
            call()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(DatabaseUnreachable, match="cannot be made"):
        JobStore(f"sqlite:///{tmp_path / 'state' / 'jobs.sqlite'}").upgrade()


def test_an_empty_database_is_outdated(tmp_path):
    file = tmp_path / "jobs.sqlite"
    sqlite3.connect(file).close()
    file.touch()
    store = JobStore(f"sqlite:///{file}")
    with pytest.raises(DatabaseOutdated):
        store.check()
    with pytest.raises(DatabaseOutdated):
        store.jobs()


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://localhost/jobs", "sqlite://", "sqlite:///:memory:"])
def test_other_databases_are_refused(url):
    with pytest.raises(SettingsInvalid, match=r"jobs\.database"):
        JobStore(url)


def test_a_server_that_does_not_answer():
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    store = JobStore("postgresql://lab:secret@127.0.0.1:1/jobs")
    for call in (store.check, store.upgrade, store.jobs, store.register_daemon):
        with pytest.raises(DatabaseUnreachable) as caught:
            call()
        assert "secret" not in str(caught.value)


def test_options_of_the_url_hold_beside_ours(postgres):
    with postgres.database() as url:
        given = make_url(url).update_query_dict({"options": "-c search_path=lab -c timezone=Asia/Tokyo"})
        store = JobStore(given.render_as_string(hide_password=False))
        try:
            for opened in (store._reader, store._writer):
                with opened.connect() as connection:
                    said = [connection.scalar(text(f"SHOW {name}")) for name in ("search_path", "timezone")]
                    assert said == ["lab", "UTC"]
                    assert connection.scalar(text("SHOW lock_timeout")) != "0"
        finally:
            store.close()


def test_a_server_that_was_restarted_costs_nothing(postgres):
    """A statement that meets the cut is an error that is tried again; the next one finds the server."""
    with postgres.database() as url:
        store = JobStore(url)
        store.upgrade()
        queued(store, 2)
        daemon = store.register_daemon()
        first = store.claim(daemon, 600)
        postgres.stop()
        try:
            for call in (lambda: store.claim(daemon, 600), lambda: store.progress(first.id, daemon, 1, 2), store.jobs):
                with pytest.raises(DatabaseUnreachable) as caught:
                    call()
                assert caught.value.outlasts
        finally:
            postgres.start()
        assert store.job(first.id).state is JobState.RUNNING
        assert store.heartbeat(daemon, first.id, 600)
        store.progress(first.id, daemon, 1, 2)
        assert store.claim(daemon, 600).id != first.id
        store.close()


def test_a_long_transaction_of_another_program_only_delays(postgres, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.05)  # four times that is the longest wait for a lock
    import psycopg  # noqa: PLC0415

    with postgres.database() as url:
        store = JobStore(url)
        store.upgrade()
        queued(store, 1)
        daemon = store.register_daemon()
        with psycopg.connect(url) as other:
            other.execute("SELECT * FROM jobs FOR UPDATE")
            assert store.claim(daemon, 600) is None  # skipped, not waited for
            with pytest.raises(DatabaseBusy):
                store.set_priority(1, 3, "test")
            other.rollback()
        assert store.claim(daemon, 600).id == 1
        store.close()


def test_a_database_from_elsewhere_on_the_path(tmp_path, monkeypatch):
    """Names with %, ? and # are paths, not parts of a URL; relative paths are meant from where the store was made."""
    monkeypatch.chdir(tmp_path)
    store = JobStore("sqlite:///100% of ours#1/jobs.sqlite")
    monkeypatch.chdir("/")
    store.upgrade()
    assert (tmp_path / "100% of ours#1" / "jobs.sqlite").is_file()
    assert store.jobs(JobQuery()).total == 0
    store.close()


def test_the_store_is_durable_and_checks_references(store, file):
    with store.writing() as session:
        asked = {
            name: session.connection().exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        }
    assert asked == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2, "busy_timeout": 5000}


def test_importing_the_store_imports_nothing_heavy():
    code = """
        import sys
        import wsi_denoise.jobs.store
        heavy = {"alembic", "torch", "dask", "distributed", "tiatoolbox", "openslide", "numpy", "tifffile", "psycopg"}
        import json; print(json.dumps(sorted(heavy & set(sys.modules))))
    """
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(said.stdout) == []
