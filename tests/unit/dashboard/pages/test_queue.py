"""Values that the Queue page shows."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dashboard.pages import queue
from support.jobs import DAEMON, NOW, PLAIN
from wsi_denoise import errors, settings
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import JobPage

SETTINGS = settings.load(environ={}, folder=Path("/lab")).settings


def state(**changed):
    asked = {
        "settings": SETTINGS, "now": NOW, "daemons": [DAEMON], "paused": None, "counts": {}, "running": JobPage([], 0),
        "waiting": JobPage([], 0), "finished": [],
    }  # fmt: skip
    return queue.state(**asked | changed)


@pytest.mark.parametrize(("silent", "found", "alive"), [(4, "alive", True), (20, "late", True), (61, "lost", False)])
def test_a_silent_daemon_is_late_and_then_lost(silent, found, alive):
    shown = state(daemons=[replace(DAEMON, heartbeat=NOW - timedelta(seconds=silent))])
    assert (shown["daemons"][0]["state"], shown["alive"]) == (found, alive)


def test_a_running_slide_shows_its_progress():
    def row(job):
        return state(running=JobPage([job], 1))["running"][0]

    job = replace(PLAIN, state=JobState.RUNNING)
    assert (row(job)["step"], row(job)["opened"]) == ("opening", False), "there is no picture to ask for yet"
    job = replace(job, blocks_total=30, blocks_done=3, progress=0.1, rate=1.5, seconds_left=70.0)
    shown = row(job)
    assert (shown["step"], shown["percent"], shown["blocks"]) == ("denoising", "10 %", "3 of 30 blocks")
    assert (shown["rate"], shown["left"]) == ("1.50 MPix/s", "1 min 10 s")
    done = replace(job, blocks_done=30, progress=1.0)
    assert (row(done)["step"], row(done)["left"]) == ("writing and verifying the TIFF", "")
    assert row(replace(done, cancel_requested=True))["step"] == "stopping, as asked"


def test_the_number_of_running_slides_is_shown_when_not_all_are():
    shown = state(running=JobPage([replace(PLAIN, id=number, state=JobState.RUNNING) for number in range(8)], 11))
    assert (len(shown["running"]), shown["running_total"]) == (8, 11)


@pytest.mark.parametrize(
    ("wanted", "current", "set_"),
    [(1, 0, 1), (1000, 999, 999), (-1000, -999, -999), (5001, 5000, 5000), (4999, 5000, 4999), (-5001, -5000, -5000),
     (-4999, -5000, -4999), (10**9, 0, 999)],
)  # fmt: skip
def test_higher_never_lowers_a_priority(wanted, current, set_):
    assert queue.priority(wanted, current) == set_


def test_a_job_that_waits_to_be_retried_shows_when_and_why():
    job = replace(PLAIN, next_try=NOW + timedelta(seconds=90), attempts=2, error=str(errors.InternalError("a detail")))
    shown = state(waiting=JobPage([job], 1))["waiting"][0]
    assert shown["note"].startswith("tried again in 1 min 30 s (attempt 3): ")
    assert "wsi-denoise" not in shown["note"], "a button and not a command"
    assert "Try again" in shown["note"]
    assert shown["again"]


def test_the_component_gets_json():
    job = replace(
        PLAIN, relative="\udce9.svs", state=JobState.DONE, verdict="pass", reasons=["noise_removed: sigma 9."]
    )
    shown = state(finished=[job, replace(PLAIN, state=JobState.DUPLICATE, duplicate_of=12)], paused="<b>")
    assert json.dumps(shown).encode()
    assert [row["why"] for row in shown["finished"]] == ["Sigma 9.", "The same as job 12."]
    assert shown["finished"][1]["same"] == 12


def test_ended_jobs_are_counted():
    shown = state(counts={JobState.FAILED: 1200, JobState.RUNNING: 3})
    assert [(one["word"], one["count"]) for one in shown["counts"]] == [("done", "0"), ("failed", "1,200")]
    assert shown["ever"] == 1203
