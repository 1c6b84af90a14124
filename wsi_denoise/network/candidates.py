"""The presets that a setting stands for: the one of that name, or for ``auto`` those that triage chooses from."""

from __future__ import annotations

import hashlib

from wsi_denoise.network import weights
from wsi_denoise.network.weights import ModelCard

AUTO = "auto"
"""The setting for a preset that triage chooses for each slide."""

CANDIDATES = ("paper", "blind")
"""The presets that triage chooses from. The rule of :func:`wsi_denoise.quality.triage.choose` is made for these."""


def names(preset: str) -> tuple[str, ...]:
    """Return the names of the presets that may run for a setting."""
    return CANDIDATES if preset == AUTO else (preset,)


def cards(preset: str) -> tuple[ModelCard, ...]:
    """Return the cards of the presets that may run for a setting.

    Raises
    ------
    NoSuchPreset, WeightsDamaged
    """
    return tuple(weights.card(name) for name in names(preset))


def checksum(preset: str) -> str:
    """Return the SHA-256 of a preset's weights; for ``auto`` that of the candidates' checksums, in order.

    Raises
    ------
    NoSuchPreset, WeightsDamaged
    """
    found = [card.sha256 for card in cards(preset)]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode("ascii")).hexdigest()
