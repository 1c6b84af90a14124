"""Compare: before and after of one slide at deep zoom, the verdict with its reasons, and the metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard import context
from dashboard.pages.components import KEPT, heading, html, mount, open_page, show_error
from dashboard.pages.markup import checksum, chip, escape, facts, table
from dashboard.pages.metric_words import GROUPS
from dashboard.pages.words import STATES, VERDICTS, ended, for_page, parts_of, result, sentence, size, when
from wsi_denoise.errors import NoSuchJob, WsiDenoiseError
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import Job, JobQuery
from wsi_denoise.quality.triage import Triage

LISTED = 100
VIEW = ("x", "y", "zoom", "mode", "k", "of", "opacity", "overlay", "position", "side", "strength")
"""State of the viewer that is kept in the page's address."""

_NAMED = ("fingerprint", "preset", "model_sha256", "output", "source", "triage")
"""Keys of the provenance that have a row of their own."""


def draw() -> None:
    """Draw the page."""
    place = st.container()
    try:
        found = choose()
        with place:
            heading("Compare", parts_of(found.relative)[0] if found is not None else "", tab_only=True)
        if found is not None:
            show(found)
        elif not (st.session_state.get("find") or st.session_state.get("find_verdict")):
            html(
                "<h2>Nothing to compare yet</h2><p>A slide can be compared once it is done. The queue shows what runs "
                "and what waits, and says where to put slides.</p>"
            )
    except WsiDenoiseError as error:
        show_error(error)


def choose() -> Job | None:
    """Draw the search and the list of what it finds, and return the job to show."""
    left, middle, right = st.columns([1.6, 1.1, 3.2])
    text = left.text_input("Find a slide", key="find", placeholder="part of its name or folder", **KEPT)
    verdict = middle.selectbox(
        "Verdict", list(VERDICTS), key="find_verdict", index=None, placeholder="any",
        format_func=lambda one: VERDICTS[one].word, **KEPT,
    )  # fmt: skip
    query = JobQuery(slide=text.strip(), verdict=verdict, states=(JobState.DONE,), sort="-finished", limit=LISTED)
    found = context.store().jobs(query).jobs
    jobs = _with_wanted({job.id: job for job in found})
    if not jobs:
        right.selectbox("Slide", [], placeholder="no slide matches" if text or verdict else "no slide is done yet")
        return None
    label = f"Slide ({LISTED} last finished)" if len(found) == LISTED else "Slide"
    with right:
        return jobs[_pick(jobs, label)]


def _pick(jobs: Mapping[int, Job], label: str) -> int:
    """Draw the list of jobs, and return the chosen one: of the address, of the list, or the first."""
    wanted = wanted_job()
    wanted = wanted if wanted in jobs else None
    if "chosen" not in st.session_state or st.session_state.chosen != wanted:
        st.session_state.chosen = next(iter(jobs)) if wanted is None else wanted
    chosen: int = st.selectbox(
        label, list(jobs), key="chosen", format_func=lambda one: name_of(jobs[one]), on_change=forget_view
    )
    # The first of the list is shown without being chosen; the address names it as well.
    if wanted_job() != chosen:
        st.query_params["job"] = str(chosen)
    return chosen


def wanted_job() -> int | None:
    """Return the job that the address names."""
    text = st.query_params.get("job", "")
    return int(text) if text.isdecimal() and len(text) < 10 else None


def _with_wanted(jobs: dict[int, Job]) -> dict[int, Job]:
    """Return the jobs with the one that the address names, which the search may not find."""
    wanted = wanted_job()
    if wanted is None or wanted in jobs:
        return jobs
    try:
        return {wanted: context.store().job(wanted), **jobs}
    except NoSuchJob:
        html(f"<p>There is no job {wanted}.</p>")
        return jobs


def forget_view() -> None:
    """Drop the view of the last slide from the address: another slide has its own."""
    for name in ("job", *VIEW):
        st.query_params.pop(name, None)
    chosen = st.session_state.get("chosen")
    if chosen is not None:
        st.query_params["job"] = str(chosen)


def show(job: Job) -> None:
    """Draw one slide."""
    head, buttons = st.columns([2.4, 1.5], vertical_alignment="center")
    head.html(headline(job))
    with buttons.container(horizontal=True, horizontal_alignment="right"):
        if job.state is JobState.DONE and job.output and Path(job.output).is_file():
            st.link_button("Download the TIFF", f"/slides/{job.id}/download")
        if st.button("Events and settings", key="details"):
            open_page("history", job.id)
    if job.state is not JobState.DONE:
        word, _, meaning = STATES[job.state.value]
        why = f"<p>{escape(for_page(job.error))}</p>" if job.error else ""
        html(f"<p>There is nothing to compare: the job is {word}. {meaning}</p>{why}")
        return
    mount("viewer", {"job": job.id}, key="viewer")
    st.html(f'<div class="wd wd-metrics"><h2>Metrics</h2>{metrics(job)}</div>')
    html(f"<h2>Origin of the result</h2>{provenance(job)}")


def name_of(job: Job) -> str:
    """Return the name of a job in the list to choose from, as text."""
    name, folder = parts_of(job.relative)
    verdict = (job.verdict or job.state.value).replace("_", " ")
    return f"{folder}{name}  ({verdict}, job {job.id}, {when(job.finished)})"


def headline(job: Job) -> str:
    """Return name, verdict and reasons as HTML."""
    name, folder = parts_of(job.relative)
    reasons = "".join(f"<li>{escape(sentence(reason))}</li>" for reason in job.reasons)
    trial = "<p>A trial on a part of the slide.</p>" if job.region else ""
    return (
        f'<div class="wd"><h2 class="name">{escape(folder + name)} {chip(result(job))}</h2>'
        f'<ul style="margin:0;padding-left:1.1rem">{reasons}</ul>{trial}</div>'
    )


def metrics(job: Job) -> str:
    """Return every metric with its sentence as HTML."""
    parts = []
    for title, group in GROUPS:
        rows = [
            (
                f"<strong>{shown.name}</strong>",
                shown.text(job.metrics) if job.metrics.get(shown.keys[0]) is not None else "not measured",
                shown.sentence,
                shown.limit,
            )
            for shown in group
        ]
        head = ["Measured", "Value", "What it is", "For review"]
        parts.append(f"<h3>{title}</h3>{table(head, rows, numbers={1})}")
    return "".join(parts)


def provenance(job: Job) -> str:
    """Return the origin of the output as an HTML table."""
    weights = f", weights <code>{escape(job.model_checksum[:12])}</code>" if job.model_checksum else ""
    others = [(name, value) for name, value in job.provenance.items() if name not in _NAMED and value is not None]
    return facts(
        [
            ("Original", escape(job.slide)),
            ("Its content", ", ".join(filter(None, (checksum(job.fingerprint), size(job.size_bytes))))),
            ("Result", escape(job.output)),
            ("Its content", checksum(job.output_sha256)),
            ("Preset", f"{escape(job.preset)}{weights}"),
            ("Triage", escape(str(Triage.from_json(job.triage)) if job.triage else "")),
            ("Finished", ended(job)),
            *((escape(name.replace("_", " ")), _plain(value)) for name, value in others if value != ""),
        ]
    )


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{escape(name)} {_plain(item)}" for name, item in value.items())
    return escape(value if isinstance(value, str | int | float) else json.dumps(value))
