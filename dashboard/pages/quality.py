"""Quality: outliers among many slides, distributions of their figures, and trends of scanners."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import streamlit as st

from dashboard import context
from dashboard.pages import charts
from dashboard.pages.components import KEPT, heading, html, mount, open_page, show_error
from dashboard.pages.measures import ESTIMATES, KEYS, Measure, measures
from dashboard.pages.words import VERDICTS, count, number, visible, when
from wsi_denoise.errors import WsiDenoiseError
from wsi_denoise.jobs.values import JobQuery, SlideFigures, TrendPoint

PERIODS = {"7 days": 7, "30 days": 30, "90 days": 90, "1 year": 365, "any time": None}
SHOWN = 2_000
"""Most slides drawn as points: more are slower and not clearer."""

OUTLYING = 5.0
"""Robust deviations from the median by which a slide stands out."""

LEAST = 8
"""Slides below which none stands out: there is no usual yet."""

SCANNERS = 8
"""Most scanners drawn as lines: more colours cannot be distinguished."""

LISTED = 12


def draw() -> None:
    """Draw the page."""
    heading("Quality")
    go = st.session_state.pop("compare", None)
    if go is not None:
        open_page("compare", go)
    try:
        _draw(*filters())
    except WsiDenoiseError as error:
        show_error(error)


def _draw(query: JobQuery, estimate: str) -> None:
    slides, total = context.store().figures(KEYS, query)
    if not slides:
        html("<h2>No slide to show</h2><p>No slide that is done matches these filters.</p>")
        return
    found = points(slides, measures(estimate))
    newest = f"The newest {SHOWN:,} of {count(total, 'slide')} are drawn; the trend counts all."
    html(f"<p>{newest if total > SHOWN else count(total, 'slide') + '.'}</p>")
    draw_outliers(found, estimate)
    draw_spread(found, estimate)
    draw_drift(query, estimate)


def act(event: Mapping[str, Any]) -> None:
    """Open the slide that was chosen from the list."""
    st.session_state.compare = int(event["job"])


def filters() -> tuple[JobQuery, str]:
    """Draw the filters, and return the query and the estimate of noise."""
    first, second, third = st.columns([1, 1.6, 1.9])
    period = first.selectbox("Slides seen within", list(PERIODS), index=1, key="within", **KEPT)
    slide = second.text_input("Slide", key="slides", placeholder="part of its name or folder", **KEPT)
    estimate = third.segmented_control(
        "Noise, estimated from", list(ESTIMATES), default="wavelet", required=True, key="estimate",
        format_func=lambda one: f"the {ESTIMATES[one]}", **KEPT,
    )  # fmt: skip
    back = PERIODS[period]
    # To the hour, so that the cached trend is used again.
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    since = None if back is None else now - timedelta(days=back)
    return JobQuery(since=since, slide=slide.strip(), limit=SHOWN), estimate or "wavelet"


def draw_outliers(found: Sequence[Point], estimate: str) -> None:
    """Draw the scatter and the list of outliers."""
    compared = measures(estimate)
    html(
        '<h2>Noise before and after</h2><p class="weak">One mark for each slide. A ring marks a slide that stands out '
        "in any of the figures below. A click opens it in Compare.</p>"
    )
    picked = st.vega_lite_chart(
        spec=charts.scatter([point.flat() for point in found], compared),
        key="scatter", on_select="rerun", selection_mode=charts.PICK,
        alt="Noise after against noise before, one mark a slide. The slides that stand out are listed below.",
    )  # fmt: skip
    chosen = picked.selection.get(charts.PICK, []) if picked else []
    if chosen:
        open_page("compare", chosen[0]["job"])
    listed = outliers(found, compared)
    title = f"{count(len(listed), 'slide')} stand{'s' if len(listed) == 1 else ''} out"
    usual = f"Further than {OUTLYING:g} robust deviations from the median of the slides shown."
    few = f"There is no usual with fewer than {LEAST} slides."
    html(f"<h2>{title if listed else 'No slide stands out'}</h2><p>{few if len(found) < LEAST else usual}</p>")
    if listed:
        mount("links", {"rows": listed[:LISTED], "label": "Slides that stand out"}, key="outliers", act=act)
    if len(listed) > LISTED:
        html(f"<p>and {len(listed) - LISTED:,} more, older ones.</p>")


def draw_spread(found: Sequence[Point], estimate: str) -> None:
    """Draw the distribution of each figure."""
    html("<h2>How the figures are spread</h2>")
    grid = st.grid(3, min_column_width=300, gap="medium")
    for measure in measures(estimate):
        with grid.cell():
            values = [point.figures[measure.key] for point in found]
            known = [value for value in values if value is not None]
            html(f"<h3>{measure.title}</h3><p>{measure.sentence}</p>")
            if known:
                alt = f"{measure.title}: how many slides have which value."
                st.vega_lite_chart(spec=charts.distribution(known, measure), key=f"spread {measure.key}", alt=alt)
            else:
                html("<p>Not measured on any of these slides.</p>")


def draw_drift(query: JobQuery, estimate: str) -> None:
    """Draw the trend of the noise before, for each scanner."""
    html(
        "<h2>Noise of each scanner over time</h2><p>Mean of the noise before, and the range over the slides as a band. "
        "A scanner whose line climbs gets noisier. Of a slide's metadata only vendor, model, a hash of the serial "
        "number and the week of the scan are stored.</p>"
    )
    by = st.segmented_control(
        "By", ["day", "scan_week"], default="day", required=True, key="by",
        format_func=lambda one: {"day": "day seen", "scan_week": "week of the scan"}[one], **KEPT,
    )  # fmt: skip
    rows, more = trend(f"sigma_before_{estimate}", by or "day", query.since, query.slide)
    if not rows:
        html("<p>None of these slides says when it was scanned.</p>")
        return
    chart = charts.trend(rows, measures(estimate)[0].title, by=by or "day")
    st.vega_lite_chart(spec=chart, key="trend", alt="Mean noise before over time, a line for each scanner.")
    if more:
        html(f"<p>{more}</p>")


@st.cache_data(ttl=60, max_entries=16, show_spinner=False)
def trend(key: str, by: str, since: datetime | None, slide: str) -> tuple[list[dict[str, Any]], str]:
    """Return the trend's rows and a note on the scanners left out; cached, because it reads a figure of every slide."""
    found = context.store().trend(key, JobQuery(since=since, slide=slide), by=by)
    return series(found), left_out_note(found)


