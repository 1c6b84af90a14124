"""The one page for now: queue and history. Streamlit runs this file for every visitor."""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from dashboard import context
from wsi_denoise import NOTICE, __version__
from wsi_denoise.errors import WsiDenoiseError
from wsi_denoise.jobs.states import OVER, JobState
from wsi_denoise.jobs.values import Job, JobPage, JobQuery

REFRESH_SECONDS = 2.0
SHOWN = 200
_WAITING = tuple(state for state in JobState if state not in OVER)


def _time(value: datetime | None) -> str:
    return "" if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M")


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _queue_row(job: Job) -> dict[str, object]:
    return {
        "job": job.id,
        "slide": job.relative,
        "state": job.state.value,
        "progress": job.progress,
        "MPix/s": job.rate,
        "left": _left(job.seconds_left),
        "priority": job.priority,
        "preset": job.preset,
        "next try": _time(job.next_try),
        "note": job.error or "",
    }


def _history_row(job: Job) -> dict[str, object]:
    return {
        "job": job.id,
        "slide": job.relative,
        "state": job.state.value,
        "verdict": job.verdict or "",
        "why": "; ".join(job.reasons) or job.error or "",
        "finished": _time(job.finished),
        "preset": job.preset,
        "output": job.output or "",
    }


def _table(title: str, page: JobPage, rows: list[dict[str, object]], empty: str) -> None:
    st.subheader(title)
    if not rows:
        st.text(empty)
        return
    st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        column_config={
            "progress": st.column_config.ProgressColumn(min_value=0.0, max_value=1.0, format="percent"),
            "MPix/s": st.column_config.NumberColumn(format="%.2f"),
        },
    )
    if page.total > len(rows):
        st.caption(f"{len(rows)} of {page.total}; wsi-denoise jobs shows the rest.")


@st.fragment(run_every=REFRESH_SECONDS)
def _live() -> None:
    try:
        store = context.store()
        counts = store.count_by_state()
        paused = store.paused()
        waiting = store.jobs(JobQuery(states=_WAITING, limit=SHOWN, sort="-state"))
        over = store.jobs(JobQuery(states=tuple(OVER), limit=SHOWN, sort="-finished"))
        daemons = store.daemons()
    except WsiDenoiseError as error:
        st.error(str(error), icon=":material/database_off:")
        return
    if paused is not None:
        # As text: a reason is what somebody typed, and not markup.
        st.warning("The queue is paused.", icon=":material/pause:")
        st.text(paused)
    if not daemons:
        st.info("No daemon is running: wsi-denoise watch, or wsi-denoise up.")
    st.text("   ".join(f"{state.value} {count}" for state, count in counts.items() if count) or "No jobs yet.")
    _table("Queue", waiting, [_queue_row(job) for job in waiting.jobs], "Nothing is waiting.")
    _table("History", over, [_history_row(job) for job in over.jobs], "Nothing has been finished yet.")


st.set_page_config(page_title="wsi-denoise", layout="wide")
st.title("wsi-denoise")
st.caption(f"{NOTICE.capitalize()}. Version {__version__}.")
_live()
