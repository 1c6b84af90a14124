"""Backup of the job database while programs use it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from wsi_denoise.errors import DatabaseUnreachable, NoDatabase, OutputUnwritable, UsageError
from wsi_denoise.jobs.database.engine import Database
from wsi_denoise.system.files import atomic_path


def backup(database: Database, target: Path) -> int:
    """Copy a consistent state of an SQLite database, check the copy, and return its size in bytes.

    Other programs may write during the copy. A plain copy of the file would lack the contents of its journal.

    Parameters
    ----------
    target : Path
        A file that does not exist; its folder is made. The copy gets this name when it is complete and checked.

    Raises
    ------
    UsageError
        For PostgreSQL, which has its own tool, and if `target` exists.
    NoDatabase, OutputUnwritable, DatabaseUnreachable
    """
    if database.file is None:
        raise UsageError("PostgreSQL makes its own backups: pg_dump --format=custom")
    if not database.file.exists():
        raise NoDatabase(f"{database.file} does not exist")
    if target.exists():
        raise UsageError(f"{target} exists already, and a backup replaces nothing")
    address = f"{database.file.as_uri()}?mode=ro"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target, replace=False) as part:
            with closing(sqlite3.connect(address, uri=True)) as source, closing(sqlite3.connect(part)) as copy:
                source.backup(copy, pages=1000, sleep=0.01)
                # The journal's mode is copied too; a copy without writers is one file.
                copy.execute("PRAGMA journal_mode = DELETE").fetchone()
                found = copy.execute("PRAGMA integrity_check").fetchone()[0]
            if found != "ok":
                raise DatabaseUnreachable(f"{database.file} is damaged: {found}")
    except sqlite3.Error as error:
        raise DatabaseUnreachable(f"{database.file} ({error})") from error
    except OSError as error:
        raise OutputUnwritable(f"{target.parent} ({error.strerror})") from error
    return target.stat().st_size
