"""Quiet hours, permissions of outputs, a cap on cores, two inboxes and a backup, with a daemon that runs."""

import json
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from support.slides import tiled_tissue, write_slide
from wsi_denoise.jobs.states import JobState


@pytest.fixture(scope="module")
def place(open_workplace, tmp_path_factory):
    second = tmp_path_factory.mktemp("second")
    # From six hours ago to six hours from now: nothing runs before a user resumes the queue.
    now = datetime.now().astimezone()
    start, end = (f"{(now + timedelta(hours=hours)).hour:02}:00" for hours in (-6, 6))
    settings = {
        "intake": {"inbox": ["inbox", str(second)]},
        "output": {"mode": "0640"},
        "compute": {"quiet_hours": f"{start}-{end}", "cores": 1, "workers": 0},
    }
    with open_workplace(settings) as opened:
        opened.second, opened.quiet_until = second, end
        write_slide(opened.inbox / "sub" / "slide.tiff", tiled_tissue(300, 200, 1))
        write_slide(second / "sub" / "slide.tiff", tiled_tissue(300, 200, 2))
        opened.start()
        yield opened
        opened.stop()
        assert opened.store.paused() is None


def test_in_quiet_hours_slides_are_taken_in_and_wait_until_a_person_lifts_them(place):
    reason = place.wait(lambda: place.jobs() and place.store.paused(), "the pause")
    assert f"quiet hours until {place.quiet_until}" in reason
    place.wait(lambda: [job.state for job in place.jobs()] == [JobState.QUEUED] * 2, "both are queued")
    assert len(place.workers()) == 1
    place.cli("resume")
    both = place.wait(
        lambda: (jobs := place.jobs()) and all(job.state == "done" for job in jobs) and jobs, "both are done"
    )
    assert {job.slide for job in both} == {str(folder / "sub" / "slide.tiff") for folder in (place.inbox, place.second)}
    # The same name in two inboxes: two outputs, each with the mode, in a folder that may be entered.
    outputs = [Path(job.output) for job in both]
    assert len(set(outputs)) == 2
    assert {output.parent for output in outputs} == {place.output / "sub"}
    assert {output.stat().st_mode & 0o777 for output in outputs} == {0o640}
    assert (place.output / "sub").stat().st_mode & 0o777 == 0o750


def test_backup_and_tidy_beside_a_daemon(place, tmp_path):
    told = place.json("db", "backup", tmp_path / "copy.sqlite")
    assert told["bytes"] == (tmp_path / "copy.sqlite").stat().st_size
    with sqlite3.connect(tmp_path / "copy.sqlite") as copy:
        assert copy.execute("SELECT count(*) FROM jobs").fetchone() == (len(place.jobs()),)
    copy.close()
    place.cli("db", "backup", tmp_path / "copy.sqlite", code=2)
    place.cli("db", "backup")
    assert len(list((place.folder / ".wsi-denoise" / "backups").glob("jobs-*.sqlite"))) == 1
    before = [job.id for job in place.jobs()]
    tidied = json.loads(place.cli("db", "tidy", "--json", "--set", "jobs.keep_days=0.000001"))
    assert tidied == {"spools": 0, "bytes": 0, "jobs": [], "dry_run": False}
    assert [job.id for job in place.jobs()] == before
