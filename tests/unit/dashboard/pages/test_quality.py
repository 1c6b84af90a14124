"""Outliers and trends of the Quality page."""

import pytest

from dashboard.pages import quality
from dashboard.pages.measures import measures
from support.jobs import NOW
from wsi_denoise.jobs.values import Scanner, SlideFigures, TrendPoint


def slide(number, **values):
    return SlideFigures(number, f"{number}.svs", NOW, "pass", Scanner("aperio", None, None), None, values)


def test_an_outlier_is_far_from_the_median_of_the_others():
    compared = measures("wavelet")
    usual = [slide(n, sigma_before_wavelet=8.0 + n % 3, codec_psnr=44.0) for n in range(20)]
    odd = slide(99, sigma_before_wavelet=30.0, codec_psnr=31.0, structure_added=None)
    points = quality.points([*usual, odd], compared)
    assert [point.job for point in points if point.outlying] == [99]
    assert points[-1].outlying == ("before", "codec")
    row = points[-1].flat()
    assert (row["slide"], row["before"], row["outlier"]) == ("99.svs", 30.0, True)
    (listed,) = quality.outliers(points, compared)
    assert listed["text"] == "noise before 30.0, output compression 31.0"
    assert not any(point.outlying for point in quality.points([*usual[:5], odd], compared)), "too few for a usual"
    better = slide(98, sigma_before_wavelet=1.0, codec_psnr=60.0)
    assert not quality.points([*usual, better], compared)[-1].outlying, "better than usual does not stand out"


def test_slides_that_are_all_alike_do_not_stand_out_by_a_hair():
    alike = [slide(n, codec_psnr=44.0) for n in range(20)]
    points = quality.points([*alike, slide(99, codec_psnr=43.9)], measures("flat"))
    assert not any(point.outlying for point in points)


def trend(days):
    return [
        TrendPoint(f"2026-03-0{day}", Scanner(f"s{n}", None, None), 1.0, 1.0, 1.0, n + 1)
        for n in range(12)
        for day in range(1, days + 1)
    ]


def test_the_trend_keeps_the_scanners_with_most_slides():
    rows = quality.series(trend(1))
    assert {row["scanner"] for row in rows} == {f"s{n}" for n in range(4, 12)}
    assert set(rows[0]) == {"when", "scanner", "mean", "low", "high", "slides"}


@pytest.mark.parametrize(("skipped", "others"), [(0, "4 others with 20 slides are"), (6, "1 other with 8 slides is")])
def test_the_trend_says_how_many_scanners_it_leaves_out(skipped, others):
    said = f"Only the 8 scanners with most slides are drawn: {others} left out."
    assert quality.left_out_note(trend(2)[skipped:]) == said
    assert quality.left_out_note(trend(2)[8:]) == quality.left_out_note([]) == ""
