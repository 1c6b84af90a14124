"""Output as JSON, plain tables and CSV. Without a terminal library, so that ``jobs`` is fast."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_denoise.jobs.values import Job

_CSV_KEYS = (
    "id", "slide", "state", "verdict", "reasons", "preset", "progress", "created", "started", "finished", "next_try",
    "output", "attempts", "error_code", "error",
)  # fmt: skip


def as_json(value: Any) -> None:
    """Print a value as JSON; bytes of names that are not valid text are escaped."""
    print(json.dumps(value, indent=2))


def tell(text: str) -> None:
    """Print a message on standard error. Ignore write errors, because a closed pipe must not end the work."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def plain(text: object) -> str:
    """Return text as one printable line, so that no control sequence in a file's name reaches the terminal."""
    shown = os.fsencode(str(text)).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in shown)


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()) -> None:
    """Print columns, separated by two spaces; those in `right` are aligned right."""
    cells = [list(head), *([plain("" if cell is None else cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    ends = set(right)
    for row in cells:
        line = (
            cell.rjust(width) if column in ends else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(line).rstrip())


def time(value: datetime | None) -> str:
    """Return a time to the minute in this machine's time zone, or an empty text."""
    return "" if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M")


def jobs(found: Sequence[Job]) -> None:
    """Print jobs as a table."""
    rows = [
        (job.id, progress(job), job.verdict, time(job.created), job.preset, job.relative, job.error_code)
        for job in found
    ]
    table(("ID", "STATE", "VERDICT", "SEEN", "PRESET", "SLIDE", "ERROR"), rows, right=(0,))


def progress(job: Job) -> str:
    """Return the state of a job, with the progress of a running one."""
    return f"{job.state} {job.progress:.0%}" if job.state == "running" else str(job.state)


def jobs_csv(found: Sequence[Job]) -> None:
    """Print jobs as CSV, with a column ``metrics.KEY`` for every metric of any of them."""
    metrics = sorted({key for job in found for key in job.metrics})
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*_CSV_KEYS, *(f"metrics.{key}" for key in metrics)])
    for job in found:
        values = job.to_json()
        values["reasons"] = "; ".join(job.reasons)
        row = [values[key] for key in _CSV_KEYS] + [job.metrics.get(key) for key in metrics]
        writer.writerow([_cell(value) for value in row])


def _cell(value: object) -> object:
    # A spreadsheet interprets text with these first characters as a formula.
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
