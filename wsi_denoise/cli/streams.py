"""Handling of closed, full or broken standard streams, which must not end the daemon or cause a traceback."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class _Lenient(io.TextIOWrapper):
    """A text stream that ignores write errors, for standard error, whose errors cannot be reported."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


class _Watched(io.TextIOWrapper):
    """A text stream that stores its first write error, which another layer may catch and misreport."""

    error: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.error = self.error or error
            raise


def prepare() -> None:
    """Make the three standard streams usable, even if the caller has closed them.

    Otherwise the next opened file, such as the job database, would get the free descriptor, and output to the standard
    stream would overwrite it. A closed descriptor is opened on ``/dev/null``.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # os.open returns the lowest free descriptor, which is this one.
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - open until the process ends
    # backslashreplace, because file names may have bytes that are not valid text. The old buffers are still empty.
    out, err = (_options(stream) for stream in (sys.stdout, sys.stderr))
    sys.stdout = _Watched(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), errors="backslashreplace", **out)
    # Without a buffer, so that failed output is dropped and not written again at the end.
    unbuffered: Any = io.FileIO(2, "w", closefd=False)
    sys.stderr = _Lenient(unbuffered, errors="backslashreplace", **{**err, "write_through": True})


def _options(stream: TextIO | None) -> dict[str, Any]:
    if not isinstance(stream, io.TextIOWrapper):
        return {"encoding": "utf-8"}
    names = ("encoding", "line_buffering", "write_through")
    return {name: getattr(stream, name) for name in names}


def stdout_error() -> OSError | None:
    """Return the write error of standard output, or None. After an error, remaining output is dropped."""
    try:
        sys.stdout.flush()
    except OSError as error:
        found: OSError | None = error
    else:
        found = None
    found = getattr(sys.stdout, "error", None) or found
    if found is not None:
        discard_stdout()
    return found


def forgive_stdout() -> None:
    """Drop failed output of a command that continues, because a flush by multiprocessing would raise again."""
    if stdout_error() is not None and isinstance(sys.stdout, _Watched):
        sys.stdout.error = None


def discard_stdout() -> None:
    """Redirect standard output to ``/dev/null``, including Python's own flush at the end."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
