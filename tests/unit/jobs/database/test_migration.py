"""Migrations: up, down and up again with rows in the tables; from anywhere; whole or not at all."""

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from wsi_denoise.errors import DatabaseNewer, DatabaseOutdated, DatabaseUnreachable
from wsi_denoise.jobs.database import migration
from wsi_denoise.jobs.database.models import HEAD, Base
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore

ROOT = Path(__file__).parents[4]


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path):
    if request.param == "sqlite":
        store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
        yield store
        store.close()
        return
    with request.getfixturevalue("postgres").database() as url:
        store = JobStore(url)
        yield store
        store.close()


# As a program of revision 0001 has written them. Never changed: a later revision has to cope with exactly these.
ROWS_0001 = """
INSERT INTO daemons (id, host, pid, version, device, started, heartbeat, stopped, facts) VALUES
    (1, 'lab', 77, '0.1.0', 'cpu', '2026-03-01 12:00:00', '2026-03-01 13:00:00', NULL, '{}');
INSERT INTO slides (id, path, relative, size_bytes, mtime_ns, fingerprint, width, height, mpp_x, mpp_y, facts) VALUES
    (1, '/inbox/a.svs', 'a.svs', 5000000000, 1772366400000000000, 'f1', 2220, 2967, 0.499, 0.499, '{"vendor": "x"}'),
    (2, '/inbox/b.svs', 'b.svs', 1, 2, 'f1', NULL, NULL, NULL, NULL, '{}'),
    (3, '/inbox/c.svs', 'c.svs', 1, 2, NULL, NULL, NULL, NULL, NULL, '{}');
INSERT INTO jobs (id, slide_id, state, preset, priority, origin, settings, settings_hash, region, duplicate_of, created,
    started, finished, next_try, attempts, error_code, error, daemon_id, lease_until, cancel_requested, blocks_done,
    blocks_total, blocks_resumed, rate, seconds_left, verdict, reasons, output, output_sha256, maps, model_checksum,
    provenance) VALUES
    (1, 1, 'done', 'paper', 0, 'daemon:1', '{"output.quality": 90}', 's', NULL, NULL, '2026-03-01 12:00:00.5',
     '2026-03-01 12:01:00', '2026-03-01 12:02:00', NULL, 1, NULL, NULL, NULL, NULL, FALSE, 4, 4, 0, 2.5, NULL, 'pass',
     '["noise removed"]', '/denoised/a.tiff', 'abc', NULL, 'm', '{"version": "0.1.0"}'),
    (2, 2, 'duplicate', 'paper', 0, 'daemon:1', '{}', 's', NULL, 1, '2026-03-01 12:03:00', NULL, '2026-03-01 12:04:00',
     NULL, 0, NULL, NULL, NULL, NULL, FALSE, 0, 0, 0, NULL, NULL, NULL, '[]', NULL, NULL, NULL, NULL, '{}'),
    (3, 3, 'running', 'paper', 5, 'person:cli', '{}', 's', '0,0,96,96', NULL, '2026-03-01 12:05:00',
     '2026-03-01 12:06:00', NULL, NULL, 1, NULL, NULL, 1, '2026-03-01 13:01:00', TRUE, 0, 0, 0, NULL, NULL, NULL,
     '[]', NULL, NULL, NULL, NULL, '{}');
INSERT INTO attempts (id, job_id, number, daemon_id, started, ended, outcome, error_code, error, blocks_done,
    blocks_resumed) VALUES
    (1, 1, 1, 1, '2026-03-01 12:01:00', '2026-03-01 12:02:00', 'done', NULL, NULL, 4, 0),
    (2, 3, 1, 1, '2026-03-01 12:06:00', NULL, NULL, NULL, NULL, 0, 0);
INSERT INTO metrics (job_id, key, value) VALUES (1, 'sigma_before', 12.5), (1, 'psnr', NULL);
INSERT INTO events (id, job_id, time, origin, kind, message, data) VALUES
    (1, NULL, '2026-03-01 12:00:00', 'daemon:1', 'daemon_started', 'lab, process 77', '{}'),
    (2, 1, '2026-03-01 12:00:00', 'daemon:1', 'seen', '5000000000 bytes', '{"to": "settling"}');
INSERT INTO pauses (origin, reason, since) VALUES ('person:cli', 'maintenance', '2026-03-01 12:00:00')
"""

