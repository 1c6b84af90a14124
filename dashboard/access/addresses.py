"""Addresses that exist: any other one is 404, where Streamlit answers with its page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dashboard.responses import SECURITY, refusal

START = "queue"
"""Name of the page at ``/``."""

PAGES = (START, "compare", "history", "quality", "system")
"""Addresses of the pages, in the order of the menu."""

_STREAMLIT = ("_stcore", "static", "media", "component", "app", "auth", "oauth2callback")
_NOT_FOUND = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Not found · wsi-denoise</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<body style="font-family: sans-serif; max-width: 30em; margin: 4em auto; padding: 0 1em">
<h1>Not found</h1><p>There is no page at this address.</p><p><a href="/">Queue</a> {links}</p></body></html>"""


class Addresses:
    """Answers 404 for what is neither a page, nor a route, nor a file of Streamlit's front end.

    Parameters
    ----------
    routes : sequence of BaseRoute
        The other routes.
    files : Path
        Folder of the front end.
    """

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute], files: Path) -> None:
        self._app, self._files = app, files
        names = frozenset(file.name for file in files.iterdir() if file.is_file())
        paths = [route.path for route in routes if isinstance(route, Route)]
        firsts = frozenset(path.strip("/").partition("/")[0].partition("{")[0] for path in paths)
        self._known = firsts | names | frozenset(_STREAMLIT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if scope["path"].rstrip("/") == f"/{START}":
            query = scope["query_string"].decode("latin-1")
            return await RedirectResponse(f"/?{query}".rstrip("?"), 307)(scope, receive, send)
        if self._exists(scope["path"]):
            return await self._app(scope, receive, send)
        return await _answer(Headers(scope=scope))(scope, receive, send)

    def _exists(self, path: str) -> bool:
        first, *rest = path.strip("/").split("/")
        if first in PAGES:
            # A page asks for its server below its own address.
            return not rest or rest[0] in _STREAMLIT
        if first == "static":
            return (self._files / path.strip("/")).is_file()
        return not first or first in self._known


def _answer(headers: Headers) -> Response:
    if "text/html" not in headers.get("accept", ""):
        return refusal(404, "not_found", "There is no such address.")
    links = " ".join(f'<a href="/{page}">{page.capitalize()}</a>' for page in PAGES[1:])
    return HTMLResponse(_NOT_FOUND.format(links=links), 404, headers={"Cache-Control": "no-store", **SECURITY})
