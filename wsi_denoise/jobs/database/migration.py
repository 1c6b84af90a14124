"""Alembic's configuration. Imported only to run migrations, because Alembic is slow to import."""

from __future__ import annotations

import io
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from wsi_denoise.system import bundled


def folder() -> Path:
    """Return the folder of ``env.py``."""
    # Found from this package, not by the name "migrations", which a folder in the working directory or another
    # project may have.
    return bundled.folder() / "migrations"


def config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for an open transaction. It prints nothing and reads no configuration file."""
    made = Config(stdout=io.StringIO())
    # Alembic's Config interpolates %, which the name of a folder may contain.
    made.set_main_option("script_location", str(folder()).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    return made


def newest() -> str | None:
    """Return the newest revision among the scripts."""
    return ScriptDirectory.from_config(config()).get_current_head()
