"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

SUFFIX = ".part"
"""Ends the name of a file that is being written. Nothing else reads such a file."""

_NAME_BYTES = 200
"""Bytes of the final name within the partial one: file systems allow 255 in all."""


@contextmanager
def atomic_path(target: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a partial name beside `target`; on success the file gets its final name, when it is on the disk.

    Parameters
    ----------
    target : Path
        In a folder that exists.
    replace : bool
        Whether a file of that name is replaced. Otherwise the first of two writers wins.

    Raises
    ------
    FileExistsError
        Without `replace`, when the name is taken. The file there is left alone.
    OSError
    """
    name = os.fsdecode(os.fsencode(target.name)[:_NAME_BYTES])
    # A random part: threads, containers with equal process numbers, and a daemon that lost its lease may write at once.
    part = target.with_name(f".{name}.{secrets.token_hex(8)}{SUFFIX}")
    try:
        yield part
        _sync(part)
        if replace:
            part.replace(target)
        else:
            _link(part, target)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def atomic_file(target: Path, *, replace: bool = True, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Yield a file that gets the name `target` when it is complete and on the disk; see :func:`atomic_path`.

    Parameters
    ----------
    mode : int
        Permissions, less the umask.
    """
    with atomic_path(target, replace=replace) as part:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as file:
            yield file


def _sync(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _link(part: Path, target: Path) -> None:
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:
        # Some shares have no hard links. A check and a rename are two steps, which another writer may come between.
        if target.exists():
            raise FileExistsError(f"{target} exists") from None
        part.replace(target)
