"""Settings and job store that pages and routes share. One of each per process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from wsi_denoise.jobs.store import JobStore
from wsi_denoise.settings import Settings

_used: list[Settings] = []
_origins: dict[str, str] = {}


def use(settings: Settings, origins: Mapping[str, str] = MappingProxyType({})) -> None:
    """Set the settings, and the origin of each where it is known."""
    _used[:] = [settings]
    _origins.clear()
    _origins.update(origins)
    store.cache_clear()


def settings() -> Settings:
    """Return the settings."""
    return _used[0]


def origins() -> dict[str, str]:
    """Return ``section.key`` to the origin of its value."""
    return dict(_origins)


@cache
def store() -> JobStore:
    """Return the store; safe to use from several threads."""
    return JobStore(settings().database_url)
