"""The job database as JSON, with the queries and answers of ``wsi-denoise jobs --json``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dashboard import context
from dashboard.api.openapi import description
from dashboard.responses import Json, NotFound, answer_errors
from wsi_denoise.errors import UsageError, WsiDenoiseError
from wsi_denoise.jobs.query import job_query
from wsi_denoise.jobs.values import LARGEST

_ASKED = ("since", "until", "slide", "verdict", "preset", "error_code", "sort")


@answer_errors
def jobs(request: Request) -> Response:
    """Answer the JSON of ``wsi-denoise jobs --json`` for the same query."""
    asked = request.query_params
    query = job_query(
        states=asked.getlist("state"),
        limit=_count(asked.get("limit", "100")),
        offset=_count(asked.get("offset", "0")),
        **{name: asked[name] for name in _ASKED if name in asked},
    )
    return Json(context.store().jobs(query).to_json())


@answer_errors
def job(request: Request) -> Response:
    """Answer the JSON of ``wsi-denoise job ID --json``."""
    number = request.path_params["job"]
    if number > LARGEST:
        raise NotFound(f"There is no job {number}.")
    return Json(context.store().details(number))


def healthz(_request: Request) -> Response:
    """Answer whether the job database can be read, and nothing else, because the route needs no token."""
    try:
        context.store().check()
    except WsiDenoiseError as error:
        return Json({"status": "broken", "error_code": error.code}, status_code=503)
    return Json({"status": "ok"})


def openapi(_request: Request) -> Response:
    """Answer the description of these routes."""
    return Json(description())


def routes() -> list[BaseRoute]:
    """Return the routes."""
    return [
        Route("/api/jobs", jobs),
        Route("/api/jobs/{job:int}", job),
        Route("/api/openapi.json", openapi),
        Route("/healthz", healthz),
    ]


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise UsageError(f"{text} is not a count of jobs")
    return int(text)
