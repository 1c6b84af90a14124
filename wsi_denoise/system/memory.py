"""How much memory there is, and how what a process of months has done with goes back to the system.

A leakless daemon grew by 30 kB a slide (docs/evidence/reliability.md). The C library keeps what Python frees: each
thread gets an arena of its own, which one small piece in use holds open. And what refers to itself in a circle is freed
when Python looks for such circles among old objects: that is when there are a quarter more of them, and libraries bring
hundreds of thousands.
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
    """Return how many bytes this process and its children may take: the machine's, or what their control groups allow.

    A container has a group of its own, and so has a service of systemd (``MemoryMax=``); the least of a group and those
    it is in counts. (`Dask looks at the outermost one only
    <https://distributed.dask.org/en/stable/worker-memory.html>`_.)

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` are.
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
                # memory.high slows a process down until it frees memory: that is no way to run either.
                for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
                    with suppress(OSError, ValueError):  # of another version, or "max"
                        found.append(int((place / name).read_text()))
    return min(found)


def share_one_arena() -> bool:
    """Have all threads of this process allocate from one arena, and large pieces given back at once.

    For a process whose threads mostly wait. Does nothing, and says so, where the C library is not glibc.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_THRESHOLD, LARGE), mallopt(_TRIM_THRESHOLD, LARGE)])
    return False


def leave_libraries_alone() -> None:
    """Have the search for circles pass over all objects there are now, which makes it cheap and frequent."""
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Give free pages back to the system; a few milliseconds."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class GivingBack:
    """Frees circles and gives back what is free, now and then.

    Parameters
    ----------
    forget : callable
        Called before: empties what else is kept for no use.
    """

    def __init__(self, forget: Callable[[], object] = lambda: None) -> None:
        self._next, self._forget = 0.0, forget

    def look(self) -> None:
        """Give memory back when it is time to."""
        if time.monotonic() >= self._next:
            self._forget()
            gc.collect()
            give_back()
            self._next = time.monotonic() + EVERY_SECONDS
