"""Provenance of a derived slide in its ImageDescription."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsi_denoise import NOTICE, __version__

PREFIX = "wsi-denoise "


def describe(facts: Mapping[str, Any]) -> str:
    """Return an ASCII ImageDescription: one line for users, one of JSON for programs.

    Parameters
    ----------
    facts : mapping
        Values in JSON types: source fingerprint, preset, model checksum, settings, numerics, time.
    """
    return f"{PREFIX}{__version__} | {NOTICE}\n{json.dumps({'notice': NOTICE, **facts}, sort_keys=True)}"


def parse(description: str) -> dict[str, Any] | None:
    """Return the facts in an ImageDescription of :func:`describe`, or None for any other text."""
    first, _, second = description.partition("\n")
    if not first.startswith(PREFIX):
        return None
    try:
        facts = json.loads(second)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


def same_work(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two files were made from the same content by the same model and settings."""
    keys = ("fingerprint", "preset", "model_sha256", "settings", "region")
    return all(one.get(key) == other.get(key) for key in keys)


def same_content(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two files were made from the same region of the same content, by any model and settings."""
    return bool(one.get("fingerprint")) and all(one.get(key) == other.get(key) for key in ("fingerprint", "region"))


def of_file(path: Path) -> dict[str, Any] | None:
    """Return the provenance in a TIFF, or None for any other file."""
    import tifffile  # noqa: PLC0415 - the pure part above is used without it

    try:
        with tifffile.TiffFile(path) as tiff:
            return parse(str(tiff.pages.first.description))
    except Exception:  # noqa: BLE001 - the file may be damaged, and tifffile then raises any exception
        return None
