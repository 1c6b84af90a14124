"""What a task asks of the Dask worker that it runs in; in any other process there are answers too."""

from __future__ import annotations

from distributed import get_worker


def callers() -> int:
    """Return how many tasks this worker runs at a time: each of them may call the network."""
    try:
        return int(get_worker().state.nthreads)
    except ValueError:  # not in a worker
        return 1


def room() -> float | None:
    """Return how many bytes of this worker's memory limit there are for each of its threads; None without a limit."""
    try:
        limit = get_worker().memory_manager.memory_limit
    except ValueError:  # not in a worker
        return None
    return limit / callers() if limit else None


def number() -> int:
    """Return which of the worker processes of this machine this is, from 0; 0 where others have started it."""
    try:
        name = get_worker().name
    except ValueError:  # not in a worker
        return 0
    return name if isinstance(name, int) else 0
