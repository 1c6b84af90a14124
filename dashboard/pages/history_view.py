"""What the History page asks and shows, as plain values. Pure: the store is asked elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from dashboard.pages.queue_view import why
from dashboard.pages.words import (
    STATES,
    VERDICTS,
    checksum,
    count,
    duration,
    escaped,
    for_page,
    job_link,
    number,
    of,
    parts_of,
    size,
    visible,
    when,
)
from wsi_denoise.jobs.query import job_query
from wsi_denoise.jobs.states import ALLOWED, JobState
from wsi_denoise.jobs.values import Attempt, Event, Job, JobPage, JobQuery

PAGE = 50
PERIODS = {"any time": None, "today": 0, "7 days": 7, "30 days": 30, "1 year": 365}
"""Word on the page to days back from today."""

BETWEEN = "between two days"
SORT = "-created"


def asked(
    *,
    slide: str = "",
    states: Sequence[str] = (),
    verdict: str | None = None,
    preset: str | None = None,
    error: str | None = None,
    period: str | None = None,
    days: Sequence[date] = (),
    today: date,
) -> dict[str, Any]:
    """Return the filters as the words of the query language that command line and API read too."""
    since = until = None
    if period == BETWEEN and days:
        since = min(days).isoformat()
        until = max(days).isoformat() if len(days) > 1 else None
    elif period is not None:
        back = PERIODS.get(period)
        since = None if back is None else (today - timedelta(days=back)).isoformat()
    words = {
        "slide": slide.strip(),
        "state": list(states),
        "verdict": verdict,
        "preset": preset,
        "error_code": error,
        "since": since,
        "until": until,
    }
    return {name: value for name, value in words.items() if value}


def query(words: Mapping[str, Any], *, sort: str = SORT, page: int = 1) -> JobQuery:
    """Return what the store is asked for a page of the list."""
    given = dict(words)
    states = given.pop("state", [])
    return job_query(states=states, **given, sort=sort, limit=PAGE, offset=(page - 1) * PAGE)


def address(words: Mapping[str, Any]) -> str:
    """Return the filters as a query string, ``?`` included; empty for none."""
    text = urlencode(words, doseq=True)
    return f"?{text}" if text else ""


def pages(total: int) -> int:
    """Return how many pages a list of jobs has, one at least."""
    return max(-(-total // PAGE), 1)


def listed(found: JobPage, words: Mapping[str, Any], *, sort: str, page: int, now: datetime) -> dict[str, Any]:
    """Return everything the list draws."""
    first = (page - 1) * PAGE + 1
    last = first + len(found.jobs) - 1
    jobs = count(found.total, "job")
    return {
        "rows": [_row(job, now) for job in found.jobs],
        "shown": jobs if found.total <= PAGE else f"{_span(first, last)} of {jobs}",
        "page": page,
        "pages": pages(found.total),
        "sort": sort,
        "query": address(words),
        "none": "No job matches these filters." if words else "There are no jobs yet.",
    }


def _span(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def _row(job: Job, now: datetime) -> dict[str, Any]:
    name, folder = parts_of(job.relative)
    word, colour, meaning = result(job)
    return {
        "id": job.id,
        "name": name,
        "folder": folder,
        "word": word,
        "colour": colour,
        "meaning": meaning,
        "why": visible(why(job)),
        "same": job.duplicate_of,
        "preset": visible(job.preset),
        "size": size(job.size_bytes),
        "created": when(job.created, now=now),
        "finished": when(job.finished, now=now),
    }


def result(job: Job) -> tuple[str, str, str]:
    """Return (word, colour, meaning) of the verdict where there is one, else of the state."""
    if job.state is JobState.DONE and job.verdict in VERDICTS:
        return VERDICTS[job.verdict]
    if job.state is JobState.QUEUED and job.next_try is not None:
        return "waits to retry", "orange", "It failed and is retried automatically."
    return STATES[job.state.value]


def can_retry(job: Job, *, output_removed: bool = False) -> bool:
    """Return whether a user may retry a job now.

    Parameters
    ----------
    job : Job
    output_removed : bool
        The output is gone from a folder that is there. A done job can be retried only then.
    """
    if job.state is JobState.DONE:
        return output_removed
    waits = job.state is JobState.QUEUED and job.next_try is not None
    return waits or (JobState.QUEUED in ALLOWED[job.state] and job.finished is not None)


def missing(job: Job, exists: Callable[[str], bool]) -> list[str]:
    """Return what to say about files of a finished job that are gone; its controls are not drawn then."""
    if job.finished is None:
        return []
    said = []
    if job.state is JobState.DONE and job.output and not exists(job.output):
        said.append(f"The denoised slide is no longer at {job.output}. Run the job again to write it.")
    if not exists(job.slide):
        said.append(f"This machine finds no file at {job.slide}. Copy the original there, or mount its folder.")
    return said


def can_cancel(job: Job) -> bool:
    """Return whether there is anything left to be cancelled."""
    return job.finished is None and not job.cancel_requested


def chip(job: Job) -> str:
    """Return the result as HTML."""
    word, colour, meaning = result(job)
    return f'<span class="chip {colour}" title="{meaning}">{word}</span>'


def facts(job: Job) -> str:
    """Return what there is to say about a job, as an HTML table."""
    rows = (
        ("Slide", escaped(job.slide)),
        ("State", STATES[job.state.value][0] + (", asked to stop" if job.cancel_requested else "")),
        ("Went wrong", f"{escaped(for_page(job.error))} <code>{escaped(job.error_code)}</code>" if job.error else ""),
        ("Tried again", when(job.next_try)),
        ("Why", "<br>".join(escaped(for_page(reason)) for reason in job.reasons)),
        ("Preset", escaped(job.preset)),
        ("Priority", str(job.priority) if job.priority else ""),
        ("Size", _size(job)),
        ("Region", "x {}, y {}, {} × {} px".format(*job.region) if job.region else ""),
        ("Blocks", _blocks(job)),
        ("Seen", when(job.created)),
        ("Started", when(job.started)),
        ("Finished", _finished(job)),
        ("Result", escaped(job.output) if job.output else ""),
        ("Same as", job_link(job.duplicate_of) if job.duplicate_of else ""),
        ("Brought in by", escaped(job.origin)),
        ("Content", checksum(job.fingerprint)),
    )
    return table([], [(f"<th scope=row class=s>{name}</th>", text) for name, text in rows if text])


def _size(job: Job) -> str:
    if not (job.width and job.height):
        return size(job.size_bytes)
    mpp = f"{job.mpp[0]:.4g} × {job.mpp[1]:.4g} µm per pixel" if job.mpp else "resolution not stated"
    return f"{size(job.size_bytes)}, {job.width:,} × {job.height:,} px, {mpp}"


def _blocks(job: Job) -> str:
    blocks = of(job.blocks_done, job.blocks_total, "block") if job.blocks_total else ""
    if job.blocks_resumed:
        blocks += f", {job.blocks_resumed:,} of them taken over from an earlier attempt"
    return blocks


def _finished(job: Job) -> str:
    if not (job.finished and job.started):
        return when(job.finished)
    return f"{when(job.finished)}, after {duration((job.finished - job.started).total_seconds())}"


def attempts(found: Sequence[Attempt]) -> str:
    """Return a job's attempts as an HTML table."""
    rows = [
        (
            str(one.number),
            when(one.started),
            when(one.ended) if one.ended else "now",
            escaped((one.outcome or "running").replace("_", " ")),
            f"{one.blocks_done:,}",
            escaped(for_page(one.error)) if one.error else "",
        )
        for one in found
    ]
    return table(
        ["No", "Started", "Ended", "Outcome", "Blocks", "What went wrong"], rows, numbers={4}, short={0, 1, 2, 3}
    )


