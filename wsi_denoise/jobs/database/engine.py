"""Connections to the job database, its migrations, and the translation of driver errors."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from wsi_denoise.errors import (
    DatabaseBusy,
    DatabaseFull,
    DatabaseNewer,
    DatabaseOutdated,
    DatabaseReplaced,
    DatabaseUnreachable,
    SettingsInvalid,
    StoreError,
    WsiDenoiseError,
)
from wsi_denoise.jobs.database.models import HEAD
from wsi_denoise.system.files import atomic_path
from wsi_denoise.system.redact import public_url

BUSY_SECONDS = 5.0
BUSY_WAITS = (0.1, 0.5, 1.0)
"""A writer waits `BUSY_SECONDS` for the lock, and once more after each of these pauses: 22 seconds in total."""

CACHE_KIB = 256

_BUSY_SQLSTATES = {"40001", "40P01", "55P03"}  # serialisation failure, deadlock, lock not available
_FULL_SQLSTATES = {"53100"}
_NO_RIGHT = "42501"
_OUR_MISTAKES = (DataError, IntegrityError, ProgrammingError)
"""Errors that a retry does not fix. Every other driver error is a state of the server or file, and callers retry.
An example is a server that is read-only after a failover."""
_MIGRATION_LOCK = 7_305_105_105_105_105


class Database:
    """An SQLite file or a PostgreSQL server.

    SQLite has one writer at a time. The writing engine takes the lock at the start of each transaction (``BEGIN
    IMMEDIATE``). A transaction that reads before it writes would fail at once, without waiting, if another program
    wrote in between. Readers have their own engine, so that they never wait for that lock.

    Parameters
    ----------
    url : str
        SQLAlchemy URL: ``sqlite:///PATH`` or ``postgresql://...``.

    Raises
    ------
    SettingsInvalid
        For any other URL, or if the driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = _parse(url)
        self.file = Path(self.url.database or "").absolute() if self.url.get_backend_name() == "sqlite" else None
        self._identity: tuple[int, int] | None = None  # device and inode of the open file
        self._writer = self._engine(writing=True)
        self._reader = self._engine(writing=False)

    def close(self) -> None:
        """Close every connection; the next call opens new ones."""
        self._writer.dispose()
        self._reader.dispose()
        self._identity = None

    def check_place(self) -> None:
        """Check that the open file still has its path: it may be deleted, or replaced by a backup.

        SQLite would continue to write to the deleted file, which is lost when the program ends.

        Raises
        ------
        DatabaseReplaced
        DatabaseUnreachable
            If its folder cannot be read.
        """
        if self.file is None or self._identity is None:
            return
        try:
            found = _identity(self.file)
        except FileNotFoundError as error:
            raise DatabaseReplaced(f"there is no {self.file}") from error
        except OSError as error:
            raise DatabaseUnreachable(f"{self.file} ({error.strerror})") from error
        if found != self._identity:
            raise DatabaseReplaced(f"{self.file} is another file")

    def _opened(self) -> None:
        """Remember the identity of the first connection's file, and reject a connection to another file."""
        assert self.file is not None
        if self._identity is None:
            self._identity = _identity(self.file)
        self.check_place()

    def open_connections(self, threads: int) -> None:
        """Open the connections of this many threads now, and keep them.

        A daemon then needs no further file handles, which may be scarce after months.

        Raises
        ------
        DatabaseBusy, DatabaseFull, DatabaseUnreachable
        """
        with self._said(), ExitStack() as stack:
            for engine in (self._writer, self._reader):
                for _ in range(threads):
                    stack.enter_context(engine.connect())

    def __str__(self) -> str:
        return public_url(self.url)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session that sees one state of the database and cannot write.

        Raises
        ------
        DatabaseBusy, DatabaseFull, DatabaseOutdated, DatabaseUnreachable, DatabaseReplaced
        """
        self.check_place()
        with self._said(), Session(self._reader) as session:
            yield session

    @contextmanager
    def writing(self, lock: str = "") -> Iterator[Session]:
        """Yield a session that is committed at the end, or rolled back by an exception.

        Parameters
        ----------
        lock : str
            Name of a lock, such as a path. It prevents two transactions from adding the same row at the same time.

        Raises
        ------
        DatabaseBusy, DatabaseFull, DatabaseOutdated, DatabaseUnreachable, DatabaseReplaced
        """
        self.check_place()
        with self._said(), Session(self._writer, expire_on_commit=False) as session:
            self._begin(session)
            if lock and self.file is None:  # SQLite's only writer needs no other lock
                # Hashed in Python: PostgreSQL rejects some characters of paths as text.
                digest = hashlib.sha256(lock.encode("utf-8", "surrogateescape")).digest()
                key = int.from_bytes(digest[:8], signed=True)
                session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            yield session
            session.commit()

    def upgrade(self) -> None:
        """Upgrade the tables to this program's revision. Make the file and its folder if necessary.

        If several programs call this at once, one migrates and the others wait for it.

        Raises
        ------
        DatabaseNewer
            If a newer program has upgraded the database.
        DatabaseBusy, DatabaseFull, DatabaseUnreachable
        """
        self.migrate("head")

    def migrate(self, revision: str, *, down: bool = False) -> None:
        """Run Alembic's migrations up or down to a revision (``base`` is the empty database)."""
        # Alembic takes 0.2 s to import, and almost no command needs it.
        from alembic import command  # noqa: PLC0415
        from alembic.util import CommandError  # noqa: PLC0415

        from wsi_denoise.jobs.database import migration  # noqa: PLC0415

        if self.file is not None:
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DatabaseUnreachable(f"{self.file.parent} cannot be made ({error.strerror})") from error
            if not down and not self.file.exists():
                self._create(self.file, revision)
        engine = self._engine(writing=True, migrating=True)
        try:
            with self._said(), engine.connect() as connection:
                self._begin(connection)
                if self.file is None:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
                if not down:
                    self._refuse_newer(connection)
                step = command.downgrade if down else command.upgrade
                step(migration.config(connection), revision)
                self._check_references(connection)
                connection.commit()
        except CommandError as error:
            raise DatabaseOutdated(f"{self}: {error}") from error
        finally:
            engine.dispose()

    def _create(self, file: Path, revision: str) -> None:
        """Migrate a new file under a temporary name: a program that finds the database also finds its tables."""
        try:
            with atomic_path(file, replace=False) as part:
                # The file exists, so that this does not come here again.
                part.touch()
                Database(self.url.set(database=str(part)).render_as_string(hide_password=False)).migrate(revision)
        except FileExistsError:
            return  # another program was first
        except OSError as error:
            kind = DatabaseFull if error.errno in {errno.ENOSPC, errno.EDQUOT} else DatabaseUnreachable
            raise kind(f"{self} cannot be made ({error.strerror})") from error

    def check(self) -> None:
        """Check that the database has this program's revision.

        Raises
        ------
        DatabaseOutdated
            If the revision is older, or the file or its tables do not exist yet.
        DatabaseNewer
            If the revision is newer.
        DatabaseUnreachable
        """
        if self.file is not None and not self.file.exists():
            raise DatabaseOutdated(f"there is no {self.file} yet")
        with self._said(), self._reader.connect() as connection:
            self._refuse_newer(connection)
            found = self.revision(connection)
        if found != HEAD:
            raise DatabaseOutdated(f"{self} is at {found or 'nothing'}, this program needs {HEAD}")

    def _refuse_newer(self, connection: Connection) -> None:
        found = self.revision(connection)
        if found is not None and found > HEAD:
            raise DatabaseNewer(f"{self} is at {found}, this program knows {HEAD}")

    def _engine(self, *, writing: bool, migrating: bool = False) -> Engine:
        options: dict[str, Any] = {"json_serializer": _json}
        if migrating:
            options["poolclass"] = NullPool
        if self.file is None:
            return _postgres(self.url, writing=writing, **options)
        opened = (lambda: None) if migrating else self._opened
        return _sqlite(self.file, writing=writing, migrating=migrating, opened=opened, **options)

    def _begin(self, session: Session | Connection) -> None:
        """Start the transaction. SQLite waits for its lock here, and can be busy only here."""
        for wait in (*BUSY_WAITS, None):
            try:
                if isinstance(session, Session):
                    session.connection()
                else:
                    session.begin()
            except OperationalError as error:
                if wait is None or not _is_busy(error):
                    raise
                session.rollback()
                time.sleep(wait)
            else:
                return

    @staticmethod
    def revision(connection: Connection) -> str | None:
        """Return the revision of the tables, or None if they do not exist."""
        if not connection.dialect.has_table(connection, "alembic_version"):
            return None
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return found

    def _check_references(self, connection: Connection) -> None:
        if self.file is None:
            return
        dangling = connection.execute(text("PRAGMA foreign_key_check")).fetchall()
        if dangling:
            raise StoreError(f"{self}: {len(dangling)} rows refer to nothing; nothing was changed")

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Translate the driver's errors into those of wsi_denoise.errors."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise _meaning(error, str(self)) from error


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingsInvalid("jobs.database is not an SQLAlchemy URL") from error
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    backend = parsed.drivername.partition("+")[0]
    if backend not in {"sqlite", "postgresql"}:
        raise SettingsInvalid(f"jobs.database: {backend} is not supported; sqlite and postgresql are")
    if backend == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise SettingsInvalid("jobs.database: SQLite needs a file, as in sqlite:////data/jobs.sqlite")
    return parsed


