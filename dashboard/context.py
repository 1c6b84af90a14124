"""What the page and the routes share: the settings, and the store that they read through. One per process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from wsi_denoise.jobs.store import JobStore
from wsi_denoise.settings import Settings

_used: list[Settings] = []
_origins: dict[str, str] = {}


def use(settings: Settings, origins: Mapping[str, str] = MappingProxyType({})) -> None:
    """Set what everything after this reads: the settings, and where each came from where that is known."""
    _used[:] = [settings]
    _origins.clear()
    _origins.update(origins)
    store.cache_clear()


def settings() -> Settings:
    """Return the settings."""
    return _used[0]


def origins() -> dict[str, str]:
    """Return ``section.key`` to where its value came from."""
    return dict(_origins)


@cache
def store() -> JobStore:
    """Return the store; safe to use from several threads."""
    return JobStore(settings().database_url)
