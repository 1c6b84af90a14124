"""The dashboard's server: Streamlit, the routes beside it, and access control.

``wsi-denoise dashboard`` and ``wsi-denoise up`` start it. ``python -m wsi_denoise.cli.dashboard`` is the latter's
child. It reads its settings from standard input and ends when that does.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import uvicorn
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from dashboard import context
from dashboard import routes as own
from dashboard.access import signing_in
from dashboard.access.addresses import PAGES, Addresses
from dashboard.guard import guarded
from dashboard.pages import theme
from wsi_denoise.errors import WsiDenoiseError
from wsi_denoise.settings import Settings
from wsi_denoise.system import logs
from wsi_denoise.system.bind_address import refuse_unguarded

PAGE = Path(__file__).with_name("pages") / "frame" / "main.py"

_STREAMLIT = {
    "browser.gatherUsageStats": False,
    "server.headless": True,
    "server.fileWatcherType": "none",
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",  # the log has them
    "runner.magicEnabled": False,
    "logger.level": "error",
}

# Imports of the pages and of the first widget, for which the first visitor would wait.
_ON_PAGES = ("pandas", "pyarrow.compute", *(f"dashboard.pages.{name}" for name in PAGES))

_log = logging.getLogger(__name__)


def application(settings: Settings, origins: Mapping[str, str] = MappingProxyType({})) -> ASGIApp:
    """Return the ASGI application.

    Raises
    ------
    SettingsInvalid
        For an address that others can reach, without a token or sign-in; for sign-in without a provider.
    """
    refuse_unguarded(settings.dashboard)
    context.use(settings, origins)
    import streamlit  # noqa: PLC0415 - seconds, and not needed to be refused
    from streamlit import config  # noqa: PLC0415

    # Not by variables: Streamlit reads those only when its own command line starts it.
    for name, value in {**_STREAMLIT, **theme.THEME}.items():
        config.set_option(name, value)
    _take_logs()
    routes = own.routes(settings)
    known = Middleware(Addresses, routes=routes, files=Path(streamlit.__file__).with_name("static"))
    page = streamlit.App(PAGE, routes=routes, middleware=[known], on_script_error=_failed)
    provider = signing_in.prepare(settings.dashboard)
    return guarded(page, token=settings.dashboard.token, signing_in=provider, state=settings.jobs.state)


def _take_logs() -> None:
    """Send Streamlit's messages to our log."""
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        handler = getattr(logger, "streamlit_console_handler", None)
        if handler is not None:
            logger.removeHandler(handler)
            logger.propagate = True
            logger.setLevel(logging.WARNING)
    # It warns about caches that are made before its server runs; they are in memory either way.
    logging.getLogger("streamlit.runtime.caching.cache_data_api").setLevel(logging.ERROR)


def _failed(error: Exception) -> bool:
    import streamlit  # noqa: PLC0415

    _log.error("the page failed", exc_info=error)
    streamlit.error("The page failed. The log in the state folder has the details.")
    return True


def warm() -> None:
    """Import what the first visitor would wait for, and exclude it from garbage collection.

    Streamlit collects garbage after every run of a page, every two seconds for each open Queue. Examining the objects
    of pandas and other modules each time took nine tenths of the server's time.
    """
    for name in _ON_PAGES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def serve(settings: Settings, origins: Mapping[str, str] = MappingProxyType({})) -> None:
    """Serve until SIGTERM or SIGINT."""
    page = settings.dashboard
    served = application(settings, origins)
    warm()
    config = uvicorn.Config(
        served,
        host=page.host,
        port=page.port,
        log_config=None,
        access_log=False,
        # An open browser keeps its connection indefinitely; the daemon does not wait for it.
        timeout_graceful_shutdown=3,
    )
    uvicorn.Server(config).run()


def main() -> None:
    """Serve with the settings on standard input, until that ends."""
    given = json.loads(sys.stdin.readline())
    settings = Settings(**given["settings"])
    logs.setup(settings, "dashboard")

    def follow() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=follow, name="parent", daemon=True).start()
    try:
        serve(settings, given["origins"])
    except WsiDenoiseError as error:
        _log.error("%s", error)
        sys.exit(2)


if __name__ == "__main__":
    main()
