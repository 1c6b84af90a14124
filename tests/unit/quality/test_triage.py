from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_denoise.quality.triage import ANY_NOISE, WHITE_NOISE, Triage, choose

LEVELS = st.floats(0.0, 100.0)


@pytest.mark.parametrize(
    ("paper", "blind", "preset"),
    [
        (5.3, 5.4, "paper"),  # white noise of sigma 6
        (44.7, 43.6, "paper"),
        (0.1, 5.2, "blind"),  # the same after JPEG: paper sees nothing
        (10.3, 13.1, "blind"),  # channels with a correlation of 0.4
        (3.0, 2.7, None),  # a sharp JPEG scan
        (0.0, 0.0, None),
    ],
)
def test_the_preset_is_the_one_that_suits_the_noise(paper, blind, preset):
    assert choose({"paper": paper, "blind": blind}) == preset


@given(paper=LEVELS, blind=LEVELS, more=st.floats(0.0, 50.0))
def test_more_noise_never_makes_a_slide_clean(paper, blind, more):
    if choose({"paper": paper, "blind": blind}) is not None:
        assert choose({"paper": paper + more, "blind": blind + more}) is not None


@given(paper=LEVELS, blind=LEVELS)
def test_a_slide_is_clean_only_if_no_preset_finds_noise(paper, blind):
    clean = choose({"paper": paper, "blind": blind}) is None
    assert clean == (paper <= WHITE_NOISE and blind <= ANY_NOISE)


def test_a_decision_says_what_it_rests_on():
    decision = Triage("blind", "paper", {"paper": 0.12345, "blind": 5.4}, 64, 1.234)
    assert str(decision) == "blind is best: on 64 patches, the presets change, in grey levels: paper 0.1, blind 5.4"
    assert decision.to_json() == {
        "preset": "blind",
        "used": "paper",
        "removed": {"paper": 0.123, "blind": 5.4},
        "patches": 64,
        "seconds": 1.23,
    }
    assert str(Triage(None, None, {}, 0)) == "no tissue was found to sample"
