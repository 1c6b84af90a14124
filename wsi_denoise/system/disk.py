"""Free disk space, and the translation of write errors."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsi_denoise.errors import DiskFull, OutputUnwritable, WsiDenoiseError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of a full disk and of an exceeded quota."""


def free(folder: Path) -> int:
    """Return the free bytes for this user on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(existing_folder(folder)).free


def write_error(error: OSError, where: Path) -> WsiDenoiseError:
    """Return DiskFull or OutputUnwritable for an OSError of a write."""
    if error.errno in FULL:
        return DiskFull(f"in {where}")
    return OutputUnwritable(f"{where} ({error.strerror or error})")


@contextmanager
def translate_write_errors(where: Path) -> Iterator[None]:
    """Translate an OSError in the block by :func:`write_error`."""
    try:
        yield
    except OSError as error:
        raise write_error(error, where) from error


def existing_folder(folder: Path) -> Path:
    """Return a folder, or its nearest parent that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
