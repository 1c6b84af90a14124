"""A Queue page that is left open does not grow. An hour by command: python tests/bench/dashboard.py live."""

import importlib.util
import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture
def bench():
    specification = importlib.util.spec_from_file_location(
        "bench_dashboard", Path(__file__).parents[1] / "bench" / "dashboard.py"
    )
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.timeout(600)
def test_a_page_left_open_does_not_grow(bench):
    if not any(map(shutil.which, ("chromium", "google-chrome"))):
        pytest.skip("no Chromium here")
    found = bench.live(1.0, settle=0.3, every=2.0, jobs=300)
    assert found["looks"] >= 5, "a machine this slow says nothing"
    # What leaks leaks at every refresh: one drawn anew every time would be tens of percent after a minute.
    assert found["server_growth"] < 0.10, found
    assert found["page_growth"] < 0.15, found
