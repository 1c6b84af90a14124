"""A Queue page that is left open does not grow. An hour by command: python tests/bench/dashboard.py live."""

import json

import pytest


@pytest.mark.timeout(900)
def test_a_page_left_open_for_two_minutes_does_not_grow(left_open):
    if left_open is None:
        pytest.skip("no Chromium or no playwright here")
    process, said = left_open
    assert process.wait(600) == 0, said.read_text()
    found = json.loads(said.read_text().partition("\n{\n")[2].join(["{", ""]))
    assert found["minutes"] == 2
    assert found["looks"] >= 10, "a machine this slow says nothing"
    # What leaks leaks at every refresh: one drawn anew every time would be tens of percent after two minutes.
    for what in ("server", "page", "nodes"):
        assert found[f"{what}_growth"] < 0.10, found
