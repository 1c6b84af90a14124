"""Routes of the deep-zoom viewer: its page, its scripts, and OpenSeadragon."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from dashboard import context
from dashboard.responses import SECURITY, NotFound, answer_errors
from dashboard.viewer import openseadragon as library
from wsi_denoise.errors import NoSuchJob
from wsi_denoise.jobs.values import LARGEST

FOLDER = Path(__file__).parent
_TYPES = {".js": "text/javascript", ".css": "text/css"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_PAGE = {"Content-Security-Policy": _POLICY, "X-Frame-Options": "SAMEORIGIN", "Cache-Control": "no-cache", **SECURITY}

_MISSING = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<title>The viewer's library is missing · wsi-denoise</title>
<link rel="stylesheet" href="/viewer/static/viewer.css"></head><body class="message"><main>
<h1>The viewer's library is missing</h1>
<p>This installation was made without OpenSeadragon, which shows the slides. Everything else works.</p>
<p>To get it, on a machine with npm and access to a package registry:</p>
<pre>wsi-denoise doctor</pre>
<p>Then load this page again. Until then, open the denoised TIFF in QuPath or another viewer.</p>
</main></body></html>"""


@answer_errors
def page(request: Request) -> Response:
    """Answer the viewer of one job; it asks for everything else itself."""
    number = request.path_params["job"]
    if number > LARGEST:
        raise NoSuchJob(str(number))
    context.store().job(number)
    if not library.SCRIPT.is_file():
        return HTMLResponse(_MISSING, 503, headers=_PAGE)
    return HTMLResponse((FOLDER / "viewer.html").read_text("utf-8"), headers=_PAGE)


@answer_errors
def static(request: Request) -> Response:
    """Answer one of the viewer's own files, chosen from a list and not by a path."""
    file = _files().get(request.path_params["name"])
    if file is None:
        raise NotFound
    # Asked again every time, and answer_errors 304: a page never runs with scripts of two versions.
    return FileResponse(file, media_type=_TYPES[file.suffix], headers={"Cache-Control": "no-cache", **SECURITY})


def _files() -> dict[str, Path]:
    files = [file for file in FOLDER.iterdir() if file.suffix in _TYPES]
    if library.SCRIPT.is_file():
        files.append(library.SCRIPT)
    return {file.name: file for file in files}


def routes() -> list[BaseRoute]:
    """Return the routes."""
    return [Route("/viewer/static/{name}", static), Route("/viewer/{job:int}", page)]
