"""Conversion of units of length by the names that slide files use. Pure."""

from __future__ import annotations

import math
import re
import unicodedata

#: Micrometres.
CENTIMETRE = 1e4

#: Prefixes of the metre: symbol, name, and the length in micrometres.
_PREFIXES = (
    ("Y", "yotta", 1e30), ("Z", "zetta", 1e27), ("E", "exa", 1e24), ("P", "peta", 1e21), ("T", "tera", 1e18),
    ("G", "giga", 1e15), ("M", "mega", 1e12), ("k", "kilo", 1e9), ("h", "hecto", 1e8), ("da", "deca", 1e7),
    ("", "", 1e6), ("d", "deci", 1e5), ("c", "centi", 1e4), ("m", "milli", 1e3), ("µ", "micro", 1.0),
    ("u", "micro", 1.0), ("n", "nano", 1e-3), ("p", "pico", 1e-6), ("f", "femto", 1e-9), ("a", "atto", 1e-12),
    ("z", "zepto", 1e-15), ("y", "yocto", 1e-18),
)  # fmt: skip
#: Symbols whose case matters: Mm is a megametre, mm a millimetre.
_SYMBOLS = {f"{symbol}m": length for symbol, _, length in _PREFIXES}
_NAMES = {f"{name}{metre}": length for _, name, length in _PREFIXES for metre in ("meter", "metre")} | {
    "micron": 1.0, "mikron": 1.0, "mu": 1.0, "µ": 1.0, "mcm": 1.0, "inch": 25_400.0, "inche": 25_400.0, "in": 25_400.0,
    "angstrom": 1e-4, "ångström": 1e-4, "ångstrom": 1e-4, "å": 1e-4, "thou": 25.4, "mil": 25.4, "line": 25_400.0 / 12,
    "li": 25_400.0 / 12, "foot": 304_800.0, "feet": 304_800.0, "ft": 304_800.0, "yard": 914_400.0, "yd": 914_400.0,
    "mile": 1.609344e9, "mi": 1.609344e9, "pt": 25_400.0 / 72,
}  # fmt: skip
_PER_PIXEL = re.compile(r"\s*(?:/|\bper\b)\s*(?:px|pix|pixels?)\s*$", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][-+]?\d+)?", re.ASCII)


def micrometres(unit: str) -> float | None:
    """Return the length of a unit in micrometres, or None if it is not a unit of length.

    It knows the symbols and names of OME, UDUNITS (NGFF) and ImageJ, singular and plural.

    Examples
    --------
    >>> micrometres("mm"), micrometres("Micrometers"), micrometres("inch")
    (1000.0, 1.0, 25400.0)
    >>> micrometres("pixel") is None
    True
    """
    text = _PER_PIXEL.sub("", plain(unit).strip(" \t\r\n\"'")).rstrip(" .")
    # Both Unicode micro signs become µ. Â appears if UTF-8 was read as Latin-1.
    text = unicodedata.normalize("NFC", text).replace("μ", "µ").replace("Âµ", "µ")
    if text in _SYMBOLS:
        return _SYMBOLS[text]
    lower = text.lower().replace("μ", "µ")
    for name in (lower, lower.removesuffix("s") if len(lower) > 3 else lower):
        found = _NAMES.get(name, _SYMBOLS.get(name))
        if found is not None:
            return found
    return None


def length(name: str, value: str, unit: str) -> tuple[float | None, str]:
    """Return a length in a file in micrometres.

    Parameters
    ----------
    name : str
        Name of the field, for the reason.
    value, unit : str
        As in the file. A decimal comma is accepted.

    Returns
    -------
    (float or None, str)
        Micrometres, possibly negative; or None and a reason, which quotes the invalid text.
    """
    if not _NUMBER.fullmatch(value.strip()) or not math.isfinite(number := float(value.strip().replace(",", "."))):
        return None, f"{name} is {quoted(value)}, which is not a number"
    factor = micrometres(unit)
    if factor is None:
        return None, f"{name} is {quoted(value)} in the unit {quoted(unit)}, which is not understood"
    return number * factor, ""


def quantity(name: str, text: str, default: str) -> tuple[float | None, str]:
    """Return a length in micrometres from a number with its unit, such as ``0.25 um``, as :func:`length` does.

    Parameters
    ----------
    default : str
        Unit of a number without a unit.
    """
    text = text.strip()
    start = _NUMBER.match(text)
    if start is None:
        return length(name, text, default)
    return length(name, start.group(), text[start.end() :].strip() or default)


def plain(text: str) -> str:
    r"""Return text with Java's escapes resolved: ImageJ writes ``\u00B5m`` for a micrometre."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found.group(1), 16)), text)


def quoted(text: str) -> str:
    """Return text from an untrusted file for a message: in quotes, printable, at most 40 characters."""
    short = text if len(text) <= 40 else f"{text[:40]}..."
    return '"' + "".join(letter if letter.isprintable() else " " for letter in short) + '"'
