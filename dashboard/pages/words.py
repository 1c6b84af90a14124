"""Words of the pages: names, times, durations, sizes, states, reasons. Pure."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import NamedTuple

from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import DaemonInfo, Job
from wsi_denoise.settings import Settings
from wsi_denoise.system import clocks


class Result(NamedTuple):
    """A state or verdict: word, colour of the chip, and meaning."""

    word: str
    colour: str
    meaning: str


STATES = {
    "settling": Result("settling", "grey", "The file was seen; it is not known yet whether it is complete."),
    "queued": Result("waiting", "blue", "Complete and checked; waits for a daemon."),
    "running": Result("running", "blue", "A daemon works on it."),
    "done": Result("done", "green", "The denoised slide is written and verified."),
    "failed": Result("failed", "red", "An error that is not the file's. It is not retried automatically."),
    "quarantined": Result("quarantined", "red", "The file cannot be used."),
    "cancelled": Result("cancelled", "grey", "A user cancelled it, or the file was removed."),
    "duplicate": Result("duplicate", "grey", "The same content with the same settings has a job already."),
}
VERDICTS = {
    "pass": Result(
        "pass", "green", "Noise was found and removed, and no check found anything else removed, added or changed."
    ),
    "review": Result("review", "orange", "Check it before use; the reasons say what to check."),
    "not_needed": Result("not needed", "grey", "The slide has no noise worth removing. A TIFF is written anyway."),
}
DAEMONS = {
    "alive": Result("alive", "green", "Its heartbeat is recent."),
    "late": Result("late", "orange", "Its heartbeat is late."),
    "lost": Result("lost", "red", "Its lease has ended: other daemons resume its jobs."),
    "stopped": Result("stopped", "grey", "A user stopped it."),
}


def result(job: Job) -> Result:
    """Return the verdict of a done job, and the state of any other."""
    if job.state is JobState.DONE and job.verdict in VERDICTS:
        return VERDICTS[job.verdict]
    if job.state is JobState.QUEUED and job.next_try is not None:
        return Result("waits to retry", "orange", "It failed and is retried automatically.")
    return STATES[job.state.value]


def sentence(reason: str) -> str:
    """Return a reason of a verdict without its code."""
    code, found, text = reason.partition(": ")
    text = text if found else code
    return for_page(text[:1].upper() + text[1:])


def why(job: Job) -> str:
    """Return the first reason of a verdict, or the error."""
    if job.reasons:
        return sentence(job.reasons[0])
    if job.state is JobState.DUPLICATE and job.duplicate_of is not None:
        return f"The same as job {job.duplicate_of}."
    return for_page(job.error or "")


def condition(daemon: DaemonInfo, now: datetime, settings: Settings) -> str:
    """Return the key of a daemon's condition in :data:`DAEMONS`."""
    silent = clocks.silence(daemon.heartbeat, now).total_seconds()
    if daemon.stopped is not None:
        return "stopped"
    if silent > settings.jobs.lease_seconds:
        return "lost"
    return "late" if silent > 3 * settings.jobs.heartbeat_seconds else "alive"


def heard(daemon: DaemonInfo, now: datetime) -> str:
    """Return the age of a daemon's last heartbeat, which another machine's clock may have put into the future."""
    silent = duration(clocks.silence(daemon.heartbeat, now).total_seconds())
    return f"{silent} ahead of this clock" if daemon.heartbeat > now else f"{silent} ago"


def visible(text: object) -> str:
    """Return text in which every character is visible.

    Line ends, characters that change the direction of writing, and bytes that are not text become escapes, as on the
    command line.
    """
    shown = os.fsencode(str(text)).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in shown)


_COMMANDS = (
    (r"wsi-denoise retry (?:ID|\d+)", "the button Try again"),
    (r"wsi-denoise cancel (?:ID|\d+)", "the button Cancel"),
    (r"wsi-denoise resume", "the button Resume on the Queue page"),
    (r"wsi-denoise pause", "the button Pause on the Queue page"),
    (r"wsi-denoise priority (?:ID|\d+) N", "the arrows on the Queue page"),
    (r"wsi-denoise job (?:ID|\d+)", "the job's page in History"),
    (r"wsi-denoise jobs", "the History page"),
    (r"wsi-denoise models", "the tab Models on the System page"),
    (r"wsi-denoise config", "the tab Settings on the System page"),
    (r"wsi-denoise doctor", "the System page"),
    (r"See wsi-denoise --help", "See the documentation"),
)
"""Command to what the dashboard has for it. A command without a counterpart stays."""


def for_page(text: str) -> str:
    """Return a message of the program for the dashboard: it names buttons and pages instead of commands."""
    for command, words in _COMMANDS:

        def place(found: re.Match[str], words: str = words) -> str:
            before = found.string[: found.start()].rstrip()
            return words[:1].upper() + words[1:] if not before or before[-1] in ".!?" else words

        text = re.sub(f"{command}(?![\\w-])", place, text)
    # Reasons that an earlier version stored.
    return re.sub(r"(?<![\d.,])1 patches\b", "1 patch", text)


def in_markdown(text: object) -> str:
    """Return text for a widget's label, where Streamlit would read Markdown."""
    return "".join(f"\\{letter}" if letter in _MARKDOWN else letter for letter in visible(text))


_MARKDOWN = frozenset("\\`*_{}[]()<>#+-.!|~:$&=^\"'")


def when(value: datetime | None, *, now: datetime | None = None) -> str:
    """Return a time in this machine's zone to the minute, without today's date."""
    if value is None:
        return ""
    local, today = value.astimezone(), (now or datetime.now(UTC)).astimezone()
    return local.strftime("%H:%M" if local.date() == today.date() else "%Y-%m-%d %H:%M")


def duration(seconds: float | None) -> str:
    """Return a duration in its two largest units, as ``2 min 10 s``."""
    if seconds is None:
        return ""
    whole = max(round(seconds), 0)
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    largest = next((index for index, (_, size) in enumerate(units) if whole >= size), len(units) - 1)
    parts = []
    for name, size in units[largest : largest + 2]:
        count, whole = divmod(whole, size)
        if count or not parts:
            parts.append(f"{count} {name}")
    return " ".join(parts)


def ended(job: Job) -> str:
    """Return the time at which a job ended, and its duration."""
    if not (job.finished and job.started):
        return when(job.finished)
    return f"{when(job.finished)}, after {duration((job.finished - job.started).total_seconds())}"


def size(count: float) -> str:
    """Return bytes in the unit that fits, as ``34.5 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            whole = f"{count:.0f} byte{'' if round(count) == 1 else 's'}"
            return whole if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def number(value: float | None, digits: int = 1) -> str:
    """Return a number with separators for thousands, or a dash if it was not measured."""
    return "–" if value is None else f"{value:,.{digits}f}"


def count(number_of: int, noun: str) -> str:
    """Return ``1 job``, ``1,234 jobs``."""
    ending = "" if number_of == 1 else "es" if noun.endswith(("ch", "s")) else "s"
    return f"{number_of:,} {noun}{ending}"


def of(part: int, whole: int, noun: str) -> str:
    """Return ``3 of 12 blocks``, ``0 of 1 block``."""
    return f"{part:,} of {count(whole, noun)}"


def parts_of(relative: str) -> tuple[str, str]:
    """Return a slide's file name, and its folder under the inbox with a slash at its end (empty for none)."""
    folder, _, name = visible(relative).rpartition("/")
    return name, f"{folder}/" if folder else ""
