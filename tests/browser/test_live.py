"""A Queue page that is left open does not grow. An hour by command: python tests/bench/dashboard.py live."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.browser import find_chromium

BENCH = Path(__file__).parents[1] / "bench" / "dashboard.py"

pytestmark = pytest.mark.slow


@pytest.mark.timeout(900)
def test_a_page_left_open_for_two_minutes_does_not_grow():
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if find_chromium() is None:
        pytest.skip("no Chromium here (on Debian: apt-get install chromium)")
    flags = ("--minutes", "2", "--settle", "0.5", "--every", "2", "--jobs", "300")
    ended = subprocess.run([sys.executable, BENCH, "live", *flags], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout.partition("\n{\n")[2].join(["{", ""]))
    assert found["minutes"] == 2
    assert found["looks"] >= 10, "this machine is too slow for the measurement"
    # A leak grows at every refresh. A page drawn again at each would grow by tens of percent in two minutes.
    for what in ("server", "page", "nodes"):
        assert found[f"{what}_growth"] < 0.10, found
