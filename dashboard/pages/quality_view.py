"""The figures of many slides: what is compared, and which slides stand out. Pure: the store is asked elsewhere."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from dashboard.pages.words import VERDICTS, count, number, visible, when
from wsi_denoise.jobs.values import SlideFigures, TrendPoint
from wsi_denoise.quality.verdict import DEFAULT

SHOWN = 2_000
"""Most slides drawn as points: more are slower and not clearer."""

OUTLYING = 5.0
"""Robust deviations from the median by which a slide stands out."""

LEAST = 8
"""Slides below which none stands out: there is no usual yet."""

SCANNERS = 8
"""Most scanners drawn as lines: more colours cannot be distinguished."""

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
    key, title, sentence : str
    of : callable
        A slide's metrics to the figure, or None where it was not measured.
    limit : float or None
        Where the verdict becomes suspicious.
    low_is_bad : bool
        Slides stand out below and not above.
    floor : float
        Least deviation that counts as one: slides that are all alike do not make a small difference stand out.
    digits : int
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
    """Return what slides are compared by, with one of the two estimates of noise."""
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


@dataclass(frozen=True)
class Point:
    """One slide.

    Parameters
    ----------
    job : int
    name, seen, verdict, scanner : str
        As shown.
    figures : dict of str to (float or None)
        By key of the measure.
    outlying : tuple of str
        Keys of the measures by which it stands out.
    """

    job: int
    name: str
    seen: str
    verdict: str
    scanner: str
    figures: dict[str, float | None]
    outlying: tuple[str, ...]

    def flat(self) -> dict[str, Any]:
        """Return one row for a chart."""
        kept = {
            "job": self.job,
            "slide": self.name,
            "seen": self.seen,
            "verdict": self.verdict,
            "scanner": self.scanner,
        }
        return {**kept, **self.figures, "outlier": bool(self.outlying)}


def points(slides: Sequence[SlideFigures], compared: Sequence[Measure]) -> list[Point]:
    """Return the slides with their figures, and by which of them each stands out."""
    figures = [{measure.key: measure.of(slide.values) for measure in compared} for slide in slides]
    limits = {measure.key: _limits([row[measure.key] for row in figures], measure) for measure in compared}
    return [
        Point(
            slide.job_id,
            visible(slide.relative),
            when(slide.created),
            VERDICTS[slide.verdict][0] if slide.verdict in VERDICTS else "none",
            visible(slide.scanner),
            row,
            tuple(key for key, value in row.items() if value is not None and _out(value, limits[key])),
        )
        for slide, row in zip(slides, figures, strict=True)
    ]


def _limits(values: Iterable[float | None], measure: Measure) -> tuple[float, float]:
    known = [value for value in values if value is not None]
    if len(known) < LEAST:
        return float("-inf"), float("inf")
    middle = median(known)
    # 1.4826 times the median deviation is a standard deviation where figures are normally distributed.
    deviation = max(1.4826 * median(abs(value - middle) for value in known), measure.floor)
    if measure.low_is_bad:
        return middle - OUTLYING * deviation, float("inf")
    return float("-inf"), middle + OUTLYING * deviation


def _out(value: float, limits: tuple[float, float]) -> bool:
    return not limits[0] <= value <= limits[1]


def outliers(found: Sequence[Point], compared: Sequence[Measure]) -> list[dict[str, Any]]:
    """Return the slides that stand out, the newest first, with what by."""
    named = {measure.key: measure for measure in compared}

    def said(point: Point, key: str) -> str:
        measure = named[key]
        return f"{measure.title.partition(' (')[0].lower()} {number(point.figures[key], measure.digits)}"

    return [
        {
            "id": point.job,
            "name": point.name,
            "text": ", ".join(said(point, key) for key in point.outlying),
            "side": point.seen,
            "more": f"{point.verdict}, {point.scanner}",
        }
        for point in found
        if point.outlying
    ]


def bins(values: Sequence[float], most: int = 24) -> list[tuple[float, float, int]]:
    """Return (low, high, how many) for steps of equal width, of 1, 2 or 5 times a power of ten, the empty ones too.

    A value on a border counts to the step above it. There are at most `most` steps, and one more for a value on the
    last border.
    """
    if not values:
        return []
    least, greatest = min(values), max(values)
    reach = (greatest - least) / most or max(abs(least), 1.0) / 10
    power = 10.0 ** math.floor(math.log10(reach))
    # A hair above, so that 0.2 is not taken for less than 0.2.
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * (1 + 1e-9) >= reach)
    counts = Counter(math.floor(value / step + 1e-9) for value in values)
    return [
        (round(index * step, 10), round((index + 1) * step, 10), counts[index])
        for index in range(min(counts), max(counts) + 1)
    ]


def series(found: Sequence[TrendPoint], most: int = SCANNERS) -> list[dict[str, Any]]:
    """Return the trend as rows for a chart: the scanners with most slides, the others together left out."""
    kept = list(_slides_of(found))[:most]
    return [
        {
            "when": point.when,
            "scanner": visible(point.scanner),
            "mean": point.mean,
            "low": point.low,
            "high": point.high,
            "slides": point.slides,
        }
        for point in found
        if visible(point.scanner) in kept
    ]


def left_out(found: Sequence[TrendPoint], most: int = SCANNERS) -> str:
    """Return what is said of the scanners that :func:`series` leaves out; nothing where it leaves out none."""
    others = list(_slides_of(found).values())[most:]
    if not others:
        return ""
    return (
        f"Only the {most} scanners with most slides are drawn: {count(len(others), 'other')} with "
        f"{count(sum(others), 'slide')} {'is' if len(others) == 1 else 'are'} left out."
    )


def _slides_of(found: Sequence[TrendPoint]) -> dict[str, int]:
    """Return how many slides each scanner has, most first."""
    slides: Counter[str] = Counter()
    for point in found:
        slides[visible(point.scanner)] += point.slides
    return dict(slides.most_common())
