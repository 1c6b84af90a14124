"""States and transitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_denoise.errors import TransitionRefused
from wsi_denoise.jobs.states import ALLOWED, OVER, JobState, check


def test_every_state_says_what_may_follow():
    assert set(ALLOWED) == set(JobState)
    with pytest.raises(TypeError):
        ALLOWED[JobState.DONE] = frozenset({JobState.QUEUED})


def test_states_are_the_words_of_the_design():
    words = "settling queued running done failed quarantined cancelled duplicate"
    assert [state.value for state in JobState] == words.split()


@given(st.sampled_from(JobState), st.sampled_from(JobState))
def test_check_agrees_with_the_table(old, new):
    if new in ALLOWED[old]:
        check(old, new)
    else:
        with pytest.raises(TransitionRefused, match=f"{old} cannot become {new}"):
            check(old, new)


def test_nothing_follows_itself():
    assert all(state not in following for state, following in ALLOWED.items())


def test_what_is_done_is_only_done_again():
    assert ALLOWED[JobState.DONE] == {JobState.QUEUED}


def test_every_state_can_be_reached_and_every_job_can_end():
    reached, todo = set(), [JobState.SETTLING]
    while todo:
        state = todo.pop()
        if state not in reached:
            reached.add(state)
            todo += ALLOWED[state]
    assert reached == set(JobState)
    assert all(following & OVER for state, following in ALLOWED.items() if state not in OVER)


def test_work_starts_from_the_queue_only():
    assert [state for state in JobState if JobState.RUNNING in ALLOWED[state]] == [JobState.QUEUED]
    assert [state for state in JobState if JobState.DONE in ALLOWED[state]] == [JobState.RUNNING]
