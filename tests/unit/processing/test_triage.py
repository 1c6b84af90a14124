from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from wsi_denoise.processing.triage import removed, sample, triage, window
from wsi_denoise.slide.geometry import PATCH, STRIDE

MASKS = arrays.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)))


@given(tissue=MASKS, seed=st.text(max_size=5), most=st.integers(1, 64))
def test_a_sample_is_of_tissue_without_repetition(tissue, seed, most):
    places = sample(tissue, seed, most)
    assert len(places) == len(set(places)) == min(most, tissue.sum())
    assert all(tissue[place] for place in places)
    assert places == sample(tissue, seed, most)


def test_a_sample_is_spread_over_the_tissue():
    rows = np.array([row for row, _ in sample(np.ones((640, 3), np.bool_), "slide", 64)])
    assert (np.histogram(rows, bins=64, range=(0, 640))[0] >= 1).mean() > 0.9
    assert sample(np.ones((640, 3), np.bool_), "slide") != sample(np.ones((640, 3), np.bool_), "other")


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), row=st.integers(0, 31), column=st.integers(0, 31))
def test_a_window_lies_in_the_slide_and_fits_the_network(width, height, row, column):
    row, column = min(row, (height - 1) // PATCH), min(column, (width - 1) // PATCH)
    x, y, across, down = window(row, column, width, height)
    assert min(x, y) >= 0
    assert x + across <= width
    assert y + down <= height
    assert across % STRIDE == down % STRIDE == 0
    # It shows the patch wherever the slide is large enough.
    if min(width, height) >= PATCH + 2 * STRIDE:
        assert x <= column * PATCH
        assert y <= row * PATCH
        assert x + across >= min((column + 1) * PATCH, width)
        assert y + down >= min((row + 1) * PATCH, height)


def add(levels):
    """Return a denoiser that changes every value by so many grey levels."""
    return lambda windows: (windows + levels).astype(np.uint8)


def test_the_removed_level_is_that_of_most_windows():
    windows = [np.full((side, 16, 3), 100, np.uint8) for side in (16, 32, 48)]
    assert removed(windows, {"paper": add(3), "blind": add(0)}) == {"paper": 3.0, "blind": 0.0}

    def texture_in_one(pixels):
        return pixels + np.uint8(40 if pixels.shape[1] == 48 else 2)

    assert removed(windows, {"paper": texture_in_one}) == {"paper": 2.0}

    def half(pixels):
        return np.concatenate([pixels[:, :, :8] + np.uint8(4), pixels[:, :, 8:]], axis=2)

    assert removed(windows, {"paper": half})["paper"] == pytest.approx(8**0.5)


@pytest.mark.parametrize(
    ("preset", "levels", "used"),
    [
        ("auto", {"paper": 9, "blind": 9}, "paper"),
        ("auto", {"paper": 0, "blind": 9}, "blind"),
        ("auto", {"paper": 1, "blind": 1}, None),
        ("scanner", {"paper": 1, "blind": 1, "scanner": 7}, "scanner"),  # a named preset is used as named
    ],
)
def test_the_best_preset_is_used_unless_one_is_named(preset, levels, used):
    read = lambda x, y, width, height: np.full((height, width, 3), 120, np.uint8)  # noqa: E731
    decision = triage(read, (960, 960), np.ones((10, 10), np.bool_), "slide", preset, lambda name: add(levels[name]))
    assert decision.used == used
    assert decision.removed == pytest.approx(levels)
    assert decision.patches == 64


@pytest.mark.parametrize(("size", "tissue"), [((960, 960), False), ((15, 960), True)])
def test_without_tissue_to_sample_nothing_is_removed(size, tissue):
    mask = np.full((10, 10), tissue)

    def read(*_area):
        raise AssertionError

    assert triage(read, size, mask, "slide", "auto", lambda _name: add(9)).used is None
    assert triage(read, size, mask, "slide", "fine", lambda _name: add(9)).used == "fine"
