"""HTML of the pages, in which everything from outside is text. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from dashboard.pages.words import Result, visible


def escape(text: object) -> str:
    """Return text for use inside HTML: it stays text, and cannot change the direction of its neighbours.

    None gives an empty text.
    """
    return "" if text is None else f"<bdi>{html.escape(visible(text))}</bdi>"


def checksum(digest: str | None) -> str:
    """Return a SHA-256; empty if unknown."""
    return f"<code>SHA-256 {escape(digest)}</code>" if digest else ""


def job_link(number: int) -> str:
    """Return a link to a job."""
    return f'<a href="/history?job={number}" target="_self">job {number}</a>'


def chip(result: Result) -> str:
    """Return a word on its colour, with its meaning as a tooltip."""
    return f'<span class="chip {result.colour}" title="{html.escape(result.meaning)}">{result.word}</span>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and values in HTML; rows without a value are left out."""
    return table([], [(f"<th scope=row class=s>{name}</th>", value) for name, value in rows if value])


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: set[int] = frozenset(),
    short: set[int] = frozenset(),
    narrow: bool = False,
) -> str:
    """Return a table.

    Parameters
    ----------
    rows : iterable of sequence of str
        HTML: text from outside must be escaped. A cell that begins with ``<th`` is taken whole.
    numbers, short : set of int
        Columns that are aligned to the right, and that are not broken.
    narrow : bool
        No wider than necessary: two columns far from each other are hard to read across.
    """

    def cell(index: int, text: str) -> str:
        if text.startswith("<th"):
            return text
        kind = "n" if index in numbers else "s" if index in short else "w"
        return f'<td class="{kind}">{text}</td>'

    top = "".join(
        f'<th scope="col"{" class=n" if index in numbers else ""}>{name}</th>' for index, name in enumerate(head)
    )
    body = "".join(f"<tr>{''.join(cell(index, text) for index, text in enumerate(row))}</tr>" for row in rows)
    shown = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f"<div class='scroll{' narrow' if narrow else ''}'><table>{shown}<tbody>{body}</tbody></table></div>"
