"""Identity of a process, to distinguish it from a later process with the same number.

It is stored for daemons in the job database, and for reservations of disk space.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def identity() -> dict[str, Any]:
    """Return values that distinguish this process from a later one with the same number."""
    return {
        "boot": _line(Path("/proc/sys/kernel/random/boot_id")),
        "namespace": _namespace(),
        "began": began(os.getpid()),
    }


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_gone(pid: int, whose: Mapping[str, Any]) -> bool:
    """Return whether a process of this boot and namespace has ended, even if another process has its number now.

    Parameters
    ----------
    whose : mapping
        Result of :func:`identity` in that process; empty if it was not stored.
    """
    return not is_alive(pid) or whose.get("began") not in {None, began(pid)}


def began(pid: int) -> int | None:
    """Return the start time of a process in ticks since the boot, or None if it is unknown."""
    # Field 22; field 2, the program's name, may contain spaces and parentheses.
    fields = _line(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else None


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _line(file: Path) -> str:
    try:
        return file.read_text("ascii", "replace").strip()
    except OSError:
        return ""
