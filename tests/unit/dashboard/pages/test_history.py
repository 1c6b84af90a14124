"""Filters and list of the History page."""

from dataclasses import replace
from datetime import date

from dashboard.pages import history
from support.jobs import NOW, PLAIN
from wsi_denoise import errors
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import JobPage


def test_filters_mean_the_same_as_on_the_command_line():
    words = history.filter_words(
        slide=" a&b ", states=["failed", "done"], verdict="pass", period="7 days", today=date(2026, 3, 8)
    )
    assert words == {"slide": "a&b", "state": ["failed", "done"], "verdict": "pass", "since": "2026-03-01"}
    assert history.address(words) == "?slide=a%26b&state=failed&state=done&verdict=pass&since=2026-03-01"
    query = history.query(words, sort="size", page=3)
    assert (query.limit, query.offset, query.sort) == (50, 100, "size")
    assert query.states == (JobState.FAILED, JobState.DONE)
    between = history.filter_words(period=history.BETWEEN, days=[date(2026, 3, 3), date(2026, 3, 1)], today=NOW.date())
    assert between == {"since": "2026-03-01", "until": "2026-03-03"}
    assert history.address(history.filter_words(period="any time", today=NOW.date())) == ""


def listed(*jobs, total=1, page=1):
    return history.list_values(JobPage(list(jobs), total), {}, sort="-id", page=page, now=NOW)


def test_a_range_of_jobs_is_a_range():
    assert listed(PLAIN)["shown"] == "1 job"
    assert listed(*[PLAIN] * 50, total=3000, page=2)["shown"] == "51 to 100 of 3,000 jobs"
    assert listed(PLAIN, total=51, page=2)["shown"] == "51 of 51 jobs"
    assert [history.pages(total) for total in (0, 1, 50, 51, 3000)] == [1, 1, 1, 2, 60]


def test_a_row_says_why_and_names_no_command():
    error = errors.InternalError("a detail")
    failed = replace(PLAIN, state=JobState.FAILED, finished=NOW, error=str(error), error_code=error.code)
    duplicate = replace(PLAIN, state=JobState.DUPLICATE, finished=NOW, duplicate_of=12)
    first, second = listed(failed, duplicate)["rows"]
    assert "Try again" in first["why"]
    assert "wsi-denoise" not in first["why"]
    assert (second["why"], second["same"]) == ("The same as job 12.", 12)
