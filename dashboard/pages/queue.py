"""Queue: running and waiting slides, the last finished ones, and a place to drop slides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from dashboard import context
from dashboard.pages.components import ORIGIN, heading, mount, open_page, show_error
from dashboard.pages.words import (
    STATES,
    condition,
    duration,
    for_page,
    heard,
    of,
    parts_of,
    result,
    size,
    visible,
    when,
    why,
)
from wsi_denoise.errors import WsiDenoiseError
from wsi_denoise.jobs.states import OVER, JobState
from wsi_denoise.jobs.values import PRIORITIES, DaemonInfo, Job, JobPage, JobQuery
from wsi_denoise.settings import Settings

RUNNING_SHOWN = 8
WAITING_SHOWN = 50
FINISHED_SHOWN = 12
REFRESH_SECONDS = 2.0
MESSAGE_SECONDS = 12.0


def draw() -> None:
    """Draw the page."""
    heading("Queue")
    live()
    mount("upload", {"limit": context.settings().dashboard.upload_megabytes}, key="upload")


@st.fragment(run_every=REFRESH_SECONDS)
def live() -> None:
    """Draw the queue, the only part of the page that is refreshed."""
    go = st.session_state.pop("go", None)
    if go is not None:
        open_page(*go)
    try:
        shown = current()
    except WsiDenoiseError as error:
        show_error(error)
        return
    mount("queue", shown, key="queue", act=act)


def current() -> dict[str, Any]:
    """Return the values of the component from the job database."""
    store, now = context.store(), datetime.now(UTC)
    message_time, message = st.session_state.get("message", (now, ""))
    return state(
        settings=context.settings(),
        now=now,
        daemons=store.daemons(),
        paused=store.paused(),
        counts=store.count_by_state(),
        running=store.jobs(JobQuery(states=(JobState.RUNNING,), sort="started", limit=RUNNING_SHOWN)),
        waiting=store.waiting(WAITING_SHOWN),
        finished=store.last_finished(FINISHED_SHOWN),
        message=message if (now - message_time).total_seconds() < MESSAGE_SECONDS else "",
    )


def act(event: Mapping[str, Any]) -> None:
    """Carry out an action of the user, and keep the error to be shown."""
    store, what, job = context.store(), event.get("what"), event.get("job")
    try:
        match what:
            case "open":
                st.session_state.go = (str(event.get("page")), job)
            case "pause":
                store.pause(ORIGIN, str(event.get("value") or "")[:200])
            case "resume":
                store.resume(ORIGIN)
            case "cancel":
                store.cancel(int(job), ORIGIN)
            case "retry":
                store.retry(int(job), ORIGIN)
            case "priority":
                wanted = priority(int(event["value"]), store.job(int(job)).priority)
                store.set_priority(int(job), wanted, ORIGIN)
    except WsiDenoiseError as error:
        st.session_state.message = (datetime.now(UTC), str(error))


def priority(wanted: int, current: int) -> int:
    """Return the priority that a click makes: within the limits, and never on the other side of the current one.

    Parameters
    ----------
    current : int
        An earlier version may have stored one beyond the limits.
    """
    return max(min(current, PRIORITIES[0]), min(wanted, max(current, PRIORITIES[-1])))


def state(
    *,
    settings: Settings,
    now: datetime,
    daemons: Sequence[DaemonInfo],
    paused: str | None,
    counts: Mapping[JobState, int],
    running: JobPage,
    waiting: JobPage,
    finished: Sequence[Job],
    message: str = "",
) -> dict[str, Any]:
    """Return the values of the component: texts and numbers, ready to be shown."""
    shown = [_daemon(daemon, now, settings) for daemon in daemons]
    return {
        "daemons": shown,
        "alive": any(daemon["state"] in {"alive", "late"} for daemon in shown),
        "paused": None if paused is None else visible(paused),
        "counts": [_count(one, counts) for one in JobState if _is_counted(one, counts)],
        "ever": sum(counts.values()),
        "running": [_running(job) for job in running.jobs],
        "running_total": running.total,
        "waiting": [_waiting(job, now) for job in waiting.jobs],
        "waiting_total": waiting.total,
        "finished": [_finished(job, now) for job in finished],
        "inboxes": [visible(inbox) for inbox in settings.intake.inbox],
        "output": visible(settings.output.folder),
        "settle": duration(settings.intake.settle_seconds),
        "message": visible(for_page(message)),
    }


def _is_counted(one: JobState, counts: Mapping[JobState, int]) -> bool:
    return one is JobState.DONE or (one in OVER and counts.get(one, 0) > 0)


def _count(one: JobState, counts: Mapping[JobState, int]) -> dict[str, str]:
    word, colour, _ = STATES[one.value]
    return {"word": word, "count": f"{counts.get(one, 0):,}", "state": one.value, "colour": colour}


def _daemon(daemon: DaemonInfo, now: datetime, settings: Settings) -> dict[str, Any]:
    found = condition(daemon, now, settings)
    return {
        "id": daemon.id,
        "host": visible(daemon.host),
        "device": visible(daemon.device or "finding its device"),
        "state": found,
        "heartbeat": "alive" if found == "alive" else f"last heartbeat {heard(daemon, now)}",
    }


def _named(job: Job) -> dict[str, Any]:
    name, folder = parts_of(job.relative)
    return {"id": job.id, "name": name, "folder": folder}


def _is_finishing(job: Job) -> bool:
    return 0 < job.blocks_total <= job.blocks_done


def _step(job: Job) -> str:
    if job.cancel_requested:
        return "stopping, as asked"
    if _is_finishing(job):
        return "writing and verifying the TIFF"
    return "denoising" if job.blocks_total else "opening"


def _running(job: Job) -> dict[str, Any]:
    planned = job.blocks_total > 0
    pixels = f"{job.width:,} × {job.height:,} px" if job.width and job.height else ""
    resumed = f"{job.blocks_resumed:,} taken over" if job.blocks_resumed else ""
    facts = (pixels, size(job.size_bytes), f"preset {visible(job.preset)}", resumed)
    return {
        **_named(job),
        "progress": round(job.progress, 4),
        "percent": f"{int(job.progress * 100)} %",
        "step": _step(job),
        "blocks": of(job.blocks_done, job.blocks_total, "block") if planned else "looking for tissue",
        "blocks_done": job.blocks_done,
        "opened": planned,
        "facts": [text for text in facts if text],
        "rate": f"{job.rate:.2f} MPix/s" if job.rate else "",
        "left": "" if _is_finishing(job) else duration(job.seconds_left),
        "attempt": f"attempt {job.attempts}" if job.attempts > 1 else "",
        "cancelling": job.cancel_requested,
    }


def _waiting(job: Job, now: datetime) -> dict[str, Any]:
    if job.state is JobState.SETTLING:
        note = "is being checked, or still being copied"
    elif job.next_try is not None:
        left = (job.next_try - now).total_seconds()
        wait = f"tried again in {duration(left)}" if left > 0 else "tried again now"
        # Not "of N": what only the surroundings caused does not count against jobs.attempts.
        note = f"{wait} (attempt {job.attempts + 1}): {visible(for_page(job.error or ''))}"
    else:
        note = f"preset {visible(job.preset)}, {size(job.size_bytes)}"
    return {
        **_named(job),
        "settling": job.state is JobState.SETTLING,
        "again": job.next_try is not None,
        "priority": job.priority,
        "note": note,
    }


def _finished(job: Job, now: datetime) -> dict[str, Any]:
    return {
        **_named(job),
        **result(job)._asdict(),
        "when": when(job.finished, now=now),
        "why": visible(why(job)),
        "same": job.duplicate_of,
        "done": job.state is JobState.DONE,
    }
