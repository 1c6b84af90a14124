"""The decision before the work: whether a slide has noise to remove, and which preset removes it best.

What a preset removes from a few patches separates noisy slides from clean ones better than an estimate of sigma, which
takes fine texture for noise and misses noise that went through JPEG. ``training/evaluate/triage.py`` measures the rule,
and ``docs/evidence/triage.md`` shows the result. Without NumPy, because dashboard and command line import it.

Examples
--------
>>> choose({"paper": 9.1, "blind": 9.0})
'paper'
>>> choose({"paper": 0.1, "blind": 5.4})
'blind'
>>> choose({"paper": 0.1, "blind": 0.3}) is None
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WHITE_NOISE, ANY_NOISE = 3.7, 3.3
"""Grey levels. A slide is noisy if `paper` removes more than the first value, or `blind` more than the second. `paper`
removes only noise that is independent between channels. From the clean crops at hand, `paper` removes at most 3.0 and
`blind` at most 3.2."""

WHITE_SHARE = 0.92
"""`paper` is the best preset if it removes at least this share of what `blind` removes: the noise is then white."""


@dataclass(frozen=True)
class Triage:
    """The decision about a slide, and what it rests on.

    Parameters
    ----------
    preset : str or None
        The best of the candidates, or None if there is nothing to remove.
    used : str or None
        The preset that runs: `preset`, or the one that was named in the settings. None keeps every pixel.
    removed : dict of str to float
        Grey levels by preset: the median over the sampled patches of the root mean square of the change. Texture is in
        some patches, noise in most.
    patches : int
        Number of sampled patches; 0 if the slide has no tissue.
    seconds : float
        Wall-clock time.
    """

    preset: str | None
    used: str | None
    removed: Mapping[str, float]
    patches: int
    seconds: float = 0.0

    def __str__(self) -> str:
        if not self.patches:
            return "no tissue was found to sample"
        found = ", ".join(f"{name} {value:.1f}" for name, value in self.removed.items())
        decision = f"{self.preset} is best" if self.preset else "there is nothing to remove"
        return f"{decision}: on {self.patches} patches, the presets change, in grey levels: {found}"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Triage:
        """Return the decision for a result of :meth:`to_json`."""
        return cls(values["preset"], values["used"], values["removed"], values["patches"], values["seconds"])

    def to_json(self) -> dict[str, Any]:
        """Return the decision in JSON types."""
        return {
            "preset": self.preset,
            "used": self.used,
            "removed": {name: round(value, 3) for name, value in self.removed.items()},
            "patches": self.patches,
            "seconds": round(self.seconds, 2),
        }


def choose(removed: Mapping[str, float]) -> str | None:
    """Return the preset for a slide, or None if there is nothing to remove.

    Parameters
    ----------
    removed : mapping of str to float
        Grey levels by name of the candidates; see :class:`Triage`.
    """
    if removed["paper"] <= WHITE_NOISE and removed["blind"] <= ANY_NOISE:
        return None
    return "paper" if removed["paper"] >= WHITE_SHARE * removed["blind"] else "blind"