TABLES_0001 = {"slides", "jobs", "attempts", "metrics", "events", "daemons", "pauses"}
TABLES = TABLES_0001 | {"folders"}


def insert(store, rows):
    with store.writing() as session:
        for statement in rows.split(";\n"):
            session.connection().exec_driver_sql(statement)
        if store.file is None:  # a number given by hand leaves PostgreSQL's sequence where it was
            for table in TABLES_0001 - {"metrics", "pauses"}:
                session.execute(text(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))"))


def tables(store):
    with store.reading() as session:
        return set(inspect(session.connection()).get_table_names()) - {"alembic_version"}


def copied_scripts(tmp_path, monkeypatch, upgrade, downgrade="pass"):
    """Use a copy of the migrations with one more revision, ``0002_test``."""
    scripts = tmp_path / "scripts"
    shutil.copytree(migration.folder(), scripts, ignore=shutil.ignore_patterns("__pycache__"))
    lines = ["import sqlalchemy as sa", "from alembic import op", 'revision = "0002_test"', f'down_revision = "{HEAD}"']
    for name, body in (("upgrade", upgrade), ("downgrade", downgrade)):
        lines += [f"def {name}():", textwrap.indent(textwrap.dedent(body).strip(), "    ")]
    (scripts / "versions" / "0002_test.py").write_text("\n".join(lines))
    monkeypatch.setattr(migration, "folder", lambda: scripts)


def test_the_constant_is_the_newest_revision():
    assert migration.newest() == HEAD


def test_revisions_are_one_line_with_names_in_order():
    revisions = [script.revision for script in ScriptDirectory.from_config(migration.config()).walk_revisions()]
    assert revisions[::-1] == [f"{number:04}" for number in range(1, len(revisions) + 1)]


def agree(store):
    with store._reader.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_models_and_migrated_tables_agree(store):
    store.upgrade()
    agree(store)


def test_migrated_tables_are_those_that_the_models_would_make(tmp_path):
    def made(file):
        connection = sqlite3.connect(file)
        found = connection.execute("SELECT name, sql FROM sqlite_master WHERE name LIKE 'ix_%' OR name LIKE 'uq_%'")
        indexes = dict(found.fetchall())
        columns = {
            table: sorted(row[1:] for row in connection.execute(f"PRAGMA table_xinfo({table})")) for table in TABLES
        }
        connection.close()
        return indexes, columns

    store = JobStore(f"sqlite:///{tmp_path / 'migrated.sqlite'}")
    store.upgrade()
    store.close()
    engine = create_engine(f"sqlite:///{tmp_path / 'models.sqlite'}")
    Base.metadata.create_all(engine)
    engine.dispose()
    migrated, models = made(tmp_path / "migrated.sqlite"), made(tmp_path / "models.sqlite")
    assert migrated == models


def test_an_old_database_with_rows_goes_up_down_and_up_again(store):
    store.migrate("0001")
    insert(store, ROWS_0001)
    store.upgrade()
    store.check()
    assert store.upgrade() is None, "a second time changes nothing"

    done = store.job(1)
    assert (done.state, done.size_bytes, done.mtime_ns) == (JobState.DONE, 5_000_000_000, 1772366400000000000)
    assert done.metrics == {"sigma_before": 12.5, "psnr": None}
    assert (done.mpp, done.facts, done.reasons) == ((0.499, 0.499), {"vendor": "x"}, ["noise removed"])
    assert done.to_json()["created"] == "2026-03-01T12:00:00.500Z"
    assert store.job(2).duplicate_of == 1
    assert store.job(3).region == (0, 0, 96, 96)
    assert [len(store.attempts(job)) for job in (1, 2, 3)] == [1, 0, 1]
    assert store.paused() == "maintenance"
    assert store.stop_daemon(1) == [3]

    store.migrate("0001", down=True)
    assert tables(store) == TABLES_0001
    with store.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM jobs")) == 3

    store.migrate("base", down=True)
    assert tables(store) == set()
    with pytest.raises(DatabaseOutdated, match="at nothing"):
        store.check()
    store.upgrade()
    store.check()
    assert store.jobs().total == 0
    # PostgreSQL's sequences go with the tables, SQLite's numbers too: a new database starts at 1.
    assert store.see("/a", "a", size_bytes=1, mtime_ns=1, preset="paper", origin="test").id == 1


