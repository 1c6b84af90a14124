"""How a job ends after each error that there is."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_denoise.daemon.outcome import Decision, Outcome, outcome_of
from wsi_denoise.errors import (
    DiskFull,
    OutputUnwritable,
    PresetNotForSlides,
    SlideChanged,
    SlideError,
    SourceUnavailable,
    UnreadableTile,
    WorkerLost,
    WsiDenoiseError,
    every_error,
)
from wsi_denoise.jobs.values import Attempt

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ERRORS = st.sampled_from(list(every_error()))


def tried(outcome, done=0):
    return Attempt(1, 1, NOW, NOW, outcome, None, None, done, 0)


def ended(error: WsiDenoiseError, *, before=(), number=1, allowed=3, pauses=True) -> Outcome:
    attempts = [*before, tried(None)]
    return outcome_of(
        error, attempts=attempts, number=number, allowed=allowed, retry_seconds=30.0, pauses=pauses, now=NOW
    )


@given(ERRORS, st.integers(1, 50), st.integers(1, 10), st.booleans())
def test_only_errors_of_the_file_quarantine_it(kind, number, allowed, pauses):
    outcome = ended(kind("x"), number=number, allowed=allowed, pauses=pauses)
    assert (outcome.decision is Decision.QUARANTINE) == issubclass(kind, SlideError)


@given(ERRORS, st.integers(1, 50), st.booleans())
def test_what_passes_by_itself_never_fails_a_job(kind, number, pauses):
    failing = [tried("retry_later")] * number
    outcome = ended(kind("x"), before=failing, number=number + 1, allowed=1, pauses=pauses)
    if kind.outlasts:
        assert outcome.decision is Decision.RETRY
        assert not outcome.counts
    if outcome.decision is Decision.FAIL:
        assert not kind.outlasts


@given(ERRORS, st.integers(1, 50), st.booleans())
def test_only_a_retry_has_a_time(kind, number, pauses):
    outcome = ended(kind("x"), number=number, pauses=pauses)
    assert (outcome.at is not None) == (outcome.decision is Decision.RETRY)
    assert outcome.at is None or outcome.at >= NOW


def test_a_file_that_changed_settles_again():
    assert ended(SlideChanged("x")) == Outcome(Decision.SETTLE)


def test_a_full_disk_pauses_the_queue_and_costs_no_attempt():
    assert ended(DiskFull("x")) == Outcome(Decision.RETRY, NOW, counts=False)
    without = ended(DiskFull("x"), pauses=False)
    assert without.decision is Decision.RETRY
    assert without.at == NOW + timedelta(seconds=30)


@pytest.mark.parametrize(("failed", "wait"), [(0, 30), (1, 60)])
def test_waits_double_with_each_failure(failed, wait):
    outcome = ended(WorkerLost("x"), before=[tried("retry_later")] * failed, number=failed + 1)
    assert outcome == Outcome(Decision.RETRY, NOW + timedelta(seconds=wait))


def test_the_last_attempt_fails_the_job():
    assert ended(WorkerLost("x"), before=[tried("retry_later")] * 2, number=3) == Outcome(Decision.FAIL)


def test_attempts_before_a_user_queued_the_job_again_do_not_count():
    outcome = ended(WorkerLost("x"), before=[tried("retry_later")] * 5, number=1)
    assert outcome.decision is Decision.RETRY


def test_a_finished_block_resets_the_count():
    before = [tried("retry_later"), tried("retry_later", done=7)]
    assert ended(WorkerLost("x"), before=before, number=3).decision is Decision.RETRY


@pytest.mark.parametrize(
    ("kind", "decision"),
    [
        (UnreadableTile, Decision.QUARANTINE),
        (PresetNotForSlides, Decision.FAIL),
        (SourceUnavailable, Decision.RETRY),
        (OutputUnwritable, Decision.RETRY),
    ],
)
def test_common_errors(kind, decision):
    assert ended(kind("x")).decision is decision
