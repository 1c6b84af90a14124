"""Checks of settings that are valid alone, but not together or not on this machine."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_denoise.settings.model import Settings

LEAST_BEATS = 2.0
"""Minimum number of heartbeats per lease: a single late one must not lose the lease."""


def contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield (name, fault) for settings that contradict each other."""
    jobs, compute, intake = settings.jobs, settings.compute, settings.intake
    if LEAST_BEATS * jobs.heartbeat_seconds > jobs.lease_seconds:
        why = f"{jobs.heartbeat_seconds:g} is too long for jobs.lease_seconds = {jobs.lease_seconds:g}"
        most = f"{jobs.lease_seconds / LEAST_BEATS:g}"
        yield "jobs.heartbeat_seconds", f"{why}: daemons would take jobs from each other; allowed: at most {most}"
    if compute.backend == "openvino" and compute.device == "cuda":
        yield "compute.backend", "openvino runs on a CPU, and compute.device is cuda; allowed: auto, torch"
    if compute.device == "cpu" and compute.precision == "fp16":
        yield "compute.precision", "fp16 is for CUDA, and compute.device is cpu; allowed: auto, fp32, bf16"
    inboxes = {os.path.realpath(inbox) for inbox in intake.inbox}
    for name, folder in (("intake.quarantine", intake.quarantine), ("jobs.state", settings.jobs.state)):
        if os.path.realpath(folder) in inboxes:
            yield name, f"{folder} is an inbox: what is kept there would be taken for slides; allowed: another folder"
    for path, count in Counter(folder.path for folder in settings.folders).items():
        if count > 1:
            yield "folders", f"{path} is named {count} times; allowed: once"
