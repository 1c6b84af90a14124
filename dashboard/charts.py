"""The charts of the Quality page. Figures come as rows; colours have a shape beside them for those who see none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from dashboard.quality_view import Measure

COLOURS = alt.Scale(domain=["pass", "review", "not needed"], range=["#2e9f6b", "#e0762b", "#8a929c"])
SHAPES = alt.Scale(domain=["pass", "review", "not needed"], range=["circle", "triangle-up", "square"])
LINES = ["#3b82f6", "#e0762b", "#2e9f6b", "#a361d9", "#c2476e", "#8a7a1f", "#148f9c", "#8a929c"]
BAR = "#6f9fe0"
RING = "#d64550"
PICK = "pick"


def _tooltip(compared: Sequence[Measure]) -> list[alt.Tooltip]:
    words = [alt.Tooltip(f"{name}:N") for name in ("slide", "verdict", "scanner", "seen")]
    return [*words, *(alt.Tooltip(f"{one.key}:Q", title=one.title, format=f".{one.digits}f") for one in compared)]


def scatter(rows: list[dict[str, Any]], compared: Sequence[Measure]) -> alt.LayerChart:
    """Return noise before against noise after: one mark a slide, a ring round what stands out; a click picks one."""
    data = alt.Data(values=rows)
    pick = alt.selection_point(name=PICK, fields=["job"], on="click", empty=False)
    x = alt.X("before:Q", title=compared[0].title, scale=alt.Scale(zero=True, nice=True), axis=alt.Axis(tickCount=8))
    y = alt.Y("after:Q", title=compared[1].title, scale=alt.Scale(zero=True, nice=True), axis=alt.Axis(tickCount=8))
    ring = (
        alt.Chart(data)
        .transform_filter("datum.outlier")
        .mark_point(size=260, color=RING, strokeWidth=1.8)
        .encode(x=x, y=y)
    )
    marks = (
        alt.Chart(data)
        .mark_point(filled=True, size=70, opacity=0.75)
        .encode(
            x=x,
            y=y,
            color=alt.Color("verdict:N", scale=COLOURS, legend=alt.Legend(orient="top", title=None)),
            shape=alt.Shape("verdict:N", scale=SHAPES, legend=alt.Legend(orient="top", title=None)),
            tooltip=_tooltip(compared),
        )
        .add_params(pick)
    )
    return alt.layer(ring, marks).properties(height=360)


def distribution(rows: list[dict[str, Any]], measure: Measure) -> alt.LayerChart:
    """Return how many slides have which value, and where the verdict becomes suspicious."""
    data = alt.Data(values=[{"value": row[measure.key]} for row in rows if row[measure.key] is not None])
    bars = (
        alt.Chart(data)
        .mark_bar(color=BAR)
        .encode(
            x=alt.X("value:Q", bin=alt.Bin(maxbins=24), title=measure.title),
            y=alt.Y("count():Q", title="slides", axis=alt.Axis(tickMinStep=1, tickCount=4)),
            tooltip=[alt.Tooltip("value:Q", bin=True, title=measure.title), alt.Tooltip("count():Q", title="slides")],
        )
    )
    layers: list[alt.Chart] = [bars]
    if measure.limit is not None:
        rule = alt.Chart(alt.Data(values=[{"limit": measure.limit}]))
        layers.append(rule.mark_rule(color=RING, strokeDash=[5, 4], strokeWidth=1.5).encode(x=alt.X("limit:Q")))
    return alt.layer(*layers).properties(height=170)


def trend(rows: list[dict[str, Any]], title: str, *, by: str) -> alt.LayerChart:
    """Return a metric's mean for each scanner over time, with its range as a band."""
    data = alt.Data(values=rows)
    weeks = by == "scan_week"
    x = alt.X("when:O" if weeks else "when:T", title="week of the scan" if weeks else "day on which the slide was seen")
    color = alt.Color(
        "scanner:N",
        scale=alt.Scale(range=LINES),
        legend=alt.Legend(orient="top", title=None, labelLimit=320, symbolOpacity=1, symbolType="circle"),
    )
    base = alt.Chart(data)
    band = base.mark_area(opacity=0.16).encode(x=x, y=alt.Y("low:Q", title=title), y2="high:Q", color=color)
    tooltip = [
        alt.Tooltip("scanner:N"),
        alt.Tooltip("when:N", title="when"),
        alt.Tooltip("slides:Q"),
        *(alt.Tooltip(f"{name}:Q", format=".2f") for name in ("mean", "low", "high")),
    ]
    line = base.mark_line(point=True, strokeWidth=2).encode(
        x=x, y=alt.Y("mean:Q", title=title), color=color, tooltip=tooltip
    )
    return alt.layer(band, line).properties(height=300)
