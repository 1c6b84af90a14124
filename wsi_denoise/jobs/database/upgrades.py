"""Upgrade of a database that daemons of an older version still use: it waits until they have stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import DateTime, text

from wsi_denoise.jobs.database.engine import Database
from wsi_denoise.jobs.database.models import HEAD
from wsi_denoise.system import clocks

SILENT = timedelta(seconds=60)
"""A daemon without a heartbeat for this period does not count as running."""

_LOOK_SECONDS = 1.0


def running(database: Database, now: datetime) -> list[str]:
    """Return descriptions of the daemons that run on a database of an older revision than this program's.

    The query is plain SQL on columns that every revision has, because the tables may differ from models.py.
    """
    if database.file is not None and not database.file.exists():
        return []
    with database.reading() as session:
        found = database.revision(session.connection())
        if found is None or found >= HEAD:
            return []
        asked = text("SELECT id, host, pid, version, heartbeat FROM daemons WHERE stopped IS NULL ORDER BY id")
        rows = session.execute(asked.columns(heartbeat=DateTime(timezone=True))).all()
    alive = []
    for row in rows:
        heard = row.heartbeat if row.heartbeat.tzinfo else row.heartbeat.replace(tzinfo=UTC)
        if clocks.silence(heard, now) < SILENT:
            alive.append(f"daemon {row.id} of version {row.version} ({row.host}, process {row.pid})")
    return alive


def upgrade(database: Database, say: Callable[[str], None], *, look: float = _LOOK_SECONDS) -> None:
    """Upgrade a database to this program's revision after all daemons of an older one have stopped.

    Parameters
    ----------
    say : callable
        Called with a message when the daemons that it waits for change.
    look : float
        Seconds between two checks.

    Raises
    ------
    DatabaseOutdated, DatabaseBusy, DatabaseUnreachable
    """
    told: list[str] = []
    while waiting := running(database, datetime.now(UTC)):
        if waiting != told:
            told = waiting
            say(f"the database is upgraded once these have stopped: {'; '.join(waiting)}")
        time.sleep(look)
    database.upgrade()
