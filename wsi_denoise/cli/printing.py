"""How answers are printed: JSON, plain tables, CSV. No library of terminals: ``jobs`` is to answer at once."""

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
    """Print a value as JSON; names that are not valid text keep their bytes as escapes."""
    print(json.dumps(value, indent=2))


def tell(text: str) -> None:
    """Tell the person at the terminal, if there is one: work does not end for a full disk or a closed pipe there."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def plain(text: object) -> str:
    """Return text in one printable line, whatever a file's name holds: nothing of it reaches the terminal as a code."""
    shown = os.fsencode(str(text)).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in shown)


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()) -> None:
    """Print columns with two spaces between them; the last one may be as long as it likes."""
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
    """Return a time in this machine's zone to the minute, or nothing."""
    return "" if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M")


def jobs(found: Sequence[Job]) -> None:
    """Print jobs as a table."""
    rows = [
        (job.id, progress(job), job.verdict, time(job.created), job.preset, job.relative, job.error_code)
        for job in found
    ]
    table(("ID", "STATE", "VERDICT", "SEEN", "PRESET", "SLIDE", "ERROR"), rows, right=(0,))


def progress(job: Job) -> str:
    """Return the state, and for a running job how far it is."""
    return f"{job.state} {job.progress:.0%}" if job.state == "running" else str(job.state)


def jobs_csv(found: Sequence[Job]) -> None:
    """Print jobs as CSV, with a column ``metrics.KEY`` for every metric that one of them has."""
    metrics = sorted({key for job in found for key in job.metrics})
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*_CSV_KEYS, *(f"metrics.{key}" for key in metrics)])
    for job in found:
        values = job.to_json()
        values["reasons"] = "; ".join(job.reasons)
        row = [values[key] for key in _CSV_KEYS] + [job.metrics.get(key) for key in metrics]
        writer.writerow([_cell(value) for value in row])


def _cell(value: object) -> object:
    # A spreadsheet takes text that begins like this for a formula.
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
