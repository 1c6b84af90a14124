"""Responses of routes: JSON, and refusals with an HTTP status and the two fields that programs read."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from wsi_denoise.errors import NoSuchJob, SourceError, UsageError, WsiDenoiseError

SECURITY = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}


class Json(JSONResponse):
    """JSON in ASCII: the name of a file may hold bytes that are not text, which only an escape can carry."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class NotFound(Exception):
    """A job, level, tile or file does not exist; the text is for the user."""

    def __init__(self, reason: str = "There is no such address.") -> None:
        super().__init__(reason)


def answer(error: NotFound | WsiDenoiseError) -> Response:
    """Return the response to an error of ours."""
    if isinstance(error, NotFound):
        return refusal(404, "not_found", str(error))
    missing = isinstance(error, NoSuchJob | SourceError)
    status = 404 if missing else 400 if isinstance(error, UsageError) else 503
    return refusal(status, error.code, str(error))


def answer_errors(handler: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Return a handler that answers errors of ours instead of raising them."""

    @wraps(handler)
    def safe(request: Request) -> Response:
        try:
            return handler(request)
        except (NotFound, WsiDenoiseError) as error:
            return answer(error)

    return safe


@answer_errors
def nothing(_request: Request) -> Response:
    """Answer that an address does not exist."""
    raise NotFound


def refusal(status: int, code: str, text: str) -> Response:
    """Return a JSON answer with ``error_code`` and ``error``."""
    return Json({"error_code": code, "error": text}, status, headers={"Cache-Control": "no-store"})
