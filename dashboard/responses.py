"""Responses of routes: JSON, and refusals with an HTTP status and the two fields that programs read."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse, Response

from wsi_denoise.errors import NoSuchJob, SourceError, UsageError, WsiDenoiseError

SECURITY = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}


class Json(JSONResponse):
    """JSON in ASCII: the name of a file may hold bytes that are not text, which only an escape can carry."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class NotFound(Exception):
    """There is no such job, level, tile or file.

    Parameters
    ----------
    reason : str
        What is missing, as text for people.
    """

    def __init__(self, reason: str = "There is no such address.") -> None:
        super().__init__(reason)
        self.reason = reason


def answer(error: Exception, status: int | None = None) -> Response:
    """Return the response to an error of ours."""
    if isinstance(error, NotFound | NoSuchJob | SourceError):
        reason = error.reason if isinstance(error, NotFound) else str(error)
        code = "not_found" if isinstance(error, NotFound) else error.code
        return refusal(status or 404, code, reason)
    if isinstance(error, WsiDenoiseError):
        return refusal(status or (400 if isinstance(error, UsageError) else 503), error.code, str(error))
    raise error


def refusal(status: int, code: str, text: str) -> Response:
    """Return a JSON answer with ``error_code`` and ``error``."""
    return Json({"error_code": code, "error": text}, status, headers={"Cache-Control": "no-store"})
