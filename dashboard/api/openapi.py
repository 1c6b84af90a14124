"""OpenAPI description of every route beside the pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from dashboard.api.export import WRITERS
from dashboard.tiles import maps
from dashboard.tiles.difference import MEASURES
from dashboard.tiles.render import FORMATS, MOST_GAIN, WHICH
from wsi_denoise import NOTICE, __version__
from wsi_denoise.errors import every_error
from wsi_denoise.jobs.history import SORTS
from wsi_denoise.jobs.query import VERDICTS
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import Attempt, Event, Job

LEAST_SIDE, MOST_SIDE = 16, 2048
"""Pixels of a thumbnail's longer side."""

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string"}


def description() -> Schema:
    """Return the OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "wsi-denoise", "version": __version__, "description": f"{NOTICE.capitalize()}."},
        "paths": _history() | _slides() | _machine(),
        "components": {"schemas": _schemas(), "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
    }


def _history() -> Schema:
    asked = [
        _query("state", "Name of a state; may be repeated, or several with commas.", _list(_states()), explode=True),
        _query("since", "Seen at or after: 90m, 24h, 7d, 2w, or an ISO 8601 date or time."),
        _query("until", "Seen before; a date is the end of that day."),
        _query("slide", "Part of the path, in upper or lower case."),
        _query("verdict", "Verdict.", _enum(VERDICTS)),
        _query("preset", "Preset."),
        _query("error_code", "Code of the error.", _enum(_codes())),
    ]
    sorts = _enum([*SORTS, *(f"-{name}" for name in SORTS)]) | {"default": "-created"}
    paged = [
        *asked,
        _query("sort", "Field; a leading minus reverses it.", sorts),
        _query("limit", "Most jobs to answer; 0 for all.", _integer(0, default=100)),
        _query("offset", "Jobs to leave out at the start.", _integer(0, default=0)),
    ]
    exports = {
        f"/export/jobs.{kind}": {
            "get": _operation(
                "Every job that the filters mean, as a file.", {media.partition(";")[0]: {}}, asked, failures=(400, 503)
            )
        }
        for kind, (_, media) in WRITERS.items()
    }
    return {
        "/api/jobs": {"get": _operation("Query the history.", _json(_reference("Jobs")), paged, failures=(400, 503))},
        "/api/jobs/{job}": {
            "get": _operation("One job with its events and attempts.", _json(_reference("JobDetails")), [_JOB])
        },
        **exports,
    }


def _slides() -> Schema:
    which = _path("which", "Side of the slide, or their difference.", _enum(WHICH))
    place = [_path(name, "Of the tile, in the Deep Zoom scheme.", _integer(0)) for name in ("level", "column", "row")]
    kind = _path("suffix", "Kind of picture; PNG is lossless.", _enum(FORMATS))
    measured = [
        _query("gain", "Of the difference.", _integer(1, MOST_GAIN, default=1)),
        _query("of", "Mean or root mean square of the difference over the area of a pixel.", _enum(MEASURES)),
    ]
    side = _query("side", "Pixels of the longer side.", _integer(LEAST_SIDE, MOST_SIDE, default=256))
    name = _path("name", "Figure of the patches.", _enum(maps.NAMES))
    pictures = {media: {} for media in FORMATS.values()}
    here = "/slides/{job}"
    found = {
        "/{which}.dzi": ("Deep Zoom description: size and tiling.", {"application/xml": {}}, [which]),
        "/{which}_files/{level}/{column}_{row}.{suffix}": (
            "One tile of 512 px. The difference of a large slide has no small levels.",
            pictures,
            [which, *place, kind, *measured],
        ),
        "/thumbnail.jpeg": ("The original, small.", {"image/jpeg": {}}, [side]),
        "/info.json": ("What a viewer has to know.", _json({"type": "object"}), []),
        "/maps/{name}.png": ("Figures of the patches as colours, one pixel a patch.", {"image/png": {}}, [name]),
        "/blocks.json": ("Which blocks are finished.", _json({"type": "object"}), []),
        "/download": ("The denoised TIFF; ranges.", {"image/tiff": {}}, []),
    }
    paths = {
        here + path: {"get": _operation(text, content, [_JOB, *more])} for path, (text, content, more) in found.items()
    }
    return paths | {"/viewer/{job}": {"get": _operation("The viewer.", {"text/html": {}}, [_JOB])}}


def _machine() -> Schema:
    stored = _object({"name": _TEXT, "bytes": {"type": "integer"}}, required=["name", "bytes"])
    upload = _operation(
        "Put a slide into the first inbox.",
        _json(stored),
        [_path("name", "File name, with the suffix of a slide.", _TEXT)],
        status="201",
        failures=(400, 403, 409, 413, 415, 503, 507),
    )
    body = {"required": True, "content": {"application/octet-stream": {}}}
    return {
        "/upload/{name}": {"put": upload | {"requestBody": body}},
        "/api/openapi.json": {"get": _operation("This description.", _json({"type": "object"}), [], failures=())},
        "/healthz": {
            "get": _operation("Whether the job database can be read.", _json(_reference("Health")), [], failures=())
            | {"security": [{}]}
        },
        "/metrics": {"get": _operation("Figures for Prometheus.", {"text/plain": {}}, [], failures=())},
    }


def _schemas() -> Schema:
    adapters = [(kind, "serialization", TypeAdapter(kind)) for kind in (Job, Event, Attempt)]
    _, found = TypeAdapter.json_schemas(adapters, ref_template=_reference("{model}")["$ref"])
    schemas: Schema = found["$defs"]
    for schema in schemas.values():
        schema["description"] = schema.get("description", "").partition("\n")[0]
    lists = {"events": _list(_reference("Event")), "attempt_list": _list(_reference("Attempt"))}
    details = schemas["Job"] | {"title": "JobDetails", "properties": schemas["Job"]["properties"] | lists}
    jobs = {"jobs": _list(_reference("Job")), "total": {"type": "integer"}}
    return schemas | {
        "JobDetails": details,
        "Jobs": _object(jobs, required=list(jobs)),
        "Health": _object({"status": _enum(("ok", "broken")), "error_code": _enum(_codes())}, required=["status"]),
        "Error": _object(dict.fromkeys(("error_code", "error"), _TEXT), required=["error", "error_code"]),
    }


def _codes() -> list[str]:
    return sorted({error.code for error in every_error()})


def _states() -> Schema:
    return _enum([state.value for state in JobState])


def _enum(values: Sequence[str] | dict[str, Any]) -> Schema:
    return {"type": "string", "enum": list(values)}


def _object(properties: Schema, *, required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _integer(least: int, most: int | None = None, default: int | None = None) -> Schema:
    limits = {"minimum": least, "maximum": most, "default": default}
    return {"type": "integer"} | {name: value for name, value in limits.items() if value is not None}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _query(name: str, text: str, schema: Schema | None = None, **more: Any) -> Schema:
    return {"name": name, "in": "query", "description": text, "schema": schema or _TEXT, **more}


def _path(name: str, text: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "description": text, "schema": schema}


_JOB = _path("job", "Number of the job.", _integer(1))


def _operation(
    text: str, content: Schema, parameters: list[Schema], *, status: str = "200", failures: Sequence[int] = (404, 503)
) -> Schema:
    failed = {"description": "What is missing or wrong.", "content": _json(_reference("Error"))}
    responses = {status: {"description": text, "content": content}} | {str(code): failed for code in failures}
    return {"summary": text, "parameters": parameters, "responses": responses}
