"""Standard streams that are closed, full or not read end no command with a traceback."""

import os
import sqlite3
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("wsi-denoise")
FULL = Path("/dev/full")
BAD = ("Traceback", "made a mistake", "report it", "Exception ignored", "Error:")
CLOSED = ["2>&-", "<&-", "<&- >&- 2>&-"]

COMMANDS = {
    "help": "--help",
    "jobs as CSV": "jobs --csv",
    "config": "config",
    "config as JSON": "config --json",
    "unknown job": "job 5",
    "unknown setting as JSON": "config --set a.b=1 --json",
}
UNBUFFERED = {"--help", "config --json"}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    assert ran(folder, "db upgrade").returncode == 0
    return folder


def ran(folder, command, streams="", **environ):
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("WSI_DENOISE_", "PYTHONUNB"))}
    given = {"cwd": folder, "env": {**plain, **environ}, "capture_output": True, "text": True, "timeout": 300}
    return subprocess.run(["bash", "-c", f"{PROGRAM} {command} {streams}"], check=False, **given)


@cache
def usual(folder, command):
    return ran(folder, command)


def clean(done):
    assert [text for text in BAD if text in done.stdout + done.stderr] == [], done.stderr


@pytest.mark.parametrize("streams", CLOSED)
@pytest.mark.parametrize("command", ["jobs --csv", "config --set a.b=1 --json"])
def test_closed_streams_are_as_good_as_dev_null(here, command, streams):
    expected = usual(here, command)
    done = ran(here, command, streams)
    clean(done)
    assert done.returncode == expected.returncode
    assert done.stdout == ("" if " >&-" in streams else expected.stdout)
    assert done.stderr == ("" if "2>&-" in streams else expected.stderr)


def test_a_closed_stream_is_not_given_to_the_database(here):
    """What is written to a standard stream would be written into the first file that is opened."""
    assert ran(here, "pause 'a reason'", "<&- >&- 2>&-").returncode == 0
    with sqlite3.connect(here / ".wsi-denoise" / "jobs.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT reason FROM pauses").fetchall() == [("a reason",)]


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_full_standard_output_is_named_once(here, command):
    # Without a buffer the write fails, with one the flush at the end.
    unbuffered = {"PYTHONUNBUFFERED": "1"} if command in UNBUFFERED else {}
    expected = usual(here, command)
    done = ran(here, command, "> /dev/full", **unbuffered)
    clean(done)
    said = done.stderr.count("Standard output cannot be written: No space left on device.")
    if expected.stdout:
        assert (done.returncode, said) == (expected.returncode or 1, 1)
    else:
        assert (done.returncode, said) == (expected.returncode, 0)


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["config", "unknown-command"])
def test_a_full_standard_error_changes_nothing(here, command):
    expected = usual(here, command)
    done = ran(here, command, "2> /dev/full")
    assert (done.returncode, done.stdout) == (expected.returncode, expected.stdout)
    code = expected.returncode or 1
    assert ran(here, command, "> /dev/full 2> /dev/full").returncode == code


@pytest.mark.parametrize("command", ["config --json", "--help"])
def test_a_reader_that_went_away_is_no_failure(here, command):
    for pipe in ("| (exec <&-; sleep 1)", "2>&1 >/dev/null | (exec <&-; sleep 1)"):
        done = ran(here, command, f"{pipe}; exit ${{PIPESTATUS[0]}}")
        clean(done)
        assert done.returncode == 0


def test_a_name_that_is_no_text_is_printed(here):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    done = ran(here, f"config --json --set 'output.folder={name}'", PYTHONUTF8="1")
    assert done.returncode == 0
    clean(done)
