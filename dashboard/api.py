"""The record as JSON, for programs: the same questions and the same answers as ``wsi-denoise jobs --json``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dashboard import context
from dashboard.answers import Json
from dashboard.errors import NotFound, answer
from wsi_denoise import NOTICE, __version__
from wsi_denoise.errors import UsageError, WsiDenoiseError
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import LARGEST, Attempt, Event, Job
from wsi_denoise.query import VERDICTS, job_query

_ASKED = ("since", "until", "slide", "verdict", "preset", "error_code", "sort")


def _said(handler: Callable[[Request], Response]) -> Callable[[Request], Response]:
    @wraps(handler)
    def guarded(request: Request) -> Response:
        try:
            return handler(request)
        except (NotFound, WsiDenoiseError) as error:
            return answer(error)

    return guarded


@_said
def jobs(request: Request) -> Response:
    """Answer what ``wsi-denoise jobs --json`` prints, for the same questions."""
    asked = request.query_params
    query = job_query(
        states=asked.getlist("state"),
        limit=_count(asked.get("limit", "100")),
        offset=_count(asked.get("offset", "0")),
        **{name: asked[name] for name in _ASKED if name in asked},
    )
    return Json(context.store().jobs(query).to_json())


@_said
def job(request: Request) -> Response:
    """Answer what ``wsi-denoise job ID --json`` prints."""
    number = request.path_params["job"]
    if number > LARGEST:
        raise NotFound(f"There is no job {number}.")
    return Json(context.store().details(number))


def healthz(_request: Request) -> Response:
    """Answer whether the page can read the record; open to everybody, so it says no more than that."""
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


_PLAIN = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


def _schema_of(kind: str) -> dict[str, Any]:
    """Return the JSON schema of a field, from its annotation as text."""
    names = [name.strip() for name in kind.split(" | ")]
    optional = "None" in names
    name = next(each for each in names if each != "None") if len(names) > optional else "None"
    if name == "JobState":
        schema: dict[str, Any] = {"type": "string", "enum": [state.value for state in JobState]}
    elif name == "datetime":
        schema = {"type": "string", "format": "date-time"}
    elif name.startswith("tuple["):
        inner = name[6:-1].split(", ")
        schema = {"type": "array", "items": _schema_of(inner[0]), "minItems": len(inner), "maxItems": len(inner)}
    elif name.startswith("list["):
        schema = {"type": "array", "items": _schema_of(name[5:-1])}
    elif name.startswith("dict["):
        schema = {"type": "object"}
    else:
        schema = {"type": _PLAIN[name]}
    return {"anyOf": [schema, {"type": "null"}]} if optional else schema


def _schema(value: type) -> dict[str, Any]:
    properties = {field.name: _schema_of(str(field.type)) for field in fields(value)}
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def description() -> dict[str, Any]:
    """Return the OpenAPI document of ``/api`` and of what programs ask of a slide."""
    number = {"name": "job", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 1}}
    asked = [
        _asked("state", "Name of a state; may be repeated, or several with commas.", {"type": "string"}),
        _asked("since", "Seen at or after: 90m, 24h, 7d, 2w, or an ISO 8601 date or time.", {"type": "string"}),
        _asked("until", "Seen before; a date is the end of that day.", {"type": "string"}),
        _asked("slide", "Part of the path, in upper or lower case.", {"type": "string"}),
        _asked("verdict", "Verdict.", {"type": "string", "enum": list(VERDICTS)}),
        _asked("preset", "Preset.", {"type": "string"}),
        _asked("error_code", "Code of the error, from docs/errors.md.", {"type": "string"}),
        _asked("sort", "Field; a leading minus turns it round.", {"type": "string", "default": "-created"}),
        _asked("limit", "Most jobs to answer; 0 for all.", {"type": "integer", "default": 100}),
        _asked("offset", "Jobs to leave out at the start.", {"type": "integer", "default": 0}),
    ]
    details = _reference("Job")
    paths = {
        "/api/jobs": {"get": _operation("Query the history.", _json(_reference("Jobs")), asked, wrong=True)},
        "/api/jobs/{job}": {"get": _operation("One job with its events and attempts.", _json(details), [number])},
        "/slides/{job}/info.json": {"get": _operation("What a viewer has to know.", _json({}), [number])},
        "/slides/{job}/blocks.json": {"get": _operation("Which blocks are finished.", _json({}), [number])},
        "/slides/{job}/thumbnail.jpeg": {
            "get": _operation("The original, small.", {"image/jpeg": {}}, [number, _asked("side", "Pixels.", {})])
        },
        "/slides/{job}/download": {"get": _operation("The denoised TIFF; ranges.", {"image/tiff": {}}, [number])},
        "/healthz": {"get": _operation("Whether the record can be read.", _json({}), [])},
        "/metrics": {"get": _operation("Figures for Prometheus.", {"text/plain": {}}, [])},
    }
    error = {"type": "object", "properties": {"error_code": {"type": "string"}, "error": {"type": "string"}}}
    schemas = {
        "Job": _with_details(),
        "Event": _schema(Event),
        "Attempt": _schema(Attempt),
        "Jobs": {
            "type": "object",
            "properties": {"jobs": {"type": "array", "items": _schema(Job)}, "total": {"type": "integer"}},
            "required": ["jobs", "total"],
        },
        "Error": error,
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "wsi-denoise", "version": __version__, "description": f"{NOTICE.capitalize()}."},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _with_details() -> dict[str, Any]:
    schema = _schema(Job)
    lists = {"events": "Event", "attempt_list": "Attempt"}
    schema["properties"] |= {key: {"type": "array", "items": _reference(name)} for key, name in lists.items()}
    return schema


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _asked(name: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": schema or {"type": "integer"}}


def _operation(
    text: str, content: dict[str, Any], parameters: list[dict[str, Any]], *, wrong: bool = False
) -> dict[str, Any]:
    failed = {"description": "What is missing or wrong.", "content": _json(_reference("Error"))}
    responses = {"200": {"description": text, "content": content}, "404": failed} | ({"400": failed} if wrong else {})
    return {"summary": text, "parameters": parameters, "responses": responses}
