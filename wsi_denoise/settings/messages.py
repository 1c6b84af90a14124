"""Messages for invalid settings: name, value, allowed values, and the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

SECRET = frozenset({"dashboard.token", "notify.url", "jobs.database"})
"""Settings whose values are never shown, because they may contain a password."""

LONGEST = 60


def allowed(field: FieldInfo) -> str:
    """Return a description of a setting's allowed values.

    Examples
    --------
    >>> from pydantic import Field
    >>> allowed(FieldInfo.from_annotated_attribute(int, Field(95, ge=50, le=100)))
    'a whole number, 50 to 100'
    """
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "allowed" in extra:
        return str(extra["allowed"])
    kind = field.annotation
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if kind is bool:
        return "true, false"
    if kind in {int, float}:
        return ("a whole number" if kind is int else "a number") + _range(field.metadata)
    return "a list" if get_origin(kind) is list else "text"


def _range(metadata: Sequence[Any]) -> str:
    low, high, step = "", "", ""
    for limit in metadata:
        match limit:
            case Ge(ge=bound):
                low = _number(bound)
            case Gt(gt=bound):
                low = f"above {_number(bound)}"
            case Le(le=bound) | Lt(lt=bound):
                high = _number(bound)
            case MultipleOf(multiple_of=bound):
                step = f", in steps of {_number(bound)}"
            case MinLen() | MaxLen():
                pass
    between = f", {low} to {high}" if low and high else f", {low} or more" if low else ""
    return between.replace("above 0 or more", "above 0") + step


def _number(bound: Any) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:,.10g}"


def fault(error: ErrorDetails, fields: dict[str, FieldInfo]) -> tuple[str, str]:
    """Return the name of an invalid setting, and the message.

    Parameters
    ----------
    fields : dict of str to FieldInfo
        By name, ``section.key``; those of ``folders`` as ``folders.path`` and ``folders.preset``.
    """
    name = ".".join(str(part) for part in error["loc"])
    plain = ".".join(str(part) for part in error["loc"] if not isinstance(part, int))
    if error["type"] == "extra_forbidden":
        sections = {known.partition(".")[0] for known in fields}
        return name, f"{name}: unknown name{nearest_of(plain, fields if '.' in plain else sections)}"
    if error["type"] == "missing":
        return name, f"{name}: missing"
    field = fields.get(plain)
    if field is None:
        return name, f"{name}: a section, not a value"
    # Only our own checks give a reason; pydantic's contexts have other keys.
    reason = error.get("ctx", {}).get("reason", "is not allowed") if error["type"] == "refused" else "is not allowed"
    return name, f"{name}: {_shown(plain, error['input'])} {reason}; allowed: {allowed(field)}"


def _shown(name: str, value: Any) -> str:
    if name in SECRET:
        return "the value"
    text = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)
    printable = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    shown = printable if len(printable) <= LONGEST else f"{printable[:LONGEST]}..."
    return f'"{shown}"' if isinstance(value, str) else shown


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most similar to a mistyped one, or an empty string.

    Examples
    --------
    >>> nearest("output.foldr", ["output.folder", "output.mode"])
    'output.folder'
    >>> nearest("folder", ["output.folder", "output.mode"])
    'output.folder'
    """
    names = list(known)
    plain = {_plain(each): each for each in reversed(names)}
    keys = {_plain(each).rpartition(" ")[2]: each for each in reversed(names)}
    wanted = _plain(name)
    key = wanted.rpartition(" ")[2]
    if wanted in plain or key in keys:
        return plain.get(wanted) or keys[key]
    close = difflib.get_close_matches(wanted, list(plain), 1, 0.6)
    if close:
        return plain[close[0]]
    close = difflib.get_close_matches(key, list(keys), 1, 0.75)
    return keys[close[0]] if close else ""


def nearest_of(name: str, known: Iterable[str]) -> str:
    """Return the end of a message with the nearest name, or an empty string."""
    found = nearest(name, known)
    return f"; the nearest is {found}" if found else ""


def _plain(name: str) -> str:
    """Return a name without common variations: case, and the separator between section and key."""
    section, _, key = name.lower().replace("__", ".").partition(".")
    return f"{section} {key}" if key else section
