"""History: every job, filtered by the database; one opened; tried again, or run again; exported."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import context
from dashboard.pages import history_view
from dashboard.pages.components import mount
from dashboard.pages.heading import heading
from dashboard.pages.words import STATES, VERDICTS, for_page, in_markdown, parts_of
from wsi_denoise.errors import NoSuchJob, WsiDenoiseError
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import Job
from wsi_denoise.network import weights

LIST_SECONDS = 5.0
JOB_SECONDS = 2.0
ORIGIN = "person:page"


def _number(text: str | None, least: int = 1) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 10 and int(text) >= least else None


def act(event: Mapping[str, Any]) -> None:
    """Open a job, or turn the list."""
    what = event.get("what")
    if what == "open":
        st.query_params["job"] = str(event["job"])
        st.session_state.opened = True
    elif what == "sort":
        st.query_params["sort"] = str(event["value"])
        st.query_params.pop("page", None)
    elif what == "page":
        st.query_params["page"] = str(event["value"])


def first_page() -> None:
    """Other filters, another list."""
    st.query_params.pop("page", None)


@st.cache_data(ttl=30, show_spinner=False, max_entries=1)
def choices() -> tuple[list[str], list[str]]:
    """Return the presets and error codes to choose from."""
    return context.store().choices()


def filters() -> dict[str, Any]:
    """Draw the filters and return what they say."""
    presets, errors = choices()
    kept = {"bind": "query-params", "persist_state": "session", "on_change": first_page}
    columns = st.columns([2.2, 2, 1.3, 1.3, 1.5, 1.5])
    slide = columns[0].text_input("Slide", key="slide", placeholder="part of its name or folder", **kept)
    states = columns[1].multiselect(
        "State", [state.value for state in JobState], key="state", format_func=lambda one: STATES[one][0],
        placeholder="any", **kept,
    )  # fmt: skip
    verdict = columns[2].selectbox(
        "Verdict", list(VERDICTS), key="verdict", index=None, format_func=lambda one: VERDICTS[one][0],
        placeholder="any", **kept,
    )  # fmt: skip
    preset = columns[3].selectbox("Preset", presets, key="preset", index=None, placeholder="any", **kept)
    error = columns[4].selectbox("Error code", errors, key="error", index=None, placeholder="any", **kept)
    period = columns[5].selectbox(
        "Seen", [*history_view.PERIODS, history_view.BETWEEN], key="seen", **kept,
    )  # fmt: skip
    days: tuple[date, ...] = ()
    today = date.today()  # noqa: DTZ011 - the day on this machine's calendar
    if period == history_view.BETWEEN:
        chosen = st.date_input("Days", (today - timedelta(days=7), today), key="days", **kept)
        days = tuple(chosen) if isinstance(chosen, tuple | list) else (chosen,)
    return history_view.asked(
        slide=slide, states=states, verdict=verdict, preset=preset, error=error, period=period, days=days, today=today
    )


@st.fragment(run_every=LIST_SECONDS)
def listing(words: dict[str, Any]) -> None:
    """Draw a page of the list; it stays up to date."""
    if st.session_state.pop("opened", False):
        st.rerun()
    page = _number(st.query_params.get("page")) or 1
    sort = st.query_params.get("sort", history_view.SORT)
    try:
        found = context.store().jobs(history_view.query(words, sort=sort, page=page))
        if page > history_view.pages(found.total):
            # A link of a longer list, or jobs were pruned.
            page = history_view.pages(found.total)
            st.query_params["page"] = str(page)
            found = context.store().jobs(history_view.query(words, sort=sort, page=page))
    except WsiDenoiseError as error:
        st.error(in_markdown(for_page(str(error))), icon=":material/error:")
        return
    shown = history_view.listed(found, words, sort=sort, page=page, now=datetime.now(UTC))
    mount("jobs", shown, key="jobs", act=act)


def close() -> None:
    """Go back to the list."""
    st.query_params.pop("job", None)


def do(what: str, job: Job, preset: str = "") -> None:
    """Do what a button of a job says; what cannot be done is said."""
    store = context.store()
    try:
        if what == "retry":
            store.retry(job.id, ORIGIN, inboxes=context.settings().intake.inbox)
        elif what == "cancel":
            store.cancel(job.id, ORIGIN)
        elif what == "rerun":
            settings = context.settings()
            new = store.rerun(
                job.id,
                preset=preset,
                settings=settings.pixel_settings(),
                settings_hash=settings.pixel_hash(),
                origin=ORIGIN,
                model_checksum=weights.card(preset).sha256,
            )
            st.session_state.said = ""
            st.session_state.goto = new.id
            return
        st.session_state.said = ""
    except WsiDenoiseError as error:
        st.session_state.said = str(error)


@st.fragment(run_every=JOB_SECONDS)
def opened(job_id: int) -> None:
    """Draw one job; it stays up to date."""
    goto = st.session_state.pop("goto", None)
    if goto is not None:
        st.query_params["job"] = str(goto)
        st.rerun()
    store = context.store()
    try:
        job = store.job(job_id)
        attempts, events = store.attempts(job_id), store.events(job_id)
    except NoSuchJob:
        heading("History")
        st.html(f'<div class="wd"><p>There is no job {job_id}.</p></div>')
        return
    except WsiDenoiseError as error:
        st.error(in_markdown(for_page(str(error))), icon=":material/database_off:")
        return
    name, folder = parts_of(job.relative)
    heading(f"Job {job.id}", folder + name, history_view.chip(job))
    _buttons(job)
    for missing in history_view.missing(job, lambda path: Path(path).exists()):
        st.warning(in_markdown(missing), icon=":material/info:")
    said = st.session_state.get("said", "")
    if said:
        st.warning(in_markdown(for_page(said)), icon=":material/info:")
    parts = [f"<h2>Facts</h2>{history_view.facts(job)}"]
    if attempts:
        parts.append(f"<h2>Attempts</h2>{history_view.attempts(attempts)}")
    parts.append(f"<h2>Events</h2>{history_view.events(events)}")
    if job.settings:
        parts.append(f"<h2>Settings it was queued with</h2>{history_view.settings(job)}")
    if job.metrics:
        parts.append(f"<h2>Metrics</h2>{history_view.metrics(job)}")
    st.html(f'<div class="wd">{"".join(parts)}</div>')


def _buttons(job: Job) -> None:
    row = st.container(horizontal=True, vertical_alignment="bottom")
    original, result = Path(job.slide).exists(), bool(job.output) and Path(str(job.output)).is_file()
    # A folder that this machine does not see may be there for the daemon.
    gone = not original and Path(job.slide).parent.is_dir()
    done = job.state is JobState.DONE
    if done and (original or result) and row.button("Compare before and after", key="compare"):
        st.switch_page("screens/compare.py", query_params={"job": str(job.id)})
    if done and result:
        row.link_button("Download the TIFF", f"/slides/{job.id}/download")
    output_removed = bool(job.output) and not result and Path(str(job.output)).parent.is_dir()
    if history_view.can_retry(job, output_removed=output_removed):
        label = "Try now" if job.finished is None else "Try again"
        row.button(label, key="retry", on_click=do, args=("retry", job))
    if history_view.can_cancel(job):
        row.button("Cancel", key="cancel", on_click=do, args=("cancel", job))
    if job.fingerprint and job.finished is not None and not gone:
        _rerun(row, job)


def _rerun(row: DeltaGenerator, job: Job) -> None:
    unsafe = context.settings().model.allow_unsafe
    presets = [card.name for card in weights.presets() if unsafe or not card.not_for_slides]
    chosen = row.selectbox(
        "Preset", presets, key="again", width=220, label_visibility="collapsed",
        index=presets.index(job.preset) if job.preset in presets else 0,
    )  # fmt: skip
    row.button(
        "Run again with this preset", key="rerun", on_click=do, args=("rerun", job, chosen),
        help="A new job of the same slide, with this preset and today's settings.",
    )  # fmt: skip


number = _number(st.query_params.get("job"))
if "job" in st.query_params:
    st.button("All jobs", key="close", on_click=close, type="tertiary", icon=":material/arrow_back:")
    opened(number or 0)
else:
    heading("History")
    try:
        words = filters()
    except WsiDenoiseError as error:
        st.error(in_markdown(for_page(str(error))), icon=":material/database_off:")
    else:
        listing(words)
