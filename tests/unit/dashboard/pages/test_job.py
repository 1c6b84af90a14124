"""One job on the History page."""

from dataclasses import replace
from pathlib import Path

import pytest

from dashboard.pages import job as page
from dashboard.pages.markup import facts
from support.jobs import NOW, PLAIN
from wsi_denoise import errors
from wsi_denoise.jobs.states import OVER, JobState

THERE = page.Files(original=True, output=True, original_removed=False, output_removed=False)
AWAY = page.Files(original=False, output=False, original_removed=False, output_removed=False)
REMOVED = page.Files(original=False, output=False, original_removed=True, output_removed=True)
DONE = replace(PLAIN, state=JobState.DONE, finished=NOW, output="/out/x.tiff")


def test_actions_follow_from_state_and_files():
    can = {
        state: page.actions(replace(PLAIN, state=state, finished=NOW if state in OVER else None), THERE)
        for state in JobState
    }
    assert can[JobState.FAILED] == can[JobState.QUARANTINED] == can[JobState.CANCELLED] == {"retry", "rerun"}
    assert can[JobState.DONE] == {"compare", "download", "rerun"}
    assert can[JobState.QUEUED] == can[JobState.RUNNING] == can[JobState.SETTLING] == {"cancel"}
    assert page.actions(replace(PLAIN, next_try=NOW), THERE) == {"retry", "cancel"}
    assert page.actions(DONE, REMOVED) == {"retry"}
    assert page.actions(DONE, AWAY) == {"rerun"}, "the daemon may see a folder that this machine does not"
    assert page.actions(replace(PLAIN, state=JobState.RUNNING, cancel_requested=True), THERE) == set()


def test_a_file_is_removed_only_if_its_folder_exists(tmp_path):
    job = replace(DONE, slide=str(tmp_path / "in" / "x.svs"), output=str(tmp_path / "out" / "x.tiff"))
    assert page.Files.of(job) == AWAY
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    assert page.Files.of(job) == REMOVED
    for file in (job.slide, job.output):
        Path(file).touch()
    assert page.Files.of(job) == THERE


def test_missing_files_are_named():
    assert page.missing_notes(DONE, THERE) == []
    assert "/out/x.tiff" in page.missing_notes(DONE, replace(THERE, output=False))[0]
    assert "/in/a/x.svs" in page.missing_notes(DONE, replace(THERE, original=False))[0]
    assert len(page.missing_notes(DONE, REMOVED)) == 2
    assert page.missing_notes(PLAIN, REMOVED) == []


@pytest.mark.parametrize("state", list(JobState))
def test_unknown_facts_are_left_out(state):
    text = facts(page.fact_rows(replace(PLAIN, state=state, fingerprint=None, finished=NOW)))
    assert not any(part in text for part in ("None", "SHA-256", "<code></code>"))


def test_facts_have_links_buttons_and_singulars():
    error = errors.InternalError("a detail")
    job = replace(PLAIN, state=JobState.FAILED, error=str(error), error_code=error.code, blocks_total=1)
    known = dict(page.fact_rows(replace(job, duplicate_of=12)))
    assert known["Same as"] == '<a href="/history?job=12" target="_self">job 12</a>'
    assert known["Blocks"] == "0 of 1 block"
    assert "Try again" in known["Went wrong"]
    assert "wsi-denoise" not in known["Went wrong"]
