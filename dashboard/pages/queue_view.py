"""What the Queue page shows, as plain values for its component. Pure: the store is asked elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from dashboard.pages.words import STATES, VERDICTS, duration, for_page, of, parts_of, size, visible, when
from wsi_denoise.jobs.states import OVER, JobState
from wsi_denoise.jobs.values import PRIORITIES, DaemonInfo, Job, JobPage
from wsi_denoise.settings import Settings
from wsi_denoise.system import clocks

RUNNING_SHOWN = 8
WAITING_SHOWN = 50
FINISHED_SHOWN = 12


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
    """Return everything the component draws: texts and numbers, ready to be shown as they are."""
    alive = [daemon for daemon in daemons if _silent(daemon, now) <= settings.jobs.lease_seconds]
    return {
        "daemons": [_daemon(daemon, now, settings) for daemon in daemons],
        "alive": bool(alive),
        "paused": None if paused is None else visible(paused),
        "counts": [
            {
                "word": STATES[one.value][0],
                "count": f"{counts.get(one, 0):,}",
                "state": one.value,
                "colour": _colour(one),
            }
            for one in JobState
            if one in OVER and (counts.get(one) or one is JobState.DONE)
        ],
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


def priority(wanted: int, current: int) -> int:
    """Return the priority that a click makes: within the usual bounds, and never on the other side of the current one.

    Parameters
    ----------
    wanted : int
    current : int
        May be beyond the bounds, from before there were any.
    """
    return max(min(current, PRIORITIES[0]), min(wanted, max(current, PRIORITIES[-1])))


def _colour(one: JobState) -> str:
    return STATES[one.value][1]


def _silent(daemon: DaemonInfo, now: datetime) -> float:
    return clocks.silence(daemon.heartbeat, now).total_seconds()


def _daemon(daemon: DaemonInfo, now: datetime, settings: Settings) -> dict[str, Any]:
    silent = _silent(daemon, now)
    late = silent > 3 * settings.jobs.heartbeat_seconds
    lost = silent > settings.jobs.lease_seconds
    heard = f"last heard of {duration(silent)} ago"
    if daemon.heartbeat > now:
        heard = f"last heartbeat {duration(silent)} ahead of this clock"
    return {
        "id": daemon.id,
        "host": visible(daemon.host),
        "device": visible(daemon.device or "finding its device"),
        "state": "lost" if lost else "late" if late else "alive",
        "heartbeat": heard if late else "alive",
    }


def _named(job: Job) -> dict[str, Any]:
    name, folder = parts_of(job.relative)
    return {"id": job.id, "name": name, "folder": folder}


def _running(job: Job) -> dict[str, Any]:
    planned = job.blocks_total > 0
    pixels = f"{job.width:,} × {job.height:,} px" if job.width and job.height else ""
    resumed = f"{job.blocks_resumed:,} taken over" if job.blocks_resumed else ""
    blocks = of(job.blocks_done, job.blocks_total, "block") if planned else "looking for tissue"
    finishing = planned and job.blocks_done >= job.blocks_total
    step = (
        "stopping, as asked"
        if job.cancel_requested
        else "writing and verifying the TIFF"
        if finishing
        else "denoising"
        if planned
        else "opening"
    )
    return {
        **_named(job),
        "progress": round(job.progress, 4),
        "percent": f"{int(job.progress * 100)} %",
        "step": step,
        "blocks": blocks,
        "blocks_done": job.blocks_done,
        "opened": planned,
        "facts": [text for text in (pixels, size(job.size_bytes), f"preset {visible(job.preset)}", resumed) if text],
        "rate": f"{job.rate:.2f} MPix/s" if job.rate else "",
        "left": duration(job.seconds_left) if job.seconds_left is not None and not finishing else "",
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
    word, colour, meaning = VERDICTS[job.verdict] if job.verdict in VERDICTS else STATES[job.state.value]
    return {
        **_named(job),
        "word": word,
        "colour": colour,
        "meaning": meaning,
        "when": when(job.finished, now=now),
        "why": visible(why(job)),
        "same": job.duplicate_of,
        "done": job.state is JobState.DONE,
    }


def why(job: Job) -> str:
    """Return the first reason of a verdict without its code, or what went wrong."""
    if job.reasons:
        code, found, sentence = job.reasons[0].partition(": ")
        text = sentence if found else code
        return for_page(text[:1].upper() + text[1:])
    if job.state is JobState.DUPLICATE and job.duplicate_of is not None:
        return f"The same as job {job.duplicate_of}."
    return for_page(job.error or "")
