"""Measures that the Quality page compares slides by. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wsi_denoise.quality.verdict import DEFAULT

ESTIMATES = {"wavelet": "fine part", "flat": "smooth areas"}
KEYS = (
    *(f"sigma_{when}_{estimate}" for when in ("before", "after") for estimate in ESTIMATES),
    "structure_removed", "structure_added", "hematoxylin_before", "hematoxylin_after", "eosin_before", "eosin_after",
    "codec_psnr",
)  # fmt: skip

Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Measure:
    """One figure that slides are compared by.

    Parameters
    ----------
    of : callable
        From a slide's metrics to the figure; None if it was not measured.
    limit : float or None
        From here on, the verdict is review.
    low_is_bad : bool
        Slides stand out below and not above.
    floor : float
        Least deviation that counts as one: slides that are all alike do not make a small difference stand out.
    """

    key: str
    title: str
    sentence: str
    of: Callable[[Values], float | None]
    limit: float | None = None
    low_is_bad: bool = False
    floor: float = 0.1
    digits: int = 1


def _structure(values: Values) -> float | None:
    found = [values.get("structure_removed"), values.get("structure_added")]
    return max((value for value in found if value is not None), default=None)


def _stain(values: Values) -> float | None:
    shifts = []
    for stain in ("hematoxylin", "eosin"):
        before, after = values.get(f"{stain}_before"), values.get(f"{stain}_after")
        if before is not None and after is not None:
            shifts.append(100 * abs(after - before) / max(before, DEFAULT.stain_floor))
    return max(shifts, default=None)


def measures(estimate: str) -> tuple[Measure, ...]:
    """Return the measures, with one of the two estimates of noise."""
    before, after = f"sigma_before_{estimate}", f"sigma_after_{estimate}"
    part = ESTIMATES[estimate]
    return (
        Measure(
            "before", f"Noise before ({part}, grey levels)",
            "Standard deviation of the noise of the slide as it came. What the scanner and its settings do.",
            lambda values: values.get(before), floor=0.5,
        ),
        Measure(
            "after", f"Noise after ({part}, grey levels)",
            "The same in the output. Should be low, whatever it was before.",
            lambda values: values.get(after), floor=0.3,
        ),
        Measure(
            "structure", "Structure score (deviations)",
            "The largest local change that noise does not explain, removed or added. From the line on, the verdict says"
            " review.",
            _structure, limit=DEFAULT.structure, floor=0.5,
        ),
        Measure(
            "stain", "Stain shift (%)",
            "Largest change of the mean density of haematoxylin or eosin. From the line on, the verdict says review.",
            _stain, limit=100 * DEFAULT.stain_shift, floor=0.5,
        ),
        Measure(
            "codec", "Output compression (dB)",
            "PSNR of what the output's compression did: the lower, the more was lost. Lossless outputs have none.",
            lambda values: values.get("codec_psnr"), low_is_bad=True, floor=0.5,
        ),
    )  # fmt: skip
