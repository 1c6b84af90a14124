"""Difference before - after, reduced by area from level 0."""

import numpy as np
import pytest

from dashboard.tiles import difference
from dashboard.tiles.deepzoom import DeepZoom
from dashboard.tiles.slides import MOST_PIXELS, PicturePlane
from support.slides import add_noise


@pytest.fixture(scope="module")
def planes(tissue_image):
    after = np.ascontiguousarray(tissue_image[:900, :700])
    return PicturePlane(add_noise(after, 20, 3)), PicturePlane(after)


def truth(before, after, step, measure):
    """The difference over areas of `step` x `step`, in whole numbers."""

    def sums(values):
        down = np.add.reduceat(values, range(0, len(values), step), axis=0)
        return np.add.reduceat(down, range(0, values.shape[1], step), axis=1)

    change = before.astype(np.int64) - after
    means = sums(change if measure == "mean" else change**2) / sums(np.ones_like(change))
    return means if measure == "mean" else np.sqrt(means)


@pytest.mark.parametrize("measure", difference.MEASURES)
@pytest.mark.parametrize("smaller", range(11))
def test_areas_of_every_level_are_exact(planes, smaller, measure):
    geometry = DeepZoom(700, 900)
    level = geometry.last - smaller
    columns, rows = geometry.shape(level)
    boxes = [[geometry.box(level, column, row) for column in range(columns)] for row in range(rows)]
    seen = np.vstack([np.hstack([difference.area_differences(*planes, box, measure) for box in row]) for row in boxes])
    wanted = truth(planes[0].pixels, planes[1].pixels, 1 << smaller, measure)
    assert seen.shape == wanted.shape
    assert np.abs(seen - wanted).max() <= 1e-3


def test_a_mean_is_painted_around_grey_and_a_root_mean_square_from_black():
    extreme = np.array([[[255.0, -255.0, 0.0]]], np.float32)
    assert difference.to_pixels(extreme, 64, "mean").tolist() == [[[255, 0, 128]]]
    assert difference.to_pixels(np.abs(extreme), 64, "rms").tolist() == [[[255, 255, 0]]]
    assert difference.to_pixels(np.full((1, 1, 3), 2.5, np.float32), 3, "mean").tolist() == [[[136] * 3]]


def test_a_large_slide_offers_the_difference_from_an_eighth_on():
    geometry = DeepZoom(100_000, 100_000)
    least = difference.least_level(geometry)
    assert (geometry.last - least, difference.least_zoom(geometry)) == (2, 0.125)
    # A tile at the smallest level that is offered reads 2048 x 2048 px.
    box = geometry.box(least, 0, 0)
    assert (box.right - box.left) * (box.bottom - box.top) <= MOST_PIXELS / 5
    assert difference.least_level(DeepZoom(700, 900)) == difference.least_zoom(DeepZoom(700, 900)) == 0
