"""Queue: what runs, what waits, what was finished last, and a place to drop slides."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from dashboard import context
from dashboard.pages import queue_view
from dashboard.pages.components import mount
from dashboard.pages.heading import heading
from dashboard.pages.words import for_page, in_markdown
from wsi_denoise.errors import WsiDenoiseError
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import JobQuery

REFRESH_SECONDS = 2.0
MESSAGE_SECONDS = 12.0
ORIGIN = "person:page"


def act(event: Mapping[str, Any]) -> None:
    """Do what was clicked; what cannot be done is said."""
    store, what, job = context.store(), event.get("what"), event.get("job")
    try:
        if what == "open":
            st.session_state.go = (str(event.get("page")), job)
        elif what == "pause":
            store.pause(ORIGIN, str(event.get("value") or "")[:200])
        elif what == "resume":
            store.resume(ORIGIN)
        elif what == "cancel":
            store.cancel(int(job), ORIGIN)
        elif what == "retry":
            store.retry(int(job), ORIGIN)
        elif what == "priority":
            wanted = queue_view.priority(int(event["value"]), store.job(int(job)).priority)
            store.set_priority(int(job), wanted, ORIGIN)
    except WsiDenoiseError as error:
        st.session_state.said = (datetime.now(UTC), str(error))


def state() -> dict[str, Any]:
    """Ask the store, once each."""
    store, now = context.store(), datetime.now(UTC)
    said_at, said = st.session_state.get("said", (now, ""))
    return queue_view.state(
        settings=context.settings(),
        now=now,
        daemons=store.daemons(),
        paused=store.paused(),
        counts=store.count_by_state(),
        running=store.jobs(JobQuery(states=(JobState.RUNNING,), sort="started", limit=queue_view.RUNNING_SHOWN)),
        waiting=store.waiting(queue_view.WAITING_SHOWN),
        finished=store.last_finished(queue_view.FINISHED_SHOWN),
        message=said if (now - said_at).total_seconds() < MESSAGE_SECONDS else "",
    )


@st.fragment(run_every=REFRESH_SECONDS)
def live() -> None:
    """Draw the queue; the only part of the page that is refreshed."""
    go = st.session_state.pop("go", None)
    if go is not None:
        page, job = go
        st.switch_page(f"screens/{page}.py", query_params={"job": str(job)} if job else None)
    try:
        shown = state()
    except WsiDenoiseError as error:
        st.error(in_markdown(for_page(str(error))), icon=":material/database_off:")
        return
    mount("queue", shown, key="queue", act=act)


heading("Queue")
live()
mount("upload", {"limit": context.settings().dashboard.upload_megabytes}, key="upload")
