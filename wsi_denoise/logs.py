"""Where the log goes: lines with UTC times, to a rotated file in the state folder and to standard error."""

from __future__ import annotations

import logging
import logging.handlers
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from wsi_denoise.errors import OutputUnwritable, WsiDenoiseError
from wsi_denoise.names import Shown
from wsi_denoise.settings import Settings

FOLDER = "logs"
WITHHELD = "(name withheld)"
#: Libraries that tell at `info` what only their authors want to know.
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
    """One event, one line: a file's name cannot forge another.

    Parameters
    ----------
    folders : sequence of Path, optional
        Names of files are withheld: those that are logged as such, details of errors, and all that lies below these.
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
        """Return the line, and the traceback if there is one, without names if they are to be withheld."""
        if self._below is None:
            return super().format(record)
        record = logging.makeLogRecord(record.__dict__)
        if isinstance(record.args, tuple):
            record.args = tuple(_nameless(item) for item in record.args)
        record.exc_text = None
        return self._below.sub(rf"\1/{WITHHELD}", super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Return the line; a traceback, which follows it, keeps its lines."""
        line = super().formatMessage(record)
        return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in line)


def _nameless(item: object) -> object:
    if isinstance(item, Shown | Path):
        return WITHHELD
    # The detail of an error may hold any name.
    return f"{item.happened} ({item.code})" if isinstance(item, WsiDenoiseError) else item


class ShortLine(Line):
    """The same without tracebacks, for a terminal: those are in the file."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line alone."""
        plain = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None, "stack_info": None})
        return super().format(plain)


def file_of(settings: Settings, program: str) -> Path:
    """Return the log file of a program; each has its own, because rotating is for one writer."""
    return settings.jobs.state / FOLDER / f"{program}.log"


def setup(settings: Settings, program: str, *, console: bool = True) -> Path:
    """Send the log to file and standard error, and return the file.

    Parameters
    ----------
    program : str
        ``daemon``, ``run`` or ``dashboard``: names the file.
    console : bool
        Write to standard error too.

    Raises
    ------
    OutputUnwritable
        When the state folder cannot be written.
    """
    file = file_of(settings, program)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        rotated: logging.Handler = logging.handlers.RotatingFileHandler(
            file,
            maxBytes=round(settings.log.megabytes * 1e6),
            backupCount=settings.log.files,
            encoding="utf-8",
            errors="backslashreplace",
        )
    except OSError as error:
        raise OutputUnwritable(f"{file.parent} ({error.strerror})") from error
    folders = None
    if not settings.log.names:
        folders = [*settings.intake.inbox, settings.intake.quarantine, settings.output.folder]
    rotated.setFormatter(Line(folders))
    handlers = [rotated]
    if console:
        handlers.append(logging.StreamHandler(sys.stderr))
        handlers[-1].setFormatter(ShortLine(folders))
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler.formatter, Line)]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    level = settings.log.level.upper()
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    if level != "DEBUG":
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
    return file
