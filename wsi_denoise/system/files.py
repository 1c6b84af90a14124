"""Atomic writing of files."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

SUFFIX = ".part"
"""Suffix of a file that is being written. No other program reads such a file."""

_NAME_BYTES = 200
"""Maximum bytes of the final name in the partial one: file systems limit the latter to 255."""


@contextmanager
def atomic_path(target: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a partial name beside `target`. On success the file is flushed to the disk and gets its final name.

    Parameters
    ----------
    target : Path
        In a folder that exists.
    replace : bool
        Replace an existing file. Otherwise the first of two writers wins.

    Raises
    ------
    FileExistsError
        Without `replace`, if `target` exists. The existing file is kept.
    OSError
    """
    name = os.fsdecode(os.fsencode(target.name)[:_NAME_BYTES])
    # The name is random: threads, containers with equal process numbers, or a daemon that lost its lease may write the
    # same file at the same time.
    part = target.with_name(f".{name}.{secrets.token_hex(8)}{SUFFIX}")
    try:
        yield part
        sync(part)
        if replace:
            part.replace(target)
        else:
            rename_new(part, target)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def atomic_file(target: Path, *, replace: bool = True, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Yield a file that gets the name `target` when it is complete and on the disk; see :func:`atomic_path`.

    Parameters
    ----------
    mode : int
        Permissions, to which the umask applies.
    """
    with (
        atomic_path(target, replace=replace) as part,
        open(part, "xb", opener=lambda path, flags: os.open(path, flags, mode)) as file,
    ):
        yield file


def rename_new(part: Path, target: Path) -> None:
    """Give a file a name that is not taken. Where the file system has hard links, `part` stays as a second name.

    Raises
    ------
    FileExistsError
        If `target` exists. Nothing is changed.
    OSError
    """
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:
        # Some shares do not support hard links. Another writer may come between this check and the rename.
        if target.exists():
            raise FileExistsError(f"{target} exists") from None
        part.replace(target)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