def _sqlite(file: Path, *, writing: bool, migrating: bool, opened: Callable[[], None], **options: Any) -> Engine:
    # Only a migration makes the file. Otherwise `wsi-denoise jobs` in a wrong folder would leave an empty database.
    address = f"file:{quote(str(file))}?mode={'rwc' if migrating else 'rw'}"

    def connect() -> sqlite3.Connection:
        # isolation_level=None: sqlite3's own transaction control begins at the first write, and not before DDL.
        connection = sqlite3.connect(
            address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            # Migrations rebuild tables, which would violate foreign keys. This pragma has no effect in a transaction.
            connection.execute(f"PRAGMA foreign_keys = {'OFF' if migrating else 'ON'}")
            connection.execute("PRAGMA synchronous = FULL")
            # By default each of a daemon's five connections caches up to 2 MB. The system caches the file anyway.
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            if writing:
                connection.execute("PRAGMA journal_mode = WAL").fetchone()
            else:
                connection.execute("PRAGMA query_only = ON")
            opened()
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine(URL.create("sqlite", database=str(file)), creator=connect, **options)
    begin = "BEGIN IMMEDIATE" if writing else "BEGIN"

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _postgres(url: URL, *, writing: bool, **options: Any) -> Engine:
    # connect_args replaces the URL's options, so they are repeated first.
    given = " ".join(url.normalized_query.get("options", ()))
    settings = f"{given} -c timezone=UTC -c lock_timeout={round(BUSY_SECONDS * 4000)}".lstrip()
    try:
        engine = create_engine(
            url,
            pool_pre_ping=True,  # detects a restarted server before a statement fails
            connect_args={"connect_timeout": 10, "options": settings},
            **options,
        )
    except ModuleNotFoundError as error:
        raise SettingsInvalid("jobs.database: for PostgreSQL install wsi-denoise[postgres]") from error
    if writing:
        return engine
    # Both queries of a job list, its rows and its total, see one state of the database, as in SQLite.
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _json(value: Any) -> str:
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON cannot represent, by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _is_busy(error: Exception) -> bool:
    cause = getattr(error, "orig", error)
    return "is locked" in str(cause) or getattr(cause, "sqlstate", None) in _BUSY_SQLSTATES


def _meaning(error: Exception, where: str) -> Exception:
    """Return the error to raise for a driver's error: the same one if this program is at fault."""
    cause = getattr(error, "orig", None) or error
    said = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    kind: type[WsiDenoiseError]
    if _is_busy(error) or isinstance(error, PoolTimeout):
        kind = DatabaseBusy
    elif "is full" in said or getattr(cause, "sqlstate", None) in _FULL_SQLSTATES:
        kind = DatabaseFull
    elif "no such table" in said or "no such column" in said or getattr(cause, "sqlstate", None) in {"42P01", "42703"}:
        kind = DatabaseOutdated
    elif (
        isinstance(error, sqlite3.OperationalError)
        or (isinstance(error, DBAPIError) and (error.connection_invalidated or not isinstance(error, _OUR_MISTAKES)))
        or getattr(cause, "sqlstate", None) == _NO_RIGHT
        or "not a database" in said
        or "malformed" in said
    ):
        kind = DatabaseUnreachable
    else:
        return error
    return kind(f"{where}: {said}")
