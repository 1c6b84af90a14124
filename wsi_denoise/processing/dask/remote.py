"""Tasks by name, for the daemon. Their code is imported where it runs, not where it is submitted."""

from __future__ import annotations

import functools
import importlib
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from wsi_denoise.errors import InternalError, WsiDenoiseError
from wsi_denoise.processing.dask.batching import Group
from wsi_denoise.processing.dask.cluster import Cluster
from wsi_denoise.processing.values import SlidePlan
from wsi_denoise.system import memory

_log = logging.getLogger(__name__)

_Task = TypeVar("_Task", bound=Callable[..., Any])


def bare(error: BaseException) -> WsiDenoiseError:
    """Return an error of this program without its causes, which are classes of any library.

    Dask sends the whole chain. One error that cannot be unpickled (imagecodecs has some) breaks the connection that
    all messages use.
    """
    if not isinstance(error, WsiDenoiseError):
        # The message contains the place in the code, as the log of a worker may be lost.
        frames = traceback.extract_tb(error.__traceback__)[-1:]
        places = [f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in frames]
        error = InternalError(f"{type(error).__name__}: {error}{''.join(places)}")
    error.__cause__ = error.__context__ = error.__traceback__ = None
    return error


def travels(task: _Task) -> _Task:
    """Wrap a task so that it raises only errors of this program; the worker logs the original."""

    @functools.wraps(task)
    def run(*args: Any, **named: Any) -> Any:
        try:
            given = task(*args, **named)
        except WsiDenoiseError as error:
            _log.debug("%s", error, exc_info=True)
            failure = error
        except Exception as error:  # noqa: BLE001 - any error must be converted before it is sent
            _log.exception("%s", task.__name__)
            failure = bare(error)
        else:
            return bare(given) if isinstance(given, BaseException) else given
        # Outside of the handler, where Python would add the caught error as context again.
        raise bare(failure)

    return run  # type: ignore[return-value]


@travels
def probe(path: Path, max_megapixels: float) -> Any:
    """See :func:`wsi_denoise.processing.dask.tasks.probe`."""
    return _load("dask.tasks").probe(path, max_megapixels)


@travels
def plan_slide(*args: Any) -> Any:
    """See :func:`wsi_denoise.processing.plan.plan_slide`."""
    return _load("plan").plan_slide(*args)


@travels
def blocks(work: Any, parts: Any) -> Any:
    """Process blocks one after the other; see :func:`wsi_denoise.processing.dask.tasks.block`."""
    return [_load("dask.tasks").block(work, *part) for part in parts]


@travels
def sent_blocks(work: Any, parts: Any) -> Any:
    """Process blocks one after the other; see :func:`wsi_denoise.processing.dask.tasks.sent_block`."""
    return [_load("dask.tasks").sent_block(work, *part) for part in parts]


@travels
def assemble(*args: Any) -> Any:
    """See :func:`wsi_denoise.processing.assemble.assemble`."""
    return _load("assemble").assemble(*args)


@travels
def verify(*args: Any) -> Any:
    """See :func:`wsi_denoise.processing.assemble.verify`."""
    try:
        return _load("assemble").verify(*args)
    finally:
        memory.give_back()  # once per slide, at its end


@travels
def preview(*args: Any) -> Any:
    """See :func:`wsi_denoise.processing.dask.tasks.preview`."""
    return _load("dask.tasks").preview(*args)


@travels
def describe_device(compute: Any, preset: str) -> str:
    """See :func:`wsi_denoise.processing.dask.tasks.describe_device`."""
    return str(_load("dask.tasks").describe_device(compute, preset))


def _load(name: str) -> Any:
    """Import a module of this package in a worker. Only workers need torch and tiatoolbox."""
    import cv2  # noqa: PLC0415

    # A worker already has as many threads as it may use; those of OpenCV would compete for the cores.
    cv2.setNumThreads(1)
    return importlib.import_module(f"wsi_denoise.processing.{name}")


def submit(cluster: Cluster, plan: SlidePlan, group: Group, *, priority: int = 0) -> Any:
    """Submit a group of blocks. The task returns a report of each, with its file if `cluster` has a home."""
    parts = [(block, plan.tissue[plan.work.lattice.patches(block)]) for block in group]
    task = blocks if cluster.home is None else sent_blocks
    return cluster.call(task, plan.work, parts, priority=priority)
