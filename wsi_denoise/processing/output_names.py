"""Choose the names of output files. The only access to files is the `taken` callable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

UNNAMED_PRESETS = frozenset({"auto", "paper"})
"""Presets that the name of an output does not state."""

LONGEST = 255
"""Bytes of a file name that file systems allow."""

_ROOM = len(".12345678.denoised.tiff") + len(".part") + 20


def output_path(
    folder: Path,
    relative: Path,
    facts: Mapping[str, Any],
    *,
    taken: Callable[[Path], bool],
) -> Path:
    """Return the path of the output of a slide.

    ``<folder>/<relative with its suffix>[.<preset>].denoised.tiff``, so that ``a.svs`` and ``a.ndpi`` never collide.
    If other content or other settings have that name, eight digits of a hash of both are inserted. The same work gets
    the same name again.

    Parameters
    ----------
    folder, relative : Path
        Output folder, and the slide's path under its inbox.
    facts : mapping
        Provenance: fingerprint, preset, settings, model_sha256, region.
    taken : callable
        Returns whether a path is the output of other work, which must not be replaced.
    """
    name = relative.name
    preset = facts["preset"]
    if preset not in UNNAMED_PRESETS:
        name += f".{preset}"
    region = facts.get("region")
    kind = ".trial-{}-{}-{}x{}.tiff".format(*region) if region else ".denoised.tiff"
    # The suffix of a trial is longer: it contains four numbers.
    fitting = _fitting(name, max(0, len(kind) - len(".denoised.tiff")))
    plain = folder / relative.parent / f"{fitting}{kind}"
    if not taken(plain):
        return plain
    key = json.dumps([facts["fingerprint"], facts["settings"], facts["model_sha256"]], sort_keys=True)
    digits = hashlib.sha256(key.encode()).hexdigest()[:8]
    return plain.with_name(f"{fitting}.{digits}{kind}")


def _fitting(name: str, longer: int) -> str:
    """Shorten a name at its front, so that the suffixes still fit. The end of a name is more specific."""
    raw = name.encode("utf-8", "surrogateescape")
    most = LONGEST - _ROOM - longer
    if len(raw) <= most:
        return name
    digits = hashlib.sha256(raw).hexdigest()[:8]
    return digits + "~" + raw[-(most - 9) :].decode("utf-8", "ignore")
