"""What Compare says beside the viewer, as HTML in which everything from outside is text. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dashboard.pages.history_view import chip, table
from dashboard.pages.metric_words import GROUPS
from dashboard.pages.words import checksum, duration, escaped, for_page, parts_of, size, when
from wsi_denoise.jobs.values import Job

VIEW = ("x", "y", "zoom", "mode", "k", "of", "opacity", "overlay", "position", "side", "strength")
"""What of the viewer's state is kept in the page's address."""


def choice(job: Job) -> str:
    """Return how a job is called in the list to choose from; its text is drawn as text."""
    name, folder = parts_of(job.relative)
    verdict = (job.verdict or job.state.value).replace("_", " ")
    return f"{folder}{name}  ({verdict}, job {job.id}, {when(job.finished)})"


def headline(job: Job) -> str:
    """Return name, verdict and reasons."""
    name, folder = parts_of(job.relative)
    reasons = []
    for reason in job.reasons:
        code, found, sentence = reason.partition(": ")
        text = for_page(sentence if found else code)
        reasons.append(f"<li>{escaped(text[:1].upper() + text[1:])}</li>")
    trial = "<p>A trial on a part of the slide.</p>" if job.region else ""
    return (
        f'<div class="wd"><h2 class="name">{escaped(folder + name)} {chip(job)}</h2>'
        f'<ul style="margin:0;padding-left:1.1rem">{"".join(reasons)}</ul>{trial}</div>'
    )


def metrics(job: Job) -> str:
    """Return every metric with its sentence."""
    parts = []
    for heading, group in GROUPS:
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
        parts.append(f"<h3>{heading}</h3>{table(head, rows, numbers={1})}")
    return f'<div class="wd wd-metrics">{"".join(parts)}</div>'


def provenance(job: Job) -> str:
    """Return what made the output."""
    took = (job.finished - job.started).total_seconds() if job.finished and job.started else None
    rows = [
        ("Original", escaped(job.slide)),
        ("Its content", ", ".join(part for part in (checksum(job.fingerprint), size(job.size_bytes)) if part)),
        ("Result", escaped(job.output)),
        ("Its content", checksum(job.output_sha256)),
        ("Preset", f"{escaped(job.preset)}{_weights(job)}"),
        ("Finished", when(job.finished) + (f", after {duration(took)}" if took is not None else "")),
    ]
    rows += [(escaped(name.replace("_", " ")), _plain(value)) for name, value in _rest(job).items()]
    named = [(f"<th scope=row class=s>{name}</th>", text) for name, text in rows if text]
    return f'<div class="wd">{table([], named)}</div>'


def _weights(job: Job) -> str:
    return f", weights <code>{escaped(job.model_checksum[:12])}</code>" if job.model_checksum else ""


_SAID = ("fingerprint", "preset", "model_sha256", "output", "source")


def _rest(job: Job) -> Mapping[str, Any]:
    return {name: value for name, value in job.provenance.items() if name not in _SAID and value not in (None, "", {})}


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{escaped(name)} {_plain(item)}" for name, item in value.items())
    return escaped(value if isinstance(value, str | int | float) else json.dumps(value))