def events(found: Sequence[Event]) -> str:
    """Return a job's events as an HTML table."""
    rows = [(when(one.time), escaped(one.origin), escaped(one.kind), escaped(for_page(one.message))) for one in found]
    return table(["Time", "Who", "What", "Message"], rows, short={0, 1, 2})


def settings(job: Job) -> str:
    """Return the settings that a job was queued with as an HTML table."""
    rows = [(f"<code>{escaped(name)}</code>", escaped(value)) for name, value in job.settings.items()]
    return table(["Setting", "Value"], rows, narrow=True)


def metrics(job: Job) -> str:
    """Return a job's metrics by their stable names, as an HTML table."""
    rows = [
        # Counts are whole.
        (f"<code>{escaped(name)}</code>", number(value, 0 if name.endswith("patches") else 3))
        for name, value in sorted(job.metrics.items())
    ]
    return table(["Metric", "Value"], rows, numbers={1}, narrow=True)


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: set[int] = frozenset(),
    short: set[int] = frozenset(),
    narrow: bool = False,
) -> str:
    """Return an HTML table.

    Parameters
    ----------
    head : sequence of str
    rows : iterable of sequence of str
        HTML: text from outside must be escaped. A cell that begins with ``<th`` is taken whole.
    numbers, short : set of int
        Columns that are set to the right, and that are not broken.
    narrow : bool
        No wider than it has to be: two columns far from each other are hard to read across.
    """

    def cell(index: int, text: str) -> str:
        if text.startswith("<th"):
            return text
        kind = "n" if index in numbers else "s" if index in short else "w"
        return f'<td class="{kind}">{text}</td>'

    top = "".join(
        f'<th scope="col"{" class=n" if index in numbers else ""}>{name}</th>' for index, name in enumerate(head)
    )
    body = "".join(f"<tr>{''.join(cell(index, text) for index, text in enumerate(row))}</tr>" for row in rows)
    shown = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f"<div class='scroll{' narrow' if narrow else ''}'><table>{shown}<tbody>{body}</tbody></table></div>"
