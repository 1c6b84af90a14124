"""Removal of secrets from settings that are shown, because such output appears in tickets and on screens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import URL

HIDDEN = "***"

_SECRET = frozenset({"dashboard.token", "notify.url"})
"""The URL for notifications often contains the secret."""


def public(name: str, value: Any) -> Any:
    """Return a setting's value without its secrets.

    Parameters
    ----------
    name : str
        ``section.key``.
    value : object
        In JSON types.
    """
    if name in _SECRET and value:
        return HIDDEN
    return public_url(value) if name == "jobs.database" and value else value


def public_url(url: str | URL) -> str:
    """Return the URL of a database without passwords, before the host and in the options."""
    from sqlalchemy import make_url  # noqa: PLC0415 - the import takes 0.2 s, and most commands show no setting
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        parsed = make_url(url)
    except ArgumentError:
        return HIDDEN
    given = {key: HIDDEN if "pass" in key.lower() else each for key, each in parsed.query.items()}
    return parsed.set(query=given).render_as_string(hide_password=True)
