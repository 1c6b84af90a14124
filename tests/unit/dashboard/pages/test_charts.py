"""Bins of the charts."""

import itertools

import pytest

from dashboard.pages.charts import bins


@pytest.mark.parametrize(
    "values",
    [[0.0], [3.7] * 9, [0.1, 0.2, 0.3], [-4.0, 0.0, 4.0], [1e-7, 3e-7], [12.0, 12.4, 60.0, 61.0], [0.0, 2.4, 4.8]],
)
def test_bins_are_round_of_one_width_and_hold_every_value(values):
    found = bins(values)
    assert sum(slides for *_, slides in found) == len(values)
    assert len(found) <= 25
    widths = {round(high - low, 9) for low, high, _ in found}
    assert len(widths) == 1
    assert f"{widths.pop():e}"[0] in "125"
    for (_, high, _), (low, _, _) in itertools.pairwise(found):
        assert high == low
    for value in values:
        assert any(low <= value < high or value == pytest.approx(low) for low, high, slides in found if slides)


def test_bins_of_nothing_are_none():
    assert bins([]) == []
