"""Compare: before and after of one slide at deep zoom, the verdict with its reasons, what was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import streamlit as st

from dashboard import context
from dashboard.pages import compare_view
from dashboard.pages.components import mount
from dashboard.pages.heading import heading
from dashboard.pages.words import STATES, VERDICTS, escaped, for_page, in_markdown, parts_of
from wsi_denoise.errors import NoSuchJob, WsiDenoiseError
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import Job, JobQuery

LISTED = 100


def forget_view() -> None:
    """Another slide begins at its own start."""
    for name in ("job", *compare_view.VIEW):
        st.query_params.pop(name, None)
    chosen = st.session_state.get("chosen")
    if chosen is not None:
        st.query_params["job"] = str(chosen)


def asked_for() -> int | None:
    """Return the job that the address names."""
    text = st.query_params.get("job", "")
    return int(text) if text.isdecimal() and len(text) < 10 else None


def done(query: JobQuery) -> list[Job]:
    """Return the newest slides that can be compared."""
    return context.store().jobs(replace(query, states=(JobState.DONE,), sort="-finished", limit=LISTED)).jobs


def choose() -> Job | None:
    """Draw what a slide is chosen with, and return the one to show."""
    wanted = asked_for()
    kept = {"bind": "query-params", "persist_state": "session"}
    left, middle, right = st.columns([1.6, 1.1, 3.2])
    text = left.text_input("Find a slide", key="find", placeholder="part of its name or folder", **kept)
    verdict = middle.selectbox(
        "Verdict", list(VERDICTS), key="find_verdict", index=None, placeholder="any",
        format_func=lambda one: VERDICTS[one][0], **kept,
    )  # fmt: skip
    found = done(JobQuery(slide=text.strip(), verdict=verdict))
    jobs = {job.id: job for job in found}
    if wanted is not None and wanted not in jobs:
        try:
            jobs = {wanted: context.store().job(wanted), **jobs}
        except NoSuchJob:
            st.html(f'<div class="wd"><p>There is no job {wanted}.</p></div>')
            wanted = None
    if not jobs:
        right.selectbox("Slide", [], placeholder="no slide matches" if text or verdict else "no slide is done yet")
        return None
    ids = list(jobs)
    if st.session_state.get("chosen") != wanted or "chosen" not in st.session_state:
        st.session_state.chosen = wanted if wanted is not None else ids[0]
    chosen = right.selectbox(
        f"Slide ({len(found)} last finished)" if len(found) == LISTED else "Slide",
        ids,
        key="chosen",
        format_func=lambda one: compare_view.choice(jobs[one]),
        on_change=forget_view,
    )
    # The first of the list is shown without being chosen; the address names it as well.
    if asked_for() != chosen:
        st.query_params["job"] = str(chosen)
    return jobs[chosen]


def show(job: Job) -> None:
    """Draw one slide."""
    head, buttons = st.columns([2.4, 1.5], vertical_alignment="center")
    head.html(compare_view.headline(job))
    with buttons.container(horizontal=True, horizontal_alignment="right"):
        if job.state is JobState.DONE and job.output and Path(job.output).is_file():
            st.link_button("Download the TIFF", f"/slides/{job.id}/download")
        if st.button("Events and settings", key="details"):
            st.switch_page("screens/history.py", query_params={"job": str(job.id)})
    if job.state is not JobState.DONE:
        word, _, meaning = STATES[job.state.value]
        why = f"<p>{escaped(for_page(job.error))}</p>" if job.error else ""
        st.html(f'<div class="wd"><p>There is nothing to compare: the job is {word}. {meaning}</p>{why}</div>')
        return
    mount("viewer", {"job": job.id}, key="viewer")
    st.html(f'<div class="wd"><h2>What was measured</h2></div>{compare_view.metrics(job)}')
    st.html(f'<div class="wd"><h2>What made it</h2></div>{compare_view.provenance(job)}')


place = st.container()
try:
    found = choose()
    with place:
        heading("Compare", parts_of(found.relative)[0] if found is not None else "", tab_only=True)
    if found is not None:
        show(found)
    elif not (st.session_state.get("find") or st.session_state.get("find_verdict")):
        st.html(
            '<div class="wd"><h2>Nothing to compare yet</h2><p>A slide can be compared once it is done. The queue '
            "shows what runs and what waits, and says where to put slides.</p></div>"
        )
except WsiDenoiseError as error:
    st.error(in_markdown(for_page(str(error))), icon=":material/database_off:")
