"""History: every job, filtered by the database, and one that is opened; exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from dashboard import context
from dashboard.pages import job as one_job
from dashboard.pages.components import KEPT, heading, mount, show_error
from dashboard.pages.words import STATES, VERDICTS, count, parts_of, result, size, visible, when, why
from wsi_denoise.errors import WsiDenoiseError
from wsi_denoise.jobs.query import job_query
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import Job, JobPage, JobQuery

PAGE = 50
PERIODS = {"any time": None, "today": 0, "7 days": 7, "30 days": 30, "1 year": 365}
"""Word on the page to days back from today."""

BETWEEN = "between two days"
SORT = "-created"
REFRESH_SECONDS = 5.0


def draw() -> None:
    """Draw the page, or the job that the address names."""
    if "job" in st.query_params:
        one_job.draw(_number(st.query_params["job"]) or 0)
        return
    heading("History")
    try:
        words = filters()
    except WsiDenoiseError as error:
        show_error(error)
    else:
        listing(words)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 10 and int(text) >= 1 else None


def act(event: Mapping[str, Any]) -> None:
    """Open a job, or sort or turn the list."""
    what = event.get("what")
    if what == "open":
        st.query_params["job"] = str(event["job"])
        st.session_state.opened = True
    elif what == "sort":
        st.query_params["sort"] = str(event["value"])
        first_page()
    elif what == "page":
        st.query_params["page"] = str(event["value"])


def first_page() -> None:
    """Return to the first page of the list."""
    st.query_params.pop("page", None)


@st.cache_data(ttl=30, show_spinner=False, max_entries=1)
def choices() -> tuple[list[str], list[str]]:
    """Return the presets and error codes to choose from."""
    return context.store().choices()


def filters() -> dict[str, Any]:
    """Draw the filters and return them in the words of the query language."""
    presets, errors = choices()
    kept = {**KEPT, "on_change": first_page}
    any_one = {**kept, "index": None, "placeholder": "any"}
    columns = st.columns([2.2, 2, 1.3, 1.3, 1.5, 1.5])
    slide = columns[0].text_input("Slide", key="slide", placeholder="part of its name or folder", **kept)
    states = columns[1].multiselect(
        "State", [state.value for state in JobState], key="state", format_func=lambda one: STATES[one].word,
        placeholder="any", **kept,
    )  # fmt: skip
    verdict = columns[2].selectbox(
        "Verdict", list(VERDICTS), key="verdict", format_func=lambda one: VERDICTS[one].word, **any_one
    )
    preset = columns[3].selectbox("Preset", presets, key="preset", **any_one)
    error = columns[4].selectbox("Error code", errors, key="error", **any_one)
    period = columns[5].selectbox("Seen", [*PERIODS, BETWEEN], key="seen", **kept)
    days: tuple[date, ...] = ()
    today = date.today()  # noqa: DTZ011 - the day on this machine's calendar
    if period == BETWEEN:
        chosen = st.date_input("Days", (today - timedelta(days=7), today), key="days", **kept)
        days = tuple(chosen) if isinstance(chosen, tuple | list) else (chosen,)
    return filter_words(
        slide=slide, states=states, verdict=verdict, preset=preset, error=error, period=period, days=days, today=today
    )


def filter_words(
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
    """Return the filters in the words of the query language, as command line and API read them."""
    back = PERIODS.get(period or "")
    since = None if back is None else (today - timedelta(days=back)).isoformat()
    until = None
    if period == BETWEEN and days:
        since, until = min(days).isoformat(), max(days).isoformat() if len(days) > 1 else None
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


@st.fragment(run_every=REFRESH_SECONDS)
def listing(words: dict[str, Any]) -> None:
    """Draw a page of the list; it stays up to date."""
    if st.session_state.pop("opened", False):
        st.rerun()
    page = _number(st.query_params.get("page")) or 1
    sort = st.query_params.get("sort", SORT)
    store = context.store()
    try:
        found = store.jobs(query(words, sort=sort, page=page))
        if page > pages(found.total):
            # A link of a longer list, or jobs were pruned.
            page = pages(found.total)
            st.query_params["page"] = str(page)
            found = store.jobs(query(words, sort=sort, page=page))
    except WsiDenoiseError as error:
        show_error(error)
        return
    mount("jobs", list_values(found, words, sort=sort, page=page, now=datetime.now(UTC)), key="jobs", act=act)


def query(words: Mapping[str, Any], *, sort: str = SORT, page: int = 1) -> JobQuery:
    """Return the query for a page of the list."""
    given = dict(words)
    states = given.pop("state", [])
    return job_query(states=states, **given, sort=sort, limit=PAGE, offset=(page - 1) * PAGE)


def address(words: Mapping[str, Any]) -> str:
    """Return the filters as a query string, ``?`` included; empty for none."""
    text = urlencode(words, doseq=True)
    return f"?{text}" if text else ""


def pages(total: int) -> int:
    """Return the number of pages of a list, at least one."""
    return max(-(-total // PAGE), 1)


def list_values(found: JobPage, words: Mapping[str, Any], *, sort: str, page: int, now: datetime) -> dict[str, Any]:
    """Return the values of the component that draws the list."""
    first = (page - 1) * PAGE + 1
    last = first + len(found.jobs) - 1
    jobs = count(found.total, "job")
    span = f"{first:,}" if first == last else f"{first:,} to {last:,}"
    return {
        "rows": [_row(job, now) for job in found.jobs],
        "shown": jobs if found.total <= PAGE else f"{span} of {jobs}",
        "page": page,
        "pages": pages(found.total),
        "sort": sort,
        "query": address(words),
        "none": "No job matches these filters." if words else "There are no jobs yet.",
    }


def _row(job: Job, now: datetime) -> dict[str, Any]:
    name, folder = parts_of(job.relative)
    return {
        "id": job.id,
        "name": name,
        "folder": folder,
        **result(job)._asdict(),
        "why": visible(why(job)),
        "same": job.duplicate_of,
        "preset": visible(job.preset),
        "size": size(job.size_bytes),
        "created": when(job.created, now=now),
        "finished": when(job.finished, now=now),
    }
