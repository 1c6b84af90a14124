"""Options that several commands share, and loading of settings and job store from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsi_denoise.errors import NoDatabase, NoSuchJob, NoSuchPath, SettingsInvalid

if TYPE_CHECKING:
    from wsi_denoise.jobs.store import JobStore
    from wsi_denoise.settings import Loaded

ORIGIN = "person:cli"

#: Every command and group also has -h.
HELP_NAMES = {"help_option_names": ["-h", "--help"]}


def given_path(text: str) -> Path:
    """Return a path from the command line; reject an empty one, which would mean the working directory."""
    if not text.strip():
        raise typer.BadParameter("the path is empty")
    try:
        return Path(text).expanduser()  # a shell does not expand the ~ in --output=~/denoised
    except RuntimeError as error:
        raise typer.BadParameter(str(error)) from error


Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", parser=given_path, help="Settings file instead of ./wsi-denoise.toml."),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set one setting; repeatable.")
]
Database = Annotated[
    str | None, typer.Option("--database", metavar="URL", help="Job database, as an SQLAlchemy URL (jobs.database).")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", metavar="DIR", parser=given_path, help="Folder for denoised slides (output.folder)."),
]
Preset = Annotated[str | None, typer.Option("--preset", metavar="NAME", help="Preset to denoise with (model.preset).")]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", metavar="ADDR", help="Dask scheduler, tcp://... (compute.scheduler).")
]
Port = Annotated[
    int | None, typer.Option("--port", metavar="N", min=0, max=65535, help="Port of the dashboard (dashboard.port).")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, also for errors.")]


def load(
    config: Path | None,
    sets: Sequence[str] | None,
    database: str | None = None,
    *,
    output: Path | None = None,
    preset: str | None = None,
    scheduler: str | None = None,
    port: int | None = None,
    inbox: Path | None = None,
) -> Loaded:
    """Merge the settings with the options; an option overrides the same setting in ``--set``.

    Raises
    ------
    SettingsInvalid
    NoSuchPath
        If the settings file does not exist.
    """
    from wsi_denoise import settings

    if config is not None and not config.is_file():
        raise NoSuchPath(str(config))
    overrides: dict[str, Any] = {}
    for text in sets or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise SettingsInvalid(f"--set {text}: write --set section.key=value")
        overrides[name.strip()] = value
    flags = {
        "jobs.database": database,
        # Paths of options are relative to the working directory, not to the folder of the settings file.
        "output.folder": output.absolute() if output else None,
        "intake.inbox": [inbox.absolute()] if inbox else None,
        "model.preset": preset,
        "compute.scheduler": scheduler,
        "dashboard.port": port,
    }
    overrides.update({name: value for name, value in flags.items() if value is not None})
    return settings.load(config, overrides)


@contextmanager
def opened(loaded: Loaded, *, upgrade: bool = False, make: bool = True) -> Iterator[JobStore]:
    """Yield the job store, and make the database if it does not exist.

    Parameters
    ----------
    upgrade : bool
        Upgrade an outdated database, as the daemon does.
    make : bool
        False for commands that need an existing job: they must not make a database in a wrong folder.

    Raises
    ------
    NoSuchJob
        If the database does not exist and `make` is false.
    DatabaseOutdated, DatabaseUnreachable
    """
    from wsi_denoise.cli import printing
    from wsi_denoise.jobs.database import upgrades
    from wsi_denoise.jobs.store import JobStore

    store = JobStore(loaded.settings.database_url)
    try:
        if missing(store) and not make:
            raise NoSuchJob(f"{store.file} does not exist")
        if upgrade or missing(store):
            upgrades.upgrade(store, printing.tell)
        yield store
    finally:
        store.close()


@contextmanager
def existing(loaded: Loaded) -> Iterator[JobStore]:
    """Yield the store of an existing database. A command in a wrong folder must not make one and report success.

    Raises
    ------
    NoDatabase
    DatabaseOutdated, DatabaseUnreachable
    """
    from wsi_denoise.jobs.store import JobStore

    store = JobStore(loaded.settings.database_url)
    try:
        if missing(store):
            raise NoDatabase(f"{store.file} does not exist")
        yield store
    finally:
        store.close()


def missing(store: JobStore) -> bool:
    """Return whether the store's SQLite file does not exist yet."""
    return store.file is not None and not store.file.exists()
