"""Logging with UTC times to a rotated file in the state folder and to standard error."""

from __future__ import annotations

import errno
import logging
import logging.handlers
import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from wsi_denoise.errors import OutputUnwritable, WsiDenoiseError
from wsi_denoise.settings import LogSettings, Settings
from wsi_denoise.system.text import Shown

FOLDER = "logs"
WITHHELD = "(name withheld)"
MOST_FILES = 99
#: Libraries whose messages at level `info` do not help users.
_TALKATIVE = (
    "distributed",
    "dask",
    "tornado",
    "bokeh",
    "tiatoolbox",
    "tifffile",
    "uvicorn",
    "watchdog",
    "alembic",
    "PIL",
)


class Line(logging.Formatter):
    """Formatter of one event as one line, so that a file's name cannot forge another line.

    Parameters
    ----------
    folders : sequence of Path, optional
        With these, names are withheld: file names, details of errors, and all paths below these folders.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, folders: Sequence[Path] | None = None) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._below = None
        if folders is not None:
            roots = "|".join(re.escape(str(folder).rstrip("/")) for folder in folders)
            self._below = re.compile(rf"({roots})/[^\"'\n]+")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line and any traceback, without names if they are withheld."""
        if self._below is None:
            return super().format(record)
        record = logging.makeLogRecord(record.__dict__)
        if isinstance(record.args, tuple):
            record.args = tuple(_nameless(item) for item in record.args)
        record.exc_text = None
        return self._below.sub(rf"\1/{WITHHELD}", super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Return the message as one line. A traceback, which is added later, keeps its lines."""
        line = super().formatMessage(record)
        return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in line)


def _nameless(item: object) -> object:
    if isinstance(item, Shown | Path):
        return WITHHELD
    # The detail of an error may contain a name.
    return f"{item.happened} ({item.code})" if isinstance(item, WsiDenoiseError) else item


class ShortLine(Line):
    """Formatter without tracebacks, for a terminal. The file has them."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without a traceback."""
        plain = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None, "stack_info": None})
        return super().format(plain)


class _Rotated(logging.handlers.RotatingFileHandler):
    """A log file of one process: two processes that rotate one file would lose lines.

    Parameters
    ----------
    program : str
        Name of the file, such as ``daemon`` for ``daemon.log``, or ``daemon-2.log`` while another process has that.
    """

    def __init__(self, folder: Path, program: str, settings: LogSettings) -> None:
        self._folder, self._program = folder, program
        name, self._held = _own_name(folder, program)
        try:
            super().__init__(
                folder / f"{name}.log",
                maxBytes=round(settings.megabytes * 1e6),
                backupCount=settings.files,
                encoding="utf-8",
                errors="backslashreplace",
            )
        except OSError:
            os.close(self._held)
            raise

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record. Open a new file if the old one was removed, and write nothing if its folder is missing."""
        try:
            if self.stream is not None and not _has_name(self.stream.fileno(), Path(self.baseFilename)):
                self.stream.close()
                self.stream = None
            if self.stream is None:
                self._reopen()
        except OSError:
            return  # the state folder is missing and is not made again; standard error has the line
        super().emit(record)

    def _reopen(self) -> None:
        with suppress(FileExistsError):
            self._folder.mkdir()  # without parents: the state folder must exist
        if not _has_name(self._held, self._folder / f".{Path(self.baseFilename).stem}.lock"):
            name, held = _own_name(self._folder, self._program)
            os.close(self._held)
            self._held, self.baseFilename = held, str(self._folder / f"{name}.log")
        self.stream = self._open()

    def close(self) -> None:
        """Close the file and release its name."""
        super().close()
        if self._held >= 0:
            os.close(self._held)
            self._held = -1


def _has_name(handle: int, file: Path) -> bool:
    """Return whether an open file still has this path."""
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


def _own_name(folder: Path, program: str) -> tuple[str, int]:
    """Return a name that no other process logs to, and the descriptor of a file that locks it while open."""
    import fcntl  # noqa: PLC0415

    for number in range(1, MOST_FILES + 1):
        name = program if number == 1 else f"{program}-{number}"
        handle = os.open(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
        except OSError:
            return name, handle  # a share without locks: the name may be in use
        else:
            return name, handle
    raise OSError(errno.EMFILE, f"{MOST_FILES} processes log there already")


def setup(settings: Settings, program: str, *, console: bool = True) -> Path:
    """Log to a file and to standard error, and return the file's path.

    Parameters
    ----------
    program : str
        Name of the file: ``daemon``, ``run`` or ``dashboard``. A second process of that name has its own file.
    console : bool
        Also write to standard error.

    Raises
    ------
    OutputUnwritable
        If the state folder cannot be written.
    """
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler.formatter, Line)]:
        root.removeHandler(old)
        old.close()
    folder = settings.jobs.state / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        rotated = _Rotated(folder, program, settings.log)
    except OSError as error:
        raise OutputUnwritable(f"{folder} ({error.strerror})") from error
    folders = None
    if not settings.log.names:
        folders = [*settings.intake.inbox, settings.intake.quarantine, settings.output.folder]
    rotated.setFormatter(Line(folders))
    handlers: list[logging.Handler] = [rotated]
    if console:
        handlers.append(logging.StreamHandler(sys.stderr))
        handlers[-1].setFormatter(ShortLine(folders))
    for handler in handlers:
        root.addHandler(handler)
    level = settings.log.level.upper()
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    if level != "DEBUG":
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
    return Path(rotated.baseFilename)
