"""Every route beside the pages. Plain Starlette, also without Streamlit.

``uvicorn --factory dashboard.routes:alone`` serves them alone, with the settings of the working directory.
"""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from dashboard import context
from dashboard.api import export, jobs, metrics, slides, upload
from dashboard.guard import guarded
from dashboard.responses import nothing
from dashboard.viewer import routes as viewer
from wsi_denoise.settings import Settings, load

_OWN = ("slides", "viewer", "api", "upload", "export")


def routes(settings: Settings) -> list[BaseRoute]:
    """Return every route beside Streamlit's own; other addresses below their names are 404."""
    methods: Any = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
    return [
        *slides.Slides(settings).routes(),
        *viewer.routes(),
        *jobs.routes(),
        *export.routes(),
        *metrics.routes(settings),
        *upload.routes(settings),
        # Streamlit answers any other address with its page.
        *(Route(f"/{name}{rest}", nothing, methods=methods) for name in _OWN for rest in ("", "/{rest:path}")),
    ]


def application(settings: Settings) -> ASGIApp:
    """Return the routes alone as an application, guarded as the page is, without sign-in at a provider."""
    context.use(settings)
    return guarded(Starlette(routes=routes(settings)), token=settings.dashboard.token, state=settings.jobs.state)


def alone() -> ASGIApp:
    """Return :func:`application` with the settings of the working directory, for uvicorn's ``--factory``."""
    return application(load().settings)
