"""The tasks by name, for the daemon: what it submits is imported where it runs, not where it is submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def _tasks() -> Any:
    from wsi_denoise.processing import tasks  # noqa: PLC0415 - torch and tiatoolbox are for workers only

    return tasks


def probe(path: Path, max_megapixels: float) -> Any:
    """See :func:`wsi_denoise.processing.tasks.probe`."""
    return _tasks().probe(path, max_megapixels)


def plan_slide(*args: Any) -> Any:
    """See :func:`wsi_denoise.processing.tasks.plan_slide`."""
    return _tasks().plan_slide(*args)


def block(*args: Any) -> Any:
    """See :func:`wsi_denoise.processing.tasks.block`."""
    return _tasks().block(*args)


def assemble(*args: Any) -> Any:
    """See :func:`wsi_denoise.processing.tasks.assemble`."""
    return _tasks().assemble(*args)


def verify(*args: Any) -> Any:
    """See :func:`wsi_denoise.processing.tasks.verify`."""
    return _tasks().verify(*args)


def preview(*args: Any) -> Any:
    """See :func:`wsi_denoise.processing.tasks.preview`."""
    return _tasks().preview(*args)


def describe_device(compute: Any) -> str:
    """See :func:`wsi_denoise.network.denoiser.describe_device`."""
    from wsi_denoise.network.denoiser import describe_device as describe  # noqa: PLC0415

    return describe(compute)
