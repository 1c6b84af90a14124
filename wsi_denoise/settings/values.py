"""Types of settings beyond those of pydantic. Each one describes its allowed values in ``allowed``.

:mod:`wsi_denoise.settings.combinations` checks combinations of values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

SCHEMES = ("tcp", "tls", "ws", "wss", "ucx")
LEAST_MEMORY = 256 * 1024**2
"""Bytes; a worker with less memory ends while it loads its libraries."""

_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{prefix}{tail}": 1000**power for power, prefix in enumerate("kmgtp", 1) for tail in ("", "b")}
_UNITS |= {f"{prefix}i{tail}": 1024**power for power, prefix in enumerate("kmgtp", 1) for tail in ("", "b")}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]*)")
_MODE = re.compile(r"(?:0o?)?([0-7]{3,4})")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = r"([01]?\d|2[0-3]):([0-5]\d)"
_ENTRY = re.compile(rf"(?:({'|'.join(_DAYS)})(?:-({'|'.join(_DAYS)}))? +)?{_CLOCK}-{_CLOCK}", re.IGNORECASE)
_WEEK = 7 * 24 * 60


def refused(reason: str) -> PydanticCustomError:
    """Return the error for an invalid value; `reason` continues the sentence after the value."""
    return PydanticCustomError("refused", "{reason}", {"reason": reason})


def path(value: Any) -> Any:
    """Return a path with ``~`` expanded; reject invalid paths."""
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    if not text.strip():
        raise refused("is empty")
    if "\0" in text:
        raise refused("holds a character that no path has")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise refused("names a user that does not exist") from None


def number(value: Any) -> Any:
    """Reject true and false for a number, which pydantic converts to 1 and 0."""
    if isinstance(value, bool):
        raise refused("is not a number")
    return value


def not_blank(value: str) -> str:
    """Reject an empty text, or one of spaces."""
    if not value.strip():
        raise refused("is empty")
    return value


def pattern(value: str) -> str:
    """Reject a pattern that matches every name or none."""
    if not value.strip("* "):
        raise refused("ignores every file, or none")
    return value


def mode(value: Any) -> Any:
    """Return permissions as octal digits, such as ``0640``.

    A number is rejected: TOML's ``0o640`` arrives as 416, which would be read as octal digits again.
    """
    if not isinstance(value, str):
        raise refused('is not text; write permissions in quotes, such as mode = "0640"')
    found = _MODE.fullmatch(value.strip()) if value else None
    if value and found is None:
        raise refused("is not a mode")
    if found and not int(found[1], 8) & 0o400:
        raise refused("lets not even the owner read")
    return found[1].rjust(4, "0") if found else ""


def memory(value: str) -> str:
    """Reject a memory size that Dask cannot parse, or that is too small for a worker."""
    text = value.strip().lower()
    if text in {"auto", "0"}:
        return text
    found = _MEMORY.fullmatch(text)
    if found is None or found[2] not in _UNITS:
        raise refused("is not a size of memory")
    if float(found[1]) * _UNITS[found[2]] < LEAST_MEMORY:
        raise refused("is less than a worker needs (256 MiB)")
    return value.strip()


def scheduler(value: str) -> str:
    """Reject an address that Dask cannot connect to."""
    if not value:
        return value
    scheme, separator, _ = value.partition("://")
    if not separator:
        raise refused("has no scheme")
    if scheme not in SCHEMES:
        raise refused(f"has the scheme {scheme}")
    parts = _parts(value)
    if parts is None or not parts[0] or not parts[1]:
        raise refused("has no host or no port")
    return value


def web_address(value: str) -> str:
    """Reject an invalid address of a web server."""
    if not value:
        return value
    parts = _parts(value)
    if value.partition("://")[0].lower() not in {"http", "https"} or parts is None or not parts[0]:
        raise refused("is not an http or https address")
    return value


def database(value: str) -> str:
    """Return an SQLAlchemy URL, with ``~`` expanded in the path of an SQLite file."""
    head = "sqlite:///"
    if not value:
        return value
    backend, separator, rest = value.partition("://")
    backend = backend.partition("+")[0]
    if not separator:
        raise refused("is not an SQLAlchemy URL")
    if backend not in {"sqlite", "postgres", "postgresql"}:
        raise refused(f"has the unsupported scheme {backend}")
    if backend == "sqlite" and (not rest.startswith("/") or rest in {"/", "/:memory:"}):
        raise refused("names no file")
    if value.startswith(f"{head}~"):
        return head + str(path(value.removeprefix(head)))
    return value


def quiet_hours(value: str) -> str:
    """Reject an invalid list of times, and times that cover the whole week."""
    quiet: set[int] = set()
    for entry in value.split(",") if value.strip() else ():
        quiet.update(_minutes(entry.strip()))
    if len(quiet) == _WEEK:
        raise refused("leaves no time to work in")
    return value


def _minutes(entry: str) -> Iterator[int]:
    """Yield the minutes of the week that an entry such as ``Mon-Fri 08:00-18:00`` covers."""
    found = _ENTRY.fullmatch(entry)
    if found is None:
        raise refused("is not a list of times")
    first, last, *clock = found.groups()
    start, end = (60 * int(clock[at]) + int(clock[at + 1]) for at in (0, 2))
    length = (end - start) % (24 * 60) or 24 * 60
    begin = _DAYS.index(first.lower()) if first else 0
    until = _DAYS.index((last or first).lower()) if first else 6
    for day in range((until - begin) % 7 + 1):
        midnight = (begin + day) % 7 * 24 * 60
        yield from ((midnight + start + minute) % _WEEK for minute in range(length))


def token(value: str) -> str:
    """Reject a token that browsers cannot send in cookies and headers."""
    if not (value.isascii() and value.isprintable()):
        raise refused("holds characters other than printable ASCII, which browsers do not send back")
    if value.strip() != value:
        raise refused("begins or ends with a space, which browsers do not send back")
    return value


def person(value: str) -> str:
    """Reject an invalid address of a user, or an invalid @domain."""
    name, at, domain = value.strip().rpartition("@")
    if not at or not domain or "@" in name or " " in value.strip():
        raise refused("is neither a user's address nor an @domain")
    return value


def folder_below(value: Path) -> Path:
    """Reject a folder that cannot be below an inbox."""
    if value.is_absolute() or ".." in value.parts:
        raise refused("does not lie below an inbox")
    return value


def _parts(address: str) -> tuple[str, int | None] | None:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return None
    return parts.hostname or "", port


def _allowed(text: str) -> Any:
    return Field(json_schema_extra={"allowed": text})


_PATH = BeforeValidator(path)
_PERSON = AfterValidator(person)
_PATTERN = AfterValidator(pattern)

GivenPath = Annotated[Path, _PATH, _allowed("a path")]
FolderBelow = Annotated[Path, _PATH, AfterValidator(folder_below), _allowed("a relative path")]
Paths = Annotated[list[GivenPath], Field(min_length=1), _allowed('one or more paths, ["a", "b"]')]
Number = Annotated[float, BeforeValidator(number)]
Whole = Annotated[int, BeforeValidator(number)]
Name = Annotated[str, AfterValidator(not_blank), _allowed("a name")]
Host = Annotated[str, AfterValidator(not_blank), _allowed("a name or an address")]
Patterns = Annotated[list[Annotated[str, _PATTERN]], _allowed('patterns, ["*.bak", "old_*"]')]
People = Annotated[list[Annotated[str, _PERSON]], _allowed('addresses and @domains, ["a@lab.example", "@lab.example"]')]
Mode = Annotated[str, BeforeValidator(mode), _allowed('octal digits as text, "0640"; empty')]
Memory = Annotated[str, AfterValidator(memory), _allowed("auto, 0, or a size from 256MiB, such as 4GiB or 4GB")]
Scheduler = Annotated[
    str,
    AfterValidator(scheduler),
    _allowed(f"an address with scheme ({', '.join(SCHEMES)}) and port, tcp://host:8786; empty"),
]
WebAddress = Annotated[str, AfterValidator(web_address), _allowed("an http or https address; empty")]
DatabaseUrl = Annotated[
    str,
    AfterValidator(database),
    _allowed("sqlite:////path/jobs.sqlite or postgresql://user:password@host/name; empty"),
]
QuietHours = Annotated[
    str,
    AfterValidator(quiet_hours),
    _allowed("times, 08:00-18:00, with days, Mon-Fri 08:00-18:00, Sat 09:00-12:00; empty"),
]
Token = Annotated[str, AfterValidator(token), _allowed("printable ASCII; empty")]
