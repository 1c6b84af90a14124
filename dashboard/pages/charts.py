"""The charts of the Quality page, as Vega-Lite specifications; each colour also has a shape, for colour-blind users.

Plain values and no chart library: Altair checks every value of every chart against its schema, which took seconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dashboard.pages.measures import Measure

Spec = dict[str, Any]

_VERDICTS = ["pass", "review", "not needed"]
_COLOURS = ["#2e9f6b", "#e0762b", "#8a929c"]
_SHAPES = ["circle", "triangle-up", "square"]
_LINES = ["#3b82f6", "#e0762b", "#2e9f6b", "#a361d9", "#c2476e", "#8a7a1f", "#148f9c", "#8a929c"]
_BAR = "#6f9fe0"
_RING = "#d64550"
_TOP: Spec = {"orient": "top", "title": None}
_MARKS = "marks"
_FEW_DAYS = 10
PICK = "pick"
"""Name of the selection that a click on the scatter makes; its field is ``job``."""


def _number(field: str, title: str | None = None, **more: Any) -> Spec:
    return {"field": field, "type": "quantitative", **({"title": title} if title else {}), **more}


def _word(field: str, **more: Any) -> Spec:
    return {"field": field, "type": "nominal", **more}


def scatter(rows: Sequence[Mapping[str, Any]], compared: Sequence[Measure]) -> Spec:
    """Return noise after against noise before: one mark a slide, with a ring if it stands out; a click picks one."""
    place = {
        axis: _number(one.key, one.title, scale={"zero": True, "nice": True}, axis={"tickCount": 8})
        for axis, one in zip("xy", compared, strict=False)
    }
    tooltip = [
        *(_word(name) for name in ("slide", "verdict", "scanner", "seen")),
        *(_number(one.key, one.title, format=f".{one.digits}f") for one in compared),
    ]
    ring = {
        "transform": [{"filter": "datum.outlier"}],
        "mark": {"type": "point", "size": 260, "color": _RING, "strokeWidth": 1.8, "aria": False},
        "encoding": place,
    }
    marks = {
        "name": _MARKS,
        "mark": {"type": "point", "filled": True, "size": 70, "opacity": 0.75},
        "encoding": {
            **place,
            "color": _word("verdict", scale={"domain": _VERDICTS, "range": _COLOURS}, legend=_TOP),
            "shape": _word("verdict", scale={"domain": _VERDICTS, "range": _SHAPES}, legend=_TOP),
            "tooltip": tooltip,
        },
    }
    pick = {"name": PICK, "select": {"type": "point", "fields": ["job"], "on": "click"}, "views": [_MARKS]}
    return {"data": {"values": list(rows)}, "layer": [ring, marks], "params": [pick], "height": 360}


def distribution(values: Sequence[float], measure: Measure) -> Spec:
    """Return a histogram of a figure, with the limit from which the verdict is review."""
    bars = {
        "mark": {"type": "bar", "color": _BAR},
        "encoding": {
            "x": _number("low", measure.title, bin="binned"),
            "x2": {"field": "high"},
            "y": _number("slides", "slides", axis={"tickMinStep": 1, "tickCount": 4}),
            "tooltip": [_number("low", "from"), _number("high", "to"), _number("slides", "slides")],
        },
    }
    layers: list[Spec] = [bars]
    if measure.limit is not None:
        rule = {"type": "rule", "color": _RING, "strokeDash": [5, 4], "strokeWidth": 1.5, "aria": False}
        layers.append({"mark": rule, "encoding": {"x": {"datum": measure.limit, "type": "quantitative"}}})
    counted = [{"low": low, "high": high, "slides": slides} for low, high, slides in bins(values)]
    return {"data": {"values": counted}, "layer": layers, "height": 170}


def bins(values: Sequence[float], most: int = 24) -> list[tuple[float, float, int]]:
    """Return (low, high, count) of steps of equal width, 1, 2 or 5 times a power of ten, the empty ones included.

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


def trend(rows: Sequence[Mapping[str, Any]], title: str, *, by: str) -> Spec:
    """Return a metric's mean for each scanner over time, with its range as a band."""
    weeks = by == "scan_week"
    when: Spec = {
        "field": "when",
        "type": "ordinal" if weeks else "temporal",
        "title": "week of the scan" if weeks else "day on which the slide was seen",
    }
    if not weeks:
        # Days are UTC, and no hours stand between the days of a week.
        few = len({row["when"] for row in rows}) <= _FEW_DAYS
        ticks = {"tickCount": {"interval": "day", "step": 1}, "format": "%b %d"} if few else {}
        when |= {"scale": {"type": "utc"}, "axis": ticks}
    legend = {**_TOP, "labelLimit": 320, "symbolOpacity": 1, "symbolType": "circle"}
    shared = {"x": when, "color": _word("scanner", scale={"range": _LINES}, legend=legend)}
    band = {
        "mark": {"type": "area", "opacity": 0.16},
        "encoding": {**shared, "y": _number("low", title), "y2": {"field": "high"}},
    }
    tooltip = [
        _word("scanner"),
        _word("when", title="when"),
        _number("slides"),
        *(_number(name, format=".2f") for name in ("mean", "low", "high")),
    ]
    line = {
        "mark": {"type": "line", "point": True, "strokeWidth": 2},
        "encoding": {**shared, "y": _number("mean", title), "tooltip": tooltip},
    }
    return {"data": {"values": list(rows)}, "layer": [band, line], "height": 300}
