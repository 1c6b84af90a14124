"""One job on the History page: actions, facts, attempts, events, settings, metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import context
from dashboard.pages.components import ORIGIN, heading, html, open_page, show_error
from dashboard.pages.markup import checksum, chip, escape, facts, job_link, table
from dashboard.pages.words import STATES, ended, for_page, in_markdown, number, of, parts_of, result, size, when
from wsi_denoise.errors import NoSuchJob, WsiDenoiseError
from wsi_denoise.jobs.states import ALLOWED, JobState
from wsi_denoise.jobs.values import Attempt, Event, Job
from wsi_denoise.network import candidates, weights

REFRESH_SECONDS = 2.0


def draw(number_of: int) -> None:
    """Draw a job."""
    st.button("All jobs", key="close", on_click=close, type="tertiary", icon=":material/arrow_back:")
    draw_live(number_of)


def close() -> None:
    """Return to the list."""
    st.query_params.pop("job", None)


@st.fragment(run_every=REFRESH_SECONDS)
def draw_live(job_id: int) -> None:
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
        html(f"<p>There is no job {job_id}.</p>")
        return
    except WsiDenoiseError as error:
        show_error(error)
        return
    name, folder = parts_of(job.relative)
    heading(f"Job {job.id}", folder + name, chip(result(job)))
    files = Files.of(job)
    _buttons(job, actions(job, files))
    for text in (*missing_notes(job, files), for_page(st.session_state.get("said", ""))):
        if text:
            st.warning(in_markdown(text), icon=":material/info:")
    html(body(job, attempts, events))


@dataclass(frozen=True)
class Files:
    """State of a job's files on this machine.

    Parameters
    ----------
    original, output : bool
        The file exists.
    original_removed, output_removed : bool
        The file is missing from a folder that exists. A folder that this machine does not see may exist for the daemon.
    """

    original: bool
    output: bool
    original_removed: bool
    output_removed: bool

    @classmethod
    def of(cls, job: Job) -> Files:
        """Check the files."""
        original, output = Path(job.slide), Path(job.output or "")
        has_original, has_output = original.exists(), bool(job.output) and output.is_file()
        return cls(
            original=has_original,
            output=has_output,
            original_removed=not has_original and original.parent.is_dir(),
            output_removed=bool(job.output) and not has_output and output.parent.is_dir(),
        )


def actions(job: Job, files: Files) -> set[str]:
    """Return the actions that are possible now: compare, download, retry, cancel, rerun."""
    done, over = job.state is JobState.DONE, job.finished is not None
    possible = {
        "compare": done and (files.original or files.output),
        "download": done and files.output,
        "retry": _can_retry(job, files),
        "cancel": not over and not job.cancel_requested,
        "rerun": over and bool(job.fingerprint) and not files.original_removed,
    }
    return {name for name, can in possible.items() if can}


def _can_retry(job: Job, files: Files) -> bool:
    if job.state is JobState.DONE:
        return files.output_removed
    waits = job.state is JobState.QUEUED and job.next_try is not None
    return waits or (job.finished is not None and JobState.QUEUED in ALLOWED[job.state])


def missing_notes(job: Job, files: Files) -> list[str]:
    """Return notes on missing files of a job that has ended."""
    if job.finished is None:
        return []
    said = []
    if job.state is JobState.DONE and job.output and not files.output:
        said.append(f"The denoised slide is no longer at {job.output}. Run the job again to write it.")
    if not files.original:
        said.append(f"This machine finds no file at {job.slide}. Copy the original there, or mount its folder.")
    return said


def _buttons(job: Job, possible: set[str]) -> None:
    row = st.container(horizontal=True, vertical_alignment="bottom")
    if "compare" in possible and row.button("Compare before and after", key="compare"):
        open_page("compare", job.id)
    if "download" in possible:
        row.link_button("Download the TIFF", f"/slides/{job.id}/download")
    if "retry" in possible:
        label = "Try now" if job.finished is None else "Try again"
        row.button(label, key="retry", on_click=do, args=("retry", job))
    if "cancel" in possible:
        row.button("Cancel", key="cancel", on_click=do, args=("cancel", job))
    if "rerun" in possible:
        _rerun(row, job)


def _rerun(row: DeltaGenerator, job: Job) -> None:
    unsafe = context.settings().model.allow_unsafe
    named = [card.name for card in weights.presets() if unsafe or not card.not_for_slides]
    presets = [candidates.AUTO, *named]
    chosen = row.selectbox(
        "Preset", presets, key="again", width=220, label_visibility="collapsed",
        index=presets.index(job.preset) if job.preset in presets else 0,
    )  # fmt: skip
    row.button(
        "Run again with this preset", key="rerun", on_click=do, args=("rerun", job, chosen),
        help="A new job of the same slide, with this preset and today's settings.",
    )  # fmt: skip


def do(what: str, job: Job, preset: str = "") -> None:
    """Carry out the action of a button, and keep the error to be shown."""
    store, settings = context.store(), context.settings()
    st.session_state.said = ""
    try:
        if what == "retry":
            store.retry(job.id, ORIGIN, inboxes=settings.intake.inbox)
        elif what == "cancel":
            store.cancel(job.id, ORIGIN)
        elif what == "rerun":
            new = store.rerun(
                job.id,
                preset=preset,
                settings=settings.pixel_settings(),
                settings_hash=settings.pixel_hash(),
                origin=ORIGIN,
                model_checksum=candidates.checksum(preset),
            )
            st.session_state.goto = new.id
    except WsiDenoiseError as error:
        st.session_state.said = str(error)


def body(job: Job, attempts: Sequence[Attempt], events: Sequence[Event]) -> str:
    """Return everything below the buttons as HTML."""
    rows = [(when(one.time), escape(one.origin), escape(one.kind), escape(for_page(one.message))) for one in events]
    parts = {
        "Facts": facts(fact_rows(job)),
        "Attempts": _attempts(attempts) if attempts else "",
        "Events": table(["Time", "Who", "What", "Message"], rows, short={0, 1, 2}),
        "Settings it was queued with": _settings(job) if job.settings else "",
        "Metrics": _metrics(job) if job.metrics else "",
    }
    return "".join(f"<h2>{name}</h2>{part}" for name, part in parts.items() if part)


def fact_rows(job: Job) -> list[tuple[str, str]]:
    """Return the facts of a job: names and HTML, which is empty for what is not known."""
    return [
        ("Slide", escape(job.slide)),
        ("State", STATES[job.state.value].word + (", asked to stop" if job.cancel_requested else "")),
        ("Went wrong", f"{escape(for_page(job.error))} <code>{escape(job.error_code)}</code>" if job.error else ""),
        ("Tried again", when(job.next_try)),
        ("Why", "<br>".join(escape(for_page(reason)) for reason in job.reasons)),
        ("Preset", escape(job.preset)),
        ("Priority", str(job.priority) if job.priority else ""),
        ("Size", _size(job)),
        ("Region", "x {}, y {}, {} × {} px".format(*job.region) if job.region else ""),
        ("Blocks", _blocks(job)),
        ("Seen", when(job.created)),
        ("Started", when(job.started)),
        ("Finished", ended(job)),
        ("Result", escape(job.output) if job.output else ""),
        ("Same as", job_link(job.duplicate_of) if job.duplicate_of else ""),
        ("Brought in by", escape(job.origin)),
        ("Content", checksum(job.fingerprint)),
    ]


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


def _attempts(found: Sequence[Attempt]) -> str:
    rows = [
        (
            str(one.number),
            when(one.started),
            when(one.ended) if one.ended else "now",
            escape((one.outcome or "running").replace("_", " ")),
            f"{one.blocks_done:,}",
            escape(for_page(one.error)) if one.error else "",
        )
        for one in found
    ]
    head = ["No", "Started", "Ended", "Outcome", "Blocks", "What went wrong"]
    return table(head, rows, numbers={4}, short={0, 1, 2, 3})


def _settings(job: Job) -> str:
    rows = [(f"<code>{escape(name)}</code>", escape(value)) for name, value in job.settings.items()]
    return table(["Setting", "Value"], rows, narrow=True)


def _metrics(job: Job) -> str:
    rows = [
        # Counts are whole.
        (f"<code>{escape(name)}</code>", number(value, 0 if name.endswith("patches") else 3))
        for name, value in sorted(job.metrics.items())
    ]
    return table(["Metric", "Value"], rows, numbers={1}, narrow=True)
