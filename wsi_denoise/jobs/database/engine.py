"""How the database is opened, written, read, upgraded, and what its failures mean."""

from __future__ import annotations

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
from wsi_denoise.system.redact import public_url

BUSY_SECONDS = 5.0
BUSY_WAITS = (0.1, 0.5, 1.0)
"""A writer waits `BUSY_SECONDS` for the lock, and does so once more after each of these pauses: 22 seconds in all."""

CACHE_KIB = 256

_BUSY_SQLSTATES = {"40001", "40P01", "55P03"}  # serialisation failure, deadlock, lock not available
_FULL_SQLSTATES = {"53100"}
_NO_RIGHT = "42501"
_OUR_MISTAKES = (DataError, IntegrityError, ProgrammingError)
"""What waiting does not mend. All else that a driver raises is its server's or file's state, such as one that may only
be read after a failover, and is waited for."""
_MIGRATION_LOCK = 7_305_105_105_105_105


class Database:
    """An SQLite file or a PostgreSQL server.

    SQLite has one writer at a time. The writing engine takes the lock at the start of each transaction (``BEGIN
    IMMEDIATE``): a transaction that begins by reading and then writes would fail at once, without waiting, when
    another wrote in between. Reading has an engine of its own, so that readers never queue for that lock.

    Parameters
    ----------
    url : str
        SQLAlchemy URL: ``sqlite:///PATH`` or ``postgresql://...``.

    Raises
    ------
    SettingsInvalid
        For any other URL, or when the driver is not installed.
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
        """Check that the open file still has its name: others may remove it, or restore a backup over it.

        SQLite would continue in the file without a name, which is lost when the program ends.

        Raises
        ------
        DatabaseReplaced
        DatabaseUnreachable
            When its folder cannot be read.
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
        """Remember the file that the first connection opened, and refuse another one."""
        assert self.file is not None
        if self._identity is None:
            self._identity = _identity(self.file)
        self.check_place()

    def open_connections(self, threads: int) -> None:
        """Open what so many threads need at a time, which is kept: none of them lacks a file handle months later.

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
        """Give a session that sees one state of the database and cannot write.

        Raises
        ------
        DatabaseBusy, DatabaseFull, DatabaseOutdated, DatabaseUnreachable, DatabaseReplaced
        """
        self.check_place()
        with self._said(), Session(self._reader) as session:
            yield session

    @contextmanager
    def writing(self, lock: str = "") -> Iterator[Session]:
        """Give a session that is committed at the end, or rolled back by an exception.

        Parameters
        ----------
        lock : str
            What must not happen twice at once although no row stands for it yet, such as a path.

        Raises
        ------
        DatabaseBusy, DatabaseFull, DatabaseOutdated, DatabaseUnreachable, DatabaseReplaced
        """
        self.check_place()
        with self._said(), Session(self._writer, expire_on_commit=False) as session:
            self._begin(session)
            if lock and self.file is None:  # SQLite's only writer needs no other lock
                # Hashed here and not there: a path may hold what no text column takes.
                digest = hashlib.sha256(lock.encode("utf-8", "surrogateescape")).digest()
                key = int.from_bytes(digest[:8], signed=True)
                session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            yield session
            session.commit()

    def upgrade(self) -> None:
        """Bring the tables to this program's revision; makes the file and its folder.

        Several programs may call this at once: one migrates, the others wait for it.

        Raises
        ------
        DatabaseNewer
            When a newer program has upgraded the database.
        DatabaseBusy, DatabaseFull, DatabaseUnreachable
        """
        self.migrate("head")

    def migrate(self, revision: str, *, down: bool = False) -> None:
        """Run Alembic's migrations up, or down, to a revision (``base`` is the empty database)."""
        # Alembic takes a fifth of a second to import, and almost every command does without it.
        from alembic import command  # noqa: PLC0415
        from alembic.util import CommandError  # noqa: PLC0415

        from wsi_denoise.jobs.database import migration  # noqa: PLC0415

        if self.file is not None:
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DatabaseUnreachable(f"{self.file.parent} cannot be made ({error.strerror})") from error
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

    def check(self) -> None:
        """Look whether the database can be used by this program.

        Raises
        ------
        DatabaseOutdated
            When its revision is not ours, or there is none yet; DatabaseNewer when it is a later one.
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
        """Start the transaction; for SQLite this is where the lock is waited for, and the only place to be busy."""
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
        """Return the revision of the tables, or None where there are none."""
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
        """Turn the driver's failures into ours."""
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
    # Only a migration makes the file: else `jobs` in a wrong folder would leave an empty database behind.
    address = f"file:{quote(str(file))}?mode={'rwc' if migrating else 'rw'}"

    def connect() -> sqlite3.Connection:
        # isolation_level=None: the module's own transaction control begins late, and not before DDL.
        connection = sqlite3.connect(
            address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            # Migrations rebuild tables, which would delete what refers to them; this cannot be switched off later.
            connection.execute(f"PRAGMA foreign_keys = {'OFF' if migrating else 'ON'}")
            connection.execute("PRAGMA synchronous = FULL")
            # Each connection keeps pages, up to 2 MB unless told, and fills that as the database grows; a daemon has
            # five of them. The system keeps the file's pages anyway.
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
    # After those of the URL, which connect_args would replace.
    given = " ".join(url.normalized_query.get("options", ()))
    settings = f"{given} -c timezone=UTC -c lock_timeout={round(BUSY_SECONDS * 4000)}".lstrip()
    try:
        engine = create_engine(
            url,
            pool_pre_ping=True,  # a restarted server is noticed before a statement is lost to it
            connect_args={"connect_timeout": 10, "options": settings},
            **options,
        )
    except ModuleNotFoundError as error:
        raise SettingsInvalid("jobs.database: for PostgreSQL install wsi-denoise[postgres]") from error
    if writing:
        return engine
    # One state of the database for the page and its total, as SQLite's readers have it.
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _json(value: Any) -> str:
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    """Replace what JSON cannot say (NaN, infinity) by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _is_busy(error: Exception) -> bool:
    cause = getattr(error, "orig", error)
    return "is locked" in str(cause) or getattr(cause, "sqlstate", None) in _BUSY_SQLSTATES


def _meaning(error: Exception, where: str) -> Exception:
    """Return the error to raise for one of the driver's; the driver's own where it is our mistake."""
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
