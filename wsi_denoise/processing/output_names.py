"""Names of derived slides. Pure, but for asking whether a file is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

DEFAULT_PRESET = "paper"
LONGEST = 255
"""Bytes of a file name that file systems take."""

_ROOM = len(".12345678.denoised.tiff") + len(".part") + 20


def output_path(
    folder: Path,
    relative: Path,
    facts: Mapping[str, Any],
    *,
    taken: Callable[[Path], bool],
) -> Path:
    """Return where a derived slide is written.

    ``<folder>/<relative with its suffix>[.<preset>].denoised.tiff``, so that ``a.svs`` and ``a.ndpi`` never collide.
    Where that name is taken by other content or other settings, eight digits that stand for the two are put in; the
    same work gets the same name again.

    Parameters
    ----------
    folder, relative : Path
        Output folder, and the slide's path under its inbox.
    facts : mapping
        Provenance: fingerprint, preset, settings, region.
    taken : callable
        Whether a path is the output of other work, and must not be replaced.
    """
    name = relative.name
    preset = facts["preset"]
    if preset != DEFAULT_PRESET:
        name += f".{preset}"
    region = facts.get("region")
    kind = ".trial-{}-{}-{}x{}.tiff".format(*region) if region else ".denoised.tiff"
    # A trial's name has no room to spare: four numbers of a large slide.
    fitting = _fitting(name, max(0, len(kind) - len(".denoised.tiff")))
    plain = folder / relative.parent / f"{fitting}{kind}"
    if not taken(plain):
        return plain
    key = json.dumps([facts["fingerprint"], facts["settings"], facts["model_sha256"]], sort_keys=True)
    digits = hashlib.sha256(key.encode()).hexdigest()[:8]
    return plain.with_name(f"{fitting}.{digits}{kind}")


def _fitting(name: str, longer: int) -> str:
    """Shorten a name at its front, so that the suffixes still fit; the end of a name tells more."""
    raw = name.encode("utf-8", "surrogateescape")
    most = LONGEST - _ROOM - longer
    if len(raw) <= most:
        return name
    digits = hashlib.sha256(raw).hexdigest()[:8]
    return digits + "~" + raw[-(most - 9) :].decode("utf-8", "ignore")
