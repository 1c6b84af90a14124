"""The acceptance programs in their short form; docs/evidence/reliability.md has what was run in full."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
PATIENCE = 1500

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * PATIENCE)]


def figures(tmp_path, name, *arguments):
    """Run a program as a user does, and return its figures; the program itself checks them."""
    results = tmp_path / f"{name}.json"
    ended = subprocess.run(
        [sys.executable, PROGRAMS / f"{name}.py", "--folder", tmp_path / "work", "--results", results, *arguments],
        env={**os.environ, "PYTHONPATH": str(PROGRAMS.parents[2])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(results.read_text())["figures"]


def test_kills(tmp_path):
    found = figures(tmp_path, "kills", "--kills", "3", "--size", "1700x1600", "--longest", "12")
    assert found["kills"] == 3
    assert found["lost"] == 0


def test_daemons_on_a_database_that_is_locked_meanwhile(tmp_path):
    found = figures(tmp_path, "daemons", "--daemons", "2", "--slides", "10", "--lock", "3")
    assert found["sqlite: done"] == found["sqlite: attempts"] == 10


def test_daemons_on_a_server_that_is_restarted_meanwhile(tmp_path, postgres):
    found = figures(tmp_path, "daemons", "--daemons", "2", "--slides", "10", "--database", "postgresql", "--restart")
    assert found["postgresql: done"] == 10
    assert found["restarts of PostgreSQL"] == 1


def test_soak(tmp_path):
    found = figures(tmp_path, "soak", "--slides", "24", "--first", "12", "--batch", "12", "--slack", "8")
    assert found["at the end"]["slides"] == 24
    assert found["answers of /api/jobs"] > 0
