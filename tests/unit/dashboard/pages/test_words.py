"""Texts of the pages: numbers and plurals, buttons instead of commands, nothing where nothing is known."""

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dashboard.pages import compare_view, history_view, queue_view, system_view, words
from wsi_denoise import errors
from wsi_denoise.doctor import Check
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import Job, JobPage
from wsi_denoise.quality import verdict

ON_THE_COMMAND_LINE_ONLY = ("wsi-denoise db upgrade", "wsi-denoise run", "wsi-denoise up")

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLAIN = Job(
    id=1, slide="/in/a/x.svs", relative="a/x.svs", state=JobState.QUEUED, verdict=None, reasons=[], preset="paper",
    priority=0, progress=0.0, blocks_done=0, blocks_total=0, blocks_resumed=0, rate=None, seconds_left=None,
    created=NOW, started=None, finished=None, next_try=None, output=None, output_sha256=None, maps=None, attempts=0,
    error_code=None, error=None, metrics={}, fingerprint="f", size_bytes=34_500_000, mtime_ns=1, width=None,
    height=None, mpp=None, facts={}, settings={}, settings_hash="s", model_checksum=None, origin="daemon:1",
    duplicate_of=None, region=None, provenance={}, daemon=None, cancel_requested=False,
)  # fmt: skip


@pytest.mark.parametrize("error", list(errors.every_error()), ids=lambda error: error.__name__)
def test_errors_name_buttons_and_pages_instead_of_commands(error):
    shown = words.for_page(str(error("detail")))
    for command in re.findall(r"wsi-denoise [a-z-]+(?: [a-z]+)?", shown):
        assert command.startswith(ON_THE_COMMAND_LINE_ONLY), shown
    # Sentences still begin with a capital.
    assert not re.search(r"[.!?] (the|see) ", shown), shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("wsi-denoise retry 12 tries again.", "The button Try again tries again."),
        ("paused: lunch; wsi-denoise resume", "paused: lunch; the button Resume on the Queue page"),
        ("See wsi-denoise jobs.", "See the History page."),
        ("wsi-denoise jobsworth", "wsi-denoise jobsworth"),
        ("in 1 patches, 11 patches, 0.1 patches", "in 1 patch, 11 patches, 0.1 patches"),
    ],
)
def test_a_message_is_adapted_to_the_page(said, shown):
    assert words.for_page(said) == shown


def test_the_doctor_names_buttons_instead_of_commands():
    shown = system_view.checks([Check("queue", "warning", "paused: lunch; wsi-denoise resume")])
    assert "wsi-denoise" not in shown
    assert "the button Resume on the Queue page" in shown


def failed(**more):
    error = errors.InternalError("a detail")
    return replace(PLAIN, state=JobState.FAILED, finished=NOW, error=str(error), error_code=error.code, **more)


def test_no_list_and_no_job_shows_a_command_of_the_command_line():
    job = failed(reasons=[])
    waits = replace(job, state=JobState.QUEUED, finished=None, next_try=NOW)
    texts = [
        history_view.facts(job),
        history_view.listed(JobPage([job], 1), {}, sort="-created", page=1, now=NOW)["rows"][0]["why"],
        queue_view.why(job),
        queue_view._waiting(waits, NOW)["note"],
    ]
    for text in texts:
        assert "wsi-denoise" not in text
        assert "Try again" in text


def test_numbers_of_one_are_singular():
    assert words.count(1, "patch") == "1 patch"
    assert words.count(2, "patch") == "2 patches"
    assert words.of(0, 1, "block") == "0 of 1 block"
    assert words.of(1, 2, "block") == "1 of 2 blocks"
    assert [words.size(count) for count in (0, 1, 2)] == ["0 bytes", "1 byte", "2 bytes"]
    assert history_view.facts(replace(PLAIN, blocks_total=1)).count("0 of 1 block<") == 1
    running = replace(PLAIN, state=JobState.RUNNING, blocks_total=1)
    assert queue_view._running(running)["blocks"] == "0 of 1 block"
    limits = replace(verdict.DEFAULT, mismatched_patches=1, structure_patches=1)
    metrics = {"mismatched_patches": 1.0, "tissue_patches": 100.0}
    (reason, *_) = list(verdict._against(metrics, limits))
    assert "1 patch shows" in reason
    grave = {"structure_removed_patches": 1.0, "structure_removed": 50.0}
    assert any("in 1 patch (" in reason for reason in verdict._against(grave, limits))


def test_a_range_of_jobs_is_a_range():
    def shown(total, page, jobs):
        return history_view.listed(JobPage([PLAIN] * jobs, total), {}, sort="-id", page=page, now=NOW)["shown"]

    assert shown(1, 1, 1) == "1 job"
    assert shown(3000, 2, 50) == "51 to 100 of 3,000 jobs"
    assert shown(51, 2, 1) == "51 of 51 jobs"
    assert [history_view.pages(total) for total in (0, 1, 50, 51, 3000)] == [1, 1, 1, 2, 60]


@pytest.mark.parametrize("state", list(JobState))
def test_what_is_not_known_is_left_out(state):
    job = replace(PLAIN, state=state, fingerprint=None, finished=NOW)
    for text in (compare_view.provenance(job), history_view.facts(job), compare_view.headline(job)):
        assert "None" not in text
        assert "SHA-256" not in text
        assert "<code></code>" not in text
    known = compare_view.provenance(replace(job, fingerprint="ab", output_sha256="cd", model_checksum="ef" * 32))
    assert known.count("SHA-256") == 2
    assert "weights <code><bdi>efefefefefef</bdi></code>" in known


def test_a_duplicate_links_to_the_original():
    job = replace(PLAIN, state=JobState.DUPLICATE, finished=NOW, duplicate_of=12)
    assert '<a href="/history?job=12" target="_self">job 12</a>' in history_view.facts(job)
    row = history_view.listed(JobPage([job], 1), {}, sort="-id", page=1, now=NOW)["rows"][0]
    assert (row["why"], row["same"]) == ("The same as job 12.", 12)
    assert queue_view._finished(job, NOW)["same"] == 12


def test_files_that_are_gone_are_named():
    done = replace(PLAIN, state=JobState.DONE, finished=NOW, output="/out/x.tiff")
    assert history_view.missing(done, lambda _: True) == []
    assert "/out/x.tiff" in history_view.missing(done, lambda path: path == "/in/a/x.svs")[0]
    assert "/in/a/x.svs" in history_view.missing(done, lambda path: path == "/out/x.tiff")[0]
    assert len(history_view.missing(done, lambda _: False)) == 2
    assert history_view.missing(PLAIN, lambda _: False) == []
