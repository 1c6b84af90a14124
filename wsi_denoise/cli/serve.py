"""Commands that run until they are stopped: ``up``, ``watch`` and ``dashboard``."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsi_denoise.cli import options, streams

if TYPE_CHECKING:
    from wsi_denoise.jobs.store import JobStore
    from wsi_denoise.settings import Loaded

Inbox = Annotated[
    Path | None,
    typer.Argument(
        metavar="[INBOX]", parser=options.given_path, help="Folder to watch instead of ./inbox (intake.inbox)."
    ),
]


def up(
    inbox: Inbox = None,
    output: options.Output = None,
    preset: options.Preset = None,
    port: options.Port = None,
    scheduler: options.Scheduler = None,
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
    as_json: options.Json = False,
) -> None:
    """Start the daemon and the dashboard."""
    loaded = _load(inbox, output, preset, scheduler, config, sets, database, port)
    from wsi_denoise.cli.dashboard import Page, with_port
    from wsi_denoise.system import logs
    from wsi_denoise.system.bind_address import free_port, refuse_unguarded

    refuse_unguarded(loaded.settings.dashboard)
    logs.setup(loaded.settings, "daemon")
    chosen = free_port(loaded.settings.dashboard, may_move=loaded.origins["dashboard.port"] == "default")
    loaded = with_port(loaded, chosen)
    with options.opened(loaded, upgrade=True) as store, stopping() as stop:
        page = Page(loaded, say)
        _greet(loaded, store, page.url, as_json=as_json)
        page.start()
        try:
            _daemon(loaded, store, stop)
        finally:
            page.stop()


def watch(
    inbox: Inbox = None,
    output: options.Output = None,
    preset: options.Preset = None,
    scheduler: options.Scheduler = None,
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
    as_json: options.Json = False,
) -> None:
    """Start the daemon without the dashboard."""
    loaded = _load(inbox, output, preset, scheduler, config, sets, database)
    from wsi_denoise.system import logs

    logs.setup(loaded.settings, "daemon")
    with options.opened(loaded, upgrade=True) as store, stopping() as stop:
        _greet(loaded, store, None, as_json=as_json)
        _daemon(loaded, store, stop)


def dashboard(
    port: options.Port = None,
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
    as_json: options.Json = False,
) -> None:
    """Start the dashboard without the daemon."""
    from wsi_denoise.cli import printing
    from wsi_denoise.cli.dashboard import serve, with_port
    from wsi_denoise.system import logs
    from wsi_denoise.system.bind_address import free_port, refuse_unguarded, url

    loaded = options.load(config, sets, database, port=port)
    refuse_unguarded(loaded.settings.dashboard)
    logs.setup(loaded.settings, "dashboard")
    with options.opened(loaded):
        pass  # makes a missing database, because the dashboard itself never makes or upgrades one
    loaded = with_port(loaded, free_port(loaded.settings.dashboard, may_move=False))
    address = url(loaded.settings.dashboard)
    if as_json:
        printing.as_json({"url": address})
    else:
        say(f"page:   {address}")
    serve(loaded)


def say(text: str) -> None:
    """Print a message on standard error as one printable line."""
    from wsi_denoise.cli import printing

    printing.tell(printing.plain(text))


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """Yield an event that the first SIGTERM or SIGINT sets. The second signal ends the process at once."""
    stop = threading.Event()

    def on_signal(number: int, _frame: Any) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()
        with suppress(OSError):  # a full disk or a closed pipe
            # print is not reentrant, and a signal may interrupt one.
            os.write(2, b"stopping: running blocks are finished first; once more stops at once\n")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _load(
    inbox: Path | None,
    output: Path | None,
    preset: str | None,
    scheduler: str | None,
    config: Path | None,
    sets: list[str] | None,
    database: str | None,
    port: int | None = None,
) -> Loaded:
    from wsi_denoise.errors import NoSuchPath
    from wsi_denoise.network import candidates

    loaded = options.load(
        config, sets, database, output=output, preset=preset, scheduler=scheduler, inbox=inbox, port=port
    )
    if inbox is not None and not inbox.is_dir():
        raise NoSuchPath(str(inbox))
    if loaded.origins["intake.inbox"] == "default":
        # Only the default is made. A missing folder from the settings may be a share that is not mounted.
        for folder in loaded.settings.intake.inbox:
            _make(folder)
    for name in loaded.settings.presets:
        candidates.cards(name)
    return loaded


def _make(inbox: Path) -> None:
    from wsi_denoise.errors import UsageError

    try:
        inbox.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"the inbox {inbox} is not a folder") from None
    except OSError as error:
        raise UsageError(f"the inbox {inbox} cannot be made ({error.strerror})") from error


def _greet(loaded: Loaded, store: JobStore, page: str | None, *, as_json: bool) -> None:
    from wsi_denoise import NOTICE, __version__
    from wsi_denoise.cli import printing

    inboxes = [str(folder) for folder in loaded.settings.intake.inbox]
    output = str(loaded.settings.output.folder)
    if as_json:
        with suppress(OSError):  # a full disk or a closed pipe must not end the daemon
            printing.as_json({"inbox": inboxes, "output": output, "url": page, "database": str(store)})
            sys.stdout.flush()
        streams.forgive_stdout()
    say(f"wsi-denoise {__version__} ({NOTICE})")
    for inbox in inboxes:
        missing = "" if Path(inbox).is_dir() else "   does not exist, or its share is not mounted: waiting for it"
        say(f"inbox:  {inbox}{missing or '   drop slides here'}")
    say(f"output: {output}")
    if page:
        say(f"page:   {page}")
    if not sum(store.count_by_state().values()):
        say(f"first start? A demo slide of real tissue with noise: wsi-denoise sample {_short(inboxes[0])}")


def _short(folder: str) -> str:
    path, here = Path(folder), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else folder


def _daemon(loaded: Loaded, store: JobStore, stop: threading.Event) -> None:
    from wsi_denoise.daemon.service import Daemon

    Daemon(loaded, store, say=say).run(stop)
