"""File names in log messages, which can be withheld because laboratories put accession numbers into them."""

from __future__ import annotations


class Shown(str):
    """A file's name or path as printable text, which the log recognises and can withhold."""

    __slots__ = ()