def test_rebuilding_a_table_loses_nothing(store, tmp_path, monkeypatch):
    store.upgrade()
    insert(store, ROWS_0001)
    copied_scripts(
        tmp_path,
        monkeypatch,
        """
        with op.batch_alter_table("jobs") as table:
            table.add_column(sa.Column("note", sa.Text(), nullable=False, server_default="none"))
            table.alter_column("preset", new_column_name="chosen")
        """,
        """
        with op.batch_alter_table("jobs") as table:
            table.drop_column("note")
            table.alter_column("chosen", new_column_name="preset")
        """,
    )
    store.upgrade()
    with store.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM jobs WHERE chosen = 'paper' AND note = 'none'")) == 3
        assert session.scalar(text("SELECT count(*) FROM attempts")) == 2
        assert session.scalar(text("SELECT count(*) FROM metrics")) == 2
    with pytest.raises(DatabaseOutdated, match="0002_test"):
        store.check()
    store.migrate(HEAD, down=True)
    store.check()
    assert store.job(1).metrics == {"sigma_before": 12.5, "psnr": None}
    agree(store)


def test_a_migration_that_fails_changes_nothing(store, tmp_path, monkeypatch):
    store.upgrade()
    insert(store, ROWS_0001)
    copied_scripts(
        tmp_path,
        monkeypatch,
        """
        op.create_table("more", sa.Column("id", sa.Integer(), primary_key=True))
        op.execute("DELETE FROM metrics")
        op.execute("INSERT INTO nowhere VALUES (1)")
        """,
    )
    with pytest.raises(DatabaseOutdated, match="nowhere"):
        store.upgrade()
    store.check()
    assert tables(store) == TABLES
    assert store.job(1).metrics == {"sigma_before": 12.5, "psnr": None}


def test_a_migration_that_leaves_dangling_references_changes_nothing(tmp_path, monkeypatch):
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    store.upgrade()
    insert(store, ROWS_0001)
    copied_scripts(tmp_path, monkeypatch, 'op.execute("DELETE FROM slides")')
    with pytest.raises(Exception, match="3 rows refer to nothing"):
        store.upgrade()
    store.check()
    assert store.jobs().total == 3
    store.close()


def test_a_newer_database_is_left_alone(store):
    store.upgrade()
    insert(store, "UPDATE alembic_version SET version_num = '9999'")
    for call in (store.check, store.upgrade):
        with pytest.raises(DatabaseNewer, match="9999"):
            call()


def test_old_numbers_are_not_given_again(tmp_path):
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    store.upgrade()
    insert(store, ROWS_0001)
    insert(store, "DELETE FROM attempts WHERE job_id = 3;\nDELETE FROM jobs WHERE id = 3")
    assert store.see("/a", "a", size_bytes=1, mtime_ns=1, preset="paper", origin="test").id == 4
    store.close()


def test_an_installed_copy_upgrades_from_any_folder_without_a_word(tmp_path):
    installed = tmp_path / "site"
    for package in ("wsi_denoise", "migrations"):
        ignored = shutil.ignore_patterns("__pycache__", "weights")
        shutil.copytree(ROOT / package, installed / package, ignore=ignored)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "migrations").mkdir(parents=True)
    (elsewhere / "migrations" / "__init__.py").write_text("raise SystemExit('the wrong migrations')")
    (elsewhere / "migrations" / "env.py").write_text("raise SystemExit('the wrong migrations')")
    code = """
        import logging
        logging.basicConfig(level=logging.WARNING)
        import wsi_denoise
        assert {site!r} in wsi_denoise.__file__, wsi_denoise.__file__
        from wsi_denoise.jobs.store import JobStore
        store = JobStore("sqlite:///state/jobs.sqlite")
        store.upgrade()
        store.check()
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code).replace("{site!r}", repr(str(installed)))],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (elsewhere / "state" / "jobs.sqlite").is_file()


def test_a_read_only_database_is_said(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root writes to read-only files")
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    store.upgrade()
    store.close()
    (tmp_path / "jobs.sqlite").chmod(0o400)
    with pytest.raises(DatabaseUnreachable):
        store.register_daemon()
