"""Names of files where people read them. Laboratories put accession numbers into them, so a log can do without."""

from __future__ import annotations


class Shown(str):
    """A file's name or path as printable text; the log can tell it from other text, and withhold it."""

    __slots__ = ()
