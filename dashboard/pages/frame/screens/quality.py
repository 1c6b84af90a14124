"""Quality: many slides at a time. What stands out, how figures are spread, and whether a scanner drifts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import streamlit as st

from dashboard import context
from dashboard.pages import charts
from dashboard.pages.components import mount
from dashboard.pages.heading import heading
from dashboard.pages.quality_view import (
    ESTIMATES,
    KEYS,
    LEAST,
    OUTLYING,
    SHOWN,
    Point,
    left_out,
    measures,
    outliers,
    points,
    series,
)
from dashboard.pages.words import count, for_page, in_markdown
from wsi_denoise.errors import WsiDenoiseError
from wsi_denoise.jobs.values import JobQuery

PERIODS = {"7 days": 7, "30 days": 30, "90 days": 90, "1 year": 365, "any time": None}
LISTED = 12


def act(event: Mapping[str, Any]) -> None:
    """Open the slide that was chosen from the list."""
    st.session_state.compare = int(event["job"])


def filters() -> tuple[JobQuery, str]:
    """Draw the filters and return the query and the estimate of noise that they mean."""
    kept = {"bind": "query-params", "persist_state": "session"}
    first, second, third = st.columns([1, 1.6, 1.9])
    period = first.selectbox("Slides seen within", list(PERIODS), index=1, key="within", **kept)
    slide = second.text_input("Slide", key="slides", placeholder="part of its name or folder", **kept)
    estimate = third.segmented_control(
        "Noise, estimated from", list(ESTIMATES), default="wavelet", required=True, key="estimate",
        format_func=lambda one: f"the {ESTIMATES[one]}", **kept,
    )  # fmt: skip
    back = PERIODS[period]
    # To the hour, so that the next look within it asks the same.
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    since = None if back is None else now - timedelta(days=back)
    return JobQuery(since=since, slide=slide.strip(), limit=SHOWN), estimate or "wavelet"


@st.cache_data(ttl=60, max_entries=16, show_spinner=False)
def trend(key: str, by: str, since: datetime | None, slide: str) -> tuple[list[dict[str, Any]], str]:
    """Return the trend's rows and what they leave out; a minute old at most, as it reads a figure of every slide."""
    found = context.store().trend(key, JobQuery(since=since, slide=slide), by=by)
    return series(found), left_out(found)


def standing_out(found: list[Point], rows: list[dict[str, Any]], estimate: str) -> None:
    """Draw the scatter and the list of what stands out."""
    compared = measures(estimate)
    st.html(
        '<div class="wd"><h2>Noise before and after</h2><p class="weak">One mark for each slide. A ring marks a slide '
        "that stands out in any of the figures below. A click opens it in Compare.</p></div>"
    )
    chart = charts.scatter(rows, compared)
    picked = st.vega_lite_chart(
        spec=chart, key="scatter", on_select="rerun", selection_mode=charts.PICK,
        alt="Noise after against noise before, one mark a slide. The slides that stand out are listed below.",
    )  # fmt: skip
    chosen = picked.selection.get(charts.PICK, []) if picked else []
    if chosen:
        st.switch_page("screens/compare.py", query_params={"job": str(chosen[0]["job"])})
    listed = outliers(found, compared)
    slides = (
        f"{count(len(listed), 'slide')} stand{'s' if len(listed) == 1 else ''} out" if listed else "No slide stands out"
    )
    usual = f"Further than {OUTLYING:g} robust deviations from the median of the slides shown."
    few = f"There is no usual with fewer than {LEAST} slides."
    st.html(f'<div class="wd"><h2>{slides}</h2><p>{few if len(found) < LEAST else usual}</p></div>')
    if listed:
        mount("links", {"rows": listed[:LISTED], "label": "Slides that stand out"}, key="outliers", act=act)
    if len(listed) > LISTED:
        st.html(f'<div class="wd"><p>and {len(listed) - LISTED:,} more, older ones.</p></div>')


def spread(rows: list[dict[str, Any]], estimate: str) -> None:
    """Draw how each figure is spread."""
    st.html('<div class="wd"><h2>How the figures are spread</h2></div>')
    grid = st.grid(3, min_column_width=300, gap="medium")
    for measure in measures(estimate):
        with grid.cell():
            known = [row[measure.key] for row in rows if row[measure.key] is not None]
            st.html(f'<div class="wd"><h3>{measure.title}</h3><p>{measure.sentence}</p></div>')
            if known:
                alt = f"{measure.title}: how many slides have which value."
                st.vega_lite_chart(spec=charts.distribution(known, measure), key=f"spread {measure.key}", alt=alt)
            else:
                st.html('<div class="wd"><p>Not measured on any of these slides.</p></div>')


def drift(query: JobQuery, estimate: str) -> None:
    """Draw the trend of the noise before, for each scanner."""
    st.html(
        '<div class="wd"><h2>Noise of each scanner over time</h2><p>Mean of the noise before, and the range over the '
        "slides as a band. A scanner whose line climbs gets noisier. Of a slide's metadata only vendor, model, a hash "
        "of the serial number and the week of the scan are stored.</p></div>"
    )
    by = st.segmented_control(
        "By", ["day", "scan_week"], default="day", required=True, key="by", bind="query-params",
        persist_state="session",
        format_func=lambda one: {"day": "day seen", "scan_week": "week of the scan"}[one],
    )  # fmt: skip
    rows, more = trend(f"sigma_before_{estimate}", by or "day", query.since, query.slide)
    if rows:
        alt = "Mean noise before over time, a line for each scanner."
        chart = charts.trend(rows, measures(estimate)[0].title, by=by or "day")
        st.vega_lite_chart(spec=chart, key="trend", alt=alt)
        if more:
            st.html(f'<div class="wd"><p>{more}</p></div>')
    else:
        st.html('<div class="wd"><p>None of these slides says when it was scanned.</p></div>')


def draw() -> None:
    """Draw the page."""
    go = st.session_state.pop("compare", None)
    if go is not None:
        st.switch_page("screens/compare.py", query_params={"job": str(go)})
    query, estimate = filters()
    slides, total = context.store().figures(KEYS, query)
    if not slides:
        st.html('<div class="wd"><h2>No slide to show</h2><p>No slide that is done matches these filters.</p></div>')
        return
    found = points(slides, measures(estimate))
    rows = [point.flat() for point in found]
    newest = (
        f"The newest {SHOWN:,} of {count(total, 'slide')} are drawn; the trend counts all." if total > SHOWN else ""
    )
    st.html(f'<div class="wd"><p>{newest or count(total, "slide") + "."}</p></div>')
    standing_out(found, rows, estimate)
    spread(rows, estimate)
    drift(query, estimate)


heading("Quality")
try:
    draw()
except WsiDenoiseError as error:
    st.error(in_markdown(for_page(str(error))), icon=":material/database_off:")
