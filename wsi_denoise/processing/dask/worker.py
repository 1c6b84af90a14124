"""Query the Dask worker that a task runs in. Other processes get default values."""

from __future__ import annotations

from distributed import get_worker

from wsi_denoise.network.denoiser import Denoiser, cached
from wsi_denoise.network.plan import Plan


def callers() -> int:
    """Return how many tasks this worker runs at a time. Each may call the network."""
    try:
        return int(get_worker().state.nthreads)
    except ValueError:  # not in a worker
        return 1


def room() -> float | None:
    """Return the bytes of this worker's memory limit per thread; None without a limit."""
    try:
        limit = get_worker().memory_manager.memory_limit
    except ValueError:  # not in a worker
        return None
    return limit / callers() if limit else None


def number() -> int:
    """Return the number of this worker process on this machine, from 0; 0 if another program started it."""
    try:
        name = get_worker().name
    except ValueError:  # not in a worker
        return 0
    return name if isinstance(name, int) else 0


def denoiser(preset: str, plan: Plan, sha256: str) -> Denoiser:
    """Return this worker's denoiser; see :func:`wsi_denoise.network.denoiser.cached`.

    Raises
    ------
    WorkerDiffers
    """
    return cached(preset, plan, callers(), number(), sha256=sha256)
