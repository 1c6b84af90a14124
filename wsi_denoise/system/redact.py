"""What of a setting may be shown: such output ends up in tickets and on screens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import URL

HIDDEN = "***"

_SECRET = frozenset({"dashboard.token", "notify.url"})
"""The address of a notice often is the secret."""


def public(name: str, value: Any) -> Any:
    """Return a setting's value without its secrets.

    Parameters
    ----------
    name : str
        ``section.key``.
    value : object
        As JSON would hold it.
    """
    if name in _SECRET and value:
        return HIDDEN
    return public_url(value) if name == "jobs.database" and value else value


def public_url(url: str | URL) -> str:
    """Return the URL of a database without passwords, be they before the host or among the options."""
    from sqlalchemy import make_url  # noqa: PLC0415 - a fifth of a second, and most commands show no setting
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        parsed = make_url(url)
    except ArgumentError:
        return HIDDEN
    given = {key: HIDDEN if "pass" in key.lower() else each for key, each in parsed.query.items()}
    return parsed.set(query=given).render_as_string(hide_password=True)
