"""What tells a process from one that gets its number later: of a daemon in the record, or of who was promised room."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def identity() -> dict[str, Any]:
    """Return what tells this process from one that gets its number later."""
    return {
        "boot": _line(Path("/proc/sys/kernel/random/boot_id")),
        "namespace": _namespace(),
        "began": began(os.getpid()),
    }


def is_alive(pid: int) -> bool:
    """Tell whether a process of this machine has that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_gone(pid: int, whose: Mapping[str, Any]) -> bool:
    """Tell whether a process of this boot and namespace is no more: nothing has its number, or another process has.

    Parameters
    ----------
    pid : int
    whose : mapping
        What :func:`identity` gave in that process; nothing, from a program that did not note it.
    """
    return not is_alive(pid) or whose.get("began") not in {None, began(pid)}


def began(pid: int) -> int | None:
    """Return when a process began, in ticks since the machine did; None where that cannot be told."""
    # Field 22; the second one, the program's name, may hold spaces and parentheses.
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
