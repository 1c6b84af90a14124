"""What the page and the routes share: the settings, and the store that they read through. One per process."""

from __future__ import annotations

from functools import cache

from wsi_denoise.jobs.store import JobStore
from wsi_denoise.settings import Settings

_used: list[Settings] = []


def use(settings: Settings) -> None:
    """Set what everything after this reads."""
    _used[:] = [settings]
    store.cache_clear()


def settings() -> Settings:
    """Return the settings."""
    return _used[0]


@cache
def store() -> JobStore:
    """Return the store; safe to use from several threads."""
    return JobStore(settings().database_url)
