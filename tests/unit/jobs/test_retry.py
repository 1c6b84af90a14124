"""When a job is retried, and how its failures are counted."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_denoise.jobs.retry import DEATHS, RETRY_LONGEST, after_deaths, deaths, failures, retry_at
from wsi_denoise.jobs.values import Attempt

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_waits_double():
    waits = [(retry_at(attempt, 30, NOW) - NOW).total_seconds() for attempt in range(1, 6)]
    assert waits == [30, 60, 120, 240, 480]


@given(st.integers(0, 10**9), st.floats(0.001, 1e6))
def test_waits_never_shrink_and_end(attempt, base):
    this, later = retry_at(attempt, base, NOW), retry_at(attempt + 1, base, NOW)
    assert NOW < this <= later <= NOW + RETRY_LONGEST
    assert later.tzinfo is UTC


def test_a_long_wait_is_an_hour():
    assert retry_at(50, 30, NOW) - NOW == timedelta(hours=1)


def attempt(outcome, done=0, resumed=0):
    return Attempt(
        number=1,
        daemon=1,
        started=NOW,
        ended=NOW,
        outcome=outcome,
        error_code=None,
        error=None,
        blocks_done=done,
        blocks_resumed=resumed,
    )


@pytest.mark.parametrize(
    ("attempts", "count"),
    [
        ([], 0),
        ([attempt("retry_later")] * 3, 3),
        ([attempt("released"), attempt("lease_expired")] * 50, 0),
        ([attempt("retry_later"), attempt("released"), attempt("retry_later"), attempt(None)], 2),
        ([attempt("retry_later")] * 4 + [attempt("retry_later", 7, 3)], 1),
        ([attempt("retry_later")] * 4 + [attempt(None, 7, 3)], 0),
        ([attempt("retry_later", 7, 7)] * 4, 4),
    ],
)
def test_failures_in_a_row_without_getting_on(attempts, count):
    assert failures(attempts) == count


@pytest.mark.parametrize(
    ("attempts", "count"),
    [
        ([], 0),
        ([attempt("daemon_died"), attempt("lease_expired")], 2),
        ([attempt("daemon_died")] * 3 + [attempt(None)], 3),
        ([attempt("daemon_died"), attempt("released"), attempt("daemon_died", 4, 4)], 1),
        ([attempt("daemon_died"), attempt("daemon_died", 5, 4)], 0),
        ([attempt("daemon_died"), attempt("retry_later")], 0),
    ],
)
def test_deaths_in_a_row_without_getting_on(attempts, count):
    assert deaths(attempts) == count


def test_one_that_died_just_now_counts_unless_it_had_got_on():
    before = [attempt("daemon_died")] * 3
    assert deaths([*before, attempt(None)], again=True) == 4
    assert deaths([*before, attempt(None, 2, 1)], again=True) == 0


def test_two_deaths_cost_no_time_and_twenty_half_a_day():
    assert after_deaths(0, NOW) is after_deaths(2, NOW) is None
    assert after_deaths(3, NOW) - NOW == timedelta(seconds=10)
    waits = [after_deaths(count, NOW) - NOW for count in range(3, DEATHS)]
    assert timedelta(hours=9) < sum(waits, timedelta()) < timedelta(hours=15)
