"""When a file counts as complete. No file, no clock: snapshots and seconds only."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_denoise.errors import (
    EmptyFile,
    InternalError,
    NotASlide,
    NoWorkers,
    SchedulerUnreachable,
    SourceUnavailable,
    TooLarge,
    TruncatedSlide,
    UnsupportedSlide,
    WeightsDamaged,
    WorkerLost,
    WsiDenoiseError,
)
from wsi_denoise.intake.settling import LONGEST_PAUSE, Rules, Settling, Step
from wsi_denoise.intake.slide_files import Snapshot

RULES = Rules(settle_seconds=10, grace_seconds=100)
STILL = Snapshot(size_bytes=1000, mtime_ns=5)


def watched(*looks: tuple[float, Snapshot], rules: Rules = RULES) -> Settling:
    (now, snapshot), *others = looks
    state = Settling.first(rules, snapshot, now)
    for now, snapshot in others:
        state = state.look(snapshot, now)
    return state


def test_one_look_is_never_enough_even_without_waiting_time() -> None:
    state = watched((0, STILL), rules=Rules(0, 0))
    assert state.decide().step is Step.WAIT
    assert state.look(STILL, 0.001).decide().step is Step.PROBE


def test_two_looks_too_close_together_wait() -> None:
    decision = watched((0, STILL), (9.9, STILL)).decide()
    assert (decision.step, decision.until) == (Step.WAIT, 10)


def test_standing_still_is_probed_and_only_then_ready() -> None:
    state = watched((0, STILL), (10, STILL))
    assert state.decide().step is Step.PROBE
    assert state.probe(None, 11).decide().step is Step.READY


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(Snapshot(1001, 5), id="slow write: it grew"),
        pytest.param(Snapshot(1000, 6), id="preallocated: same size, content still arrives"),
        pytest.param(Snapshot(1000, 1), id="cp -p: time of change set to the past at the end"),
        pytest.param(Snapshot(1000, 2**62), id="time of change in the far future"),
        pytest.param(Snapshot(10, 5), id="it shrank"),
    ],
)
def test_any_change_starts_again(changed: Snapshot) -> None:
    state = watched((0, STILL), (10, STILL)).probe(None, 10).look(changed, 20)
    assert state.decide().step is Step.WAIT
    assert state.look(changed, 29.9).decide().step is Step.WAIT
    # What was found out about the old content says nothing about the new.
    assert state.look(changed, 30).decide().step is Step.PROBE


def test_a_time_of_change_in_the_future_does_not_keep_a_file_waiting() -> None:
    future = Snapshot(1000, 2**62)
    assert watched((0, future), (10, future)).decide().step is Step.PROBE


def test_a_file_that_does_not_open_yet_gets_grace_and_is_probed_again() -> None:
    state = watched((0, STILL), (10, STILL)).probe(TruncatedSlide(), 10)
    decision = state.decide()
    assert (decision.step, decision.until) == (Step.GRACE, 20)
    assert isinstance(decision.error, TruncatedSlide)
    assert state.look(STILL, 19).decide().step is Step.GRACE
    assert state.look(STILL, 20).decide().step is Step.PROBE
    assert state.look(STILL, 20).probe(None, 20).decide().step is Step.READY


def test_it_is_damaged_only_by_a_probe_made_after_the_grace() -> None:
    state = watched((0, STILL), (10, STILL)).probe(TruncatedSlide(), 10)
    state = state.look(STILL, 5000)
    assert state.decide().step is Step.PROBE, "the daemon slept; the file may be whole by now"
    assert state.probe(None, 5000).decide().step is Step.READY
    assert state.probe(TruncatedSlide(), 5000).decide().step is Step.DAMAGED


def test_a_change_during_grace_starts_the_grace_again() -> None:
    state = watched((0, STILL), (10, STILL)).probe(NotASlide(), 10)
    grown = Snapshot(2000, 9)
    state = state.look(grown, 99).look(grown, 110).probe(NotASlide(), 110)
    assert state.decide().step is Step.GRACE
    assert state.look(grown, 199).probe(NotASlide(), 199).decide().step is Step.DAMAGED


def test_without_grace_the_first_failure_is_the_last() -> None:
    rules = Rules(0, 0)
    state = watched((0, STILL), (1, STILL), rules=rules).probe(EmptyFile(), 1)
    assert state.decide().step is Step.DAMAGED


@pytest.mark.parametrize("error", [UnsupportedSlide(), TooLarge()])
def test_what_waiting_cannot_cure_is_said_at_once(error: UnsupportedSlide) -> None:
    assert watched((0, STILL), (10, STILL)).probe(error, 10).decide().step is Step.DAMAGED


@pytest.mark.parametrize("error", [InternalError(), WeightsDamaged()])
def test_a_file_whose_probe_goes_wrong_is_given_up_after_the_grace(error: WsiDenoiseError) -> None:
    state = watched((0, STILL), (10, STILL)).probe(error, 10)
    assert state.decide().step is Step.GRACE
    assert state.look(STILL, 101).probe(error, 101).decide().step is Step.DAMAGED


@pytest.mark.parametrize("error", [SourceUnavailable(), SchedulerUnreachable(), NoWorkers(), WorkerLost()])
def test_a_share_or_a_cluster_that_is_away_damages_nothing_however_long_it_takes(error: WsiDenoiseError) -> None:
    state = watched((0, STILL), (10, STILL))
    for now in range(10, 100_000, 500):
        state = state.look(STILL, now).probe(error, now)
        assert state.decide().step is Step.GRACE
    decision = state.decide()
    assert decision.until - state.seen == LONGEST_PAUSE
    state = state.look(STILL, decision.until)
    assert state.decide().step is Step.PROBE
    assert state.probe(None, state.seen).decide().step is Step.READY


def test_probes_become_rarer_but_never_stop() -> None:
    rules = Rules(settle_seconds=10, grace_seconds=3600)
    state, probes = watched((0, STILL), rules=rules), []
    for now in range(5, 4000, 5):
        state = state.look(STILL, now)
        if state.decide().step is Step.PROBE:
            probes.append(now)
            state = state.probe(TruncatedSlide(), now)
    assert probes[:4] == [10, 20, 40, 80]
    assert max(later - sooner for sooner, later in pairwise(probes)) <= LONGEST_PAUSE + 5
    assert probes[-1] == 3600
    assert state.decide().step is Step.DAMAGED


def test_a_clock_that_goes_backwards_loses_no_time_and_invents_none() -> None:
    state = watched((1000, STILL), (1006, STILL), (3, STILL))
    assert state.decide().step is Step.WAIT
    assert state.look(STILL, 6.9).decide().step is Step.WAIT
    assert state.look(STILL, 7).decide().step is Step.PROBE


def test_a_clock_that_goes_backwards_does_not_delay_the_next_probe_for_ever() -> None:
    state = watched((1000, STILL), (1010, STILL)).probe(TruncatedSlide(), 1010).look(STILL, 0)
    assert state.decide().step is Step.GRACE
    assert state.look(STILL, 10).decide().step is Step.PROBE


looks = st.lists(
    st.tuples(
        st.floats(0, 400),
        st.sampled_from([Snapshot(1, 1), Snapshot(1, 2), Snapshot(2, 1)]),
        st.sampled_from([None, TruncatedSlide(), SourceUnavailable(), NoWorkers()]),
    ),
    max_size=30,
)


@given(looks)
def test_whatever_is_seen_ready_and_damaged_rest_on_a_still_file_and_a_probe(story: list) -> None:
    state, still_since, previous = None, 0.0, None
    now = 0.0
    for pause, snapshot, outcome in story:
        now += pause
        if snapshot != previous:
            still_since, previous = now, snapshot
        state = Settling.first(RULES, snapshot, now) if state is None else state.look(snapshot, now)
        if state.decide().step is Step.PROBE:
            assert now - still_since >= RULES.settle_seconds
            state = state.probe(outcome, now)
            step = state.decide().step
            assert (step is Step.READY) == (outcome is None)
            if step is Step.DAMAGED:
                assert now - still_since >= RULES.grace_seconds
                assert isinstance(outcome, TruncatedSlide)
