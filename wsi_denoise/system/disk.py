"""Free space, and what an error while writing means."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsi_denoise.errors import DiskFull, OutputUnwritable, WsiDenoiseError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What a system says when there is no room: on the disk, or for this user."""


def free(folder: Path) -> int:
    """Return the bytes that this user may still write where a folder is, or will be."""
    return shutil.disk_usage(existing_folder(folder)).free


def write_error(error: OSError, where: Path) -> WsiDenoiseError:
    """Return the error of ours for an operating system's error while writing."""
    if error.errno in FULL:
        return DiskFull(f"in {where}")
    return OutputUnwritable(f"{where} ({error.strerror or error})")


@contextmanager
def translate_write_errors(where: Path) -> Iterator[None]:
    """Raise an operating system's error while writing as the error of ours; see :func:`write_error`."""
    try:
        yield
    except OSError as error:
        raise write_error(error, where) from error


def existing_folder(folder: Path) -> Path:
    """Return a folder, or its nearest parent that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
