"""Where Alembic finds the migrations. Imported only where they are run, because Alembic is slow to import."""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def folder() -> Path:
    """Return the folder of ``env.py``, which is installed beside the package."""
    # From our own package and not by the name "migrations": a folder of that name where the program is started, or
    # another project's, must not be taken for ours.
    return Path(str(files("wsi_denoise"))).parent / "migrations"


def config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for an open transaction; it prints nothing and reads no file."""
    made = Config(stdout=io.StringIO())
    # Alembic's Config interpolates %, which a folder's name may contain.
    made.set_main_option("script_location", str(folder()).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    return made


def newest() -> str | None:
    """Return the newest revision among the scripts."""
    return ScriptDirectory.from_config(config()).get_current_head()
