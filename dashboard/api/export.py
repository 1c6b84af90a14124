"""Exports of the history as CSV, JSON or Parquet, written while they are read: only a part is ever in memory."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from starlette.concurrency import iterate_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from dashboard import context
from dashboard.responses import answer_errors
from wsi_denoise.jobs.query import job_query
from wsi_denoise.jobs.values import Job, iso

TEXTS = ("id", "slide", "state", "verdict", "reasons", "preset", "priority", "created", "started", "finished", "output",
         "attempts", "error_code", "error", "size_bytes", "width", "height", "mpp_x", "mpp_y", "fingerprint",
         "output_sha256", "duplicate_of")  # fmt: skip
"""Columns of CSV and Parquet before the metrics."""

WORDS = ("since", "until", "slide", "verdict", "preset", "error_code")
_ROWS = 2_000  # of a row group, and of a piece of CSV


@answer_errors
def export(request: Request) -> Response:
    """Answer with every job that the query means, as a file."""
    name = request.url.path.rpartition("/")[2]
    write, kind = WRITERS[name.rpartition(".")[2]]
    given = request.query_params
    query = job_query(states=given.getlist("state"), **{word: given[word] for word in WORDS if word in given}, limit=0)
    store = context.store()
    parts = write(store.stream(query), store.metric_keys())
    first = next(parts, b"")  # a database that does not answer is a refusal, not half a file
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return StreamingResponse(iterate_in_threadpool(chain([first], parts)), media_type=kind, headers=headers)


def row(job: Job) -> dict[str, Any]:
    """Return the columns before the metrics as plain values."""
    values = {name: getattr(job, name) for name in TEXTS if hasattr(job, name)}
    values |= {name: iso(values[name]) for name in ("created", "started", "finished")}
    values["state"] = job.state.value
    values["reasons"] = "; ".join(job.reasons)
    values["mpp_x"], values["mpp_y"] = job.mpp or (None, None)
    return {name: _text(values[name]) for name in TEXTS}


def _text(value: Any) -> Any:
    """Return a value without bytes that are not text: files of any kind take UTF-8 only."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def as_csv(jobs: Iterator[Job], keys: list[str]) -> Iterator[bytes]:
    """Yield CSV with a column ``metrics.KEY`` for each metric."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*TEXTS, *(f"metrics.{key}" for key in keys)])
    for number, job in enumerate(jobs, 1):
        writer.writerow([_cell(value) for value in row(job).values()] + [job.metrics.get(key) for key in keys])
        if number % _ROWS == 0:
            yield _taken(buffer)
    yield _taken(buffer)


def _cell(value: Any) -> Any:
    # A spreadsheet takes text that begins like this for a formula.
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _taken(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text.encode()


def as_json(jobs: Iterator[Job], _keys: list[str]) -> Iterator[bytes]:
    """Yield ``{"jobs": [...], "total": N}``, each job as ``wsi-denoise jobs --json`` has it."""
    total = 0
    yield b'{"jobs": ['
    part: list[str] = []
    for job in jobs:
        part.append(("" if total == 0 else ",\n") + json.dumps(job.to_json()))
        total += 1
        if len(part) == 200:
            yield "".join(part).encode()
            part.clear()
    yield "".join(part).encode()
    yield f'],\n"total": {total}}}\n'.encode()


class _Sink(io.RawIOBase):
    """A file that is only written; what was written can be taken out again."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._at += len(part)
        return len(part)

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def as_parquet(jobs: Iterator[Job], keys: list[str]) -> Iterator[bytes]:
    """Yield Parquet with the columns of CSV; times are timestamps in UTC."""
    import pyarrow as pa  # noqa: PLC0415 - slow to import, and for this only
    from pyarrow import parquet  # noqa: PLC0415

    time = pa.timestamp("ms", tz="UTC")
    whole = ("id", "priority", "attempts", "size_bytes", "width", "height", "duplicate_of")
    kinds = {name: pa.int64() for name in whole} | dict.fromkeys(("created", "started", "finished"), time)
    kinds |= {"mpp_x": pa.float64(), "mpp_y": pa.float64()}
    fields = [(name, kinds.get(name, pa.string())) for name in TEXTS]
    schema = pa.schema([*fields, *((f"metrics.{key}", pa.float64()) for key in keys)])
    sink = _Sink()
    with parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for job in jobs:
            values = row(job) | {name: getattr(job, name) for name in ("created", "started", "finished")}
            rows.append(values | {f"metrics.{key}": job.metrics.get(key) for key in keys})
            if len(rows) == _ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows.clear()
                yield sink.take()
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    yield sink.take()


WRITERS: dict[str, tuple[Callable[[Iterator[Job], list[str]], Iterator[bytes]], str]] = {
    "csv": (as_csv, "text/csv; charset=utf-8"),
    "json": (as_json, "application/json"),
    "parquet": (as_parquet, "application/vnd.apache.parquet"),
}


def routes() -> list[BaseRoute]:
    """Return one route for each kind of file."""
    return [Route(f"/export/jobs.{kind}", export, methods=["GET"]) for kind in WRITERS]