@dataclass(frozen=True)
class Point:
    """One slide, with texts as shown.

    Parameters
    ----------
    figures : dict of str to (float or None)
        By key of the measure.
    outlying : tuple of str
        Keys of the measures by which it stands out.
    """

    job: int
    slide: str
    seen: str
    verdict: str
    scanner: str
    figures: dict[str, float | None]
    outlying: tuple[str, ...]

    def flat(self) -> dict[str, Any]:
        """Return one row for a chart."""
        row = asdict(self)
        figures, outlying = row.pop("figures"), row.pop("outlying")
        return row | figures | {"outlier": bool(outlying)}


def points(slides: Sequence[SlideFigures], compared: Sequence[Measure]) -> list[Point]:
    """Return the slides with their figures, and the measures by which each stands out."""
    figures = [{measure.key: measure.of(slide.values) for measure in compared} for slide in slides]
    limits = {measure.key: _limits([row[measure.key] for row in figures], measure) for measure in compared}
    return [
        Point(
            slide.job_id,
            visible(slide.relative),
            when(slide.created),
            VERDICTS[slide.verdict].word if slide.verdict in VERDICTS else "none",
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
    """Return the slides that stand out, the newest first, with the figures by which they do."""
    named = {measure.key: measure for measure in compared}

    def said(point: Point, key: str) -> str:
        measure = named[key]
        return f"{measure.title.partition(' (')[0].lower()} {number(point.figures[key], measure.digits)}"

    return [
        {
            "id": point.job,
            "name": point.slide,
            "text": ", ".join(said(point, key) for key in point.outlying),
            "side": point.seen,
            "more": f"{point.verdict}, {point.scanner}",
        }
        for point in found
        if point.outlying
    ]


def series(found: Sequence[TrendPoint], most: int = SCANNERS) -> list[dict[str, Any]]:
    """Return the trend of the scanners with most slides, as rows for a chart."""
    kept = list(_slides_of(found))[:most]
    rows = [asdict(point) | {"scanner": visible(point.scanner)} for point in found]
    return [row for row in rows if row["scanner"] in kept]


def left_out_note(found: Sequence[TrendPoint], most: int = SCANNERS) -> str:
    """Return the note on the scanners that :func:`series` leaves out, or an empty text."""
    others = list(_slides_of(found).values())[most:]
    if not others:
        return ""
    return (
        f"Only the {most} scanners with most slides are drawn: {count(len(others), 'other')} with "
        f"{count(sum(others), 'slide')} {'is' if len(others) == 1 else 'are'} left out."
    )


def _slides_of(found: Sequence[TrendPoint]) -> dict[str, int]:
    """Return the number of slides of each scanner, most first."""
    slides: Counter[str] = Counter()
    for point in found:
        slides[visible(point.scanner)] += point.slides
    return dict(slides.most_common())
