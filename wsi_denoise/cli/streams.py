"""Standard streams that are closed, full, or not read: they end no command with a traceback, and no daemon."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class _Lenient(io.TextIOWrapper):
    """A text stream whose errors of writing are dropped: there is no other place to report them."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


class _Watched(io.TextIOWrapper):
    """A text stream that keeps the first error of writing, which another layer may catch and explain wrongly."""

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
    """Make the three standard streams usable, whatever the caller has left of them.

    A closed descriptor would be given to the next file that is opened, such as the job database, and be written to by
    whatever means a standard stream. It is opened on ``/dev/null`` instead.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, which is this one.
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - lives as long as the process
    # A file's name may hold bytes that are no text. Nothing was written before: buffers are empty.
    out, err = (_options(stream) for stream in (sys.stdout, sys.stderr))
    sys.stdout = _Watched(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), errors="backslashreplace", **out)
    # Without a buffer: what cannot be written is dropped at once, and not tried again at the end.
    unbuffered: Any = io.FileIO(2, "w", closefd=False)
    sys.stderr = _Lenient(unbuffered, errors="backslashreplace", **{**err, "write_through": True})


def _options(stream: TextIO | None) -> dict[str, Any]:
    if not isinstance(stream, io.TextIOWrapper):
        return {"encoding": "utf-8"}
    names = ("encoding", "line_buffering", "write_through")
    return {name: getattr(stream, name) for name in names}


def stdout_error() -> OSError | None:
    """Return why standard output could not be written, or None. What is left to write is dropped in that case."""
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
    """Drop what could not be written, for a command that continues: a flush by multiprocessing would raise again."""
    if stdout_error() is not None and isinstance(sys.stdout, _Watched):
        sys.stdout.error = None


def discard_stdout() -> None:
    """Send what is still written to standard output to ``/dev/null``, Python's own flush at the end included."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
