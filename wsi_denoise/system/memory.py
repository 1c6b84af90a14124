"""The memory limit, and the return of unused memory to the system in processes that run for months.

A daemon without a leak grew by 30 kB per slide (docs/evidence/reliability.md). First, the C library keeps memory that
Python frees: each thread has its own arena, and one small allocation keeps an arena in use. Second, Python collects
reference cycles among old objects only when their number has grown by a quarter, and libraries create hundreds of
thousands of objects.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Numbers of mallopt(3)."""

LARGE = 128 * 1024
EVERY_SECONDS = 30.0


def limit(root: Path = Path("/")) -> int:
    """Return the bytes of memory for this process and its children: the least of the machine's and its cgroups' limits.

    A container and a systemd service (``MemoryMax=``) have their own control groups. All parent groups are read too;
    `Dask reads the outermost one only <https://distributed.dask.org/en/stable/worker-memory.html>`_.

    Parameters
    ----------
    root : Path
        Folder of ``proc`` and ``sys``.
    """
    found: list[int] = [psutil.virtual_memory().total]
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
            folder = top / group.lstrip("/")
            for place in (folder, *(above for above in folder.parents if above.is_relative_to(top))):
                # memory.high also counts: it slows a process down until it frees memory.
                for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
                    with suppress(OSError, ValueError):  # a file of the other cgroup version, or "max"
                        found.append(int((place / name).read_text()))
    return min(found)


def share_one_arena() -> bool:
    """Make all threads allocate from one arena, and return large allocations to the system at once.

    For a process whose threads mostly wait. Returns False without glibc, and changes nothing then.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_THRESHOLD, LARGE), mallopt(_TRIM_THRESHOLD, LARGE)])
    return False


def leave_libraries_alone() -> None:
    """Exclude all present objects from the collection of reference cycles, which makes it cheap and frequent."""
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Return free pages to the system, in a few milliseconds."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class GivingBack:
    """A periodic collection of reference cycles and return of free memory.

    Parameters
    ----------
    forget : callable
        Called before each collection, to empty caches.
    """

    def __init__(self, forget: Callable[[], object] = lambda: None) -> None:
        self._next, self._forget = 0.0, forget

    def look(self) -> None:
        """Return memory to the system, at most every `EVERY_SECONDS`."""
        if time.monotonic() >= self._next:
            self._forget()
            gc.collect()
            give_back()
            self._next = time.monotonic() + EVERY_SECONDS
