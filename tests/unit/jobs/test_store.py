"""The store's promises, on SQLite and, where it is installed, on PostgreSQL."""

import inspect
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.clock import Clock
from support.stores import open_store
from wsi_denoise.errors import (
    DiskFull,
    EmptyFile,
    LeaseLost,
    NoSuchJob,
    SlideChanged,
    TransitionRefused,
    UnreadableTile,
    UsageError,
    WorkerLost,
)
from wsi_denoise.jobs.retry import retry_at
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import JobQuery

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock():
    return Clock(START)


@pytest.fixture
def store(database_url, clock):
    with open_store(database_url, clock) as store:
        yield store


@pytest.fixture
def daemon(store):
    return store.register_daemon(host="lab", pid=1, device="cpu")


def seen(store, name="a.svs", size=10, mtime=1, preset="paper"):
    return store.see(f"/inbox/{name}", name, size_bytes=size, mtime_ns=mtime, preset=preset, origin="daemon:1")


def queued(store, name="a.svs", content=None, *, preset="paper", settings_hash="s1", priority=0, region=None):
    job = seen(store, name, preset=preset)
    job = store.queue(
        job.id,
        fingerprint=content or f"content of {name}",
        settings={"output.quality": 90},
        settings_hash=settings_hash,
        preset=preset,
        origin="daemon:1",
        region=region,
    )
    return store.set_priority(job.id, priority, "person:cli") if priority else job


def finish(store, job, daemon, **changes):
    given = {
        "verdict": "pass",
        "reasons": [],
        "metrics": {},
        "output": f"/denoised/{job.id}.tiff",
        "output_sha256": "0" * 64,
    }
    return store.finish(job.id, daemon, **(given | changes))


def kinds(store, job):
    return [event.kind for event in store.events(job.id)]


# --- intake -----------------------------------------------------------------------------------------------------------


def test_a_file_seen_twice_is_one_settling_job(store):
    first = seen(store, size=10)
    second = seen(store, size=20, mtime=2)
    assert (second.id, second.size_bytes, second.mtime_ns) == (first.id, 20, 2)
    assert kinds(store, first) == ["seen"]


def test_new_content_under_a_known_name_is_another_job(store):
    old = queued(store, content="old")
    new = queued(store, content="new")
    assert old.id != new.id
    assert new.state is JobState.QUEUED
    assert store.job(old.id).fingerprint == "old"
    assert store.known()["/inbox/a.svs"].job_id == new.id


def test_known_gives_the_newest_job_of_the_paths_asked_for(store):
    for name in ("a.svs", "b.svs", "c.svs"):
        seen(store, name, size=7, mtime=2**61)
    found = store.known(["/inbox/a.svs", "/inbox/c.svs", "/inbox/nowhere.svs"])
    assert set(found) == {"/inbox/a.svs", "/inbox/c.svs"}
    assert (found["/inbox/a.svs"].size_bytes, found["/inbox/a.svs"].mtime_ns) == (7, 2**61)
    assert len(store.known()) == 3
    assert store.known([]) == {}


def test_a_growing_file_leaves_no_events(store):
    job = seen(store)
    for size in range(100, 200, 10):
        store.update_seen(job.id, size, size)
    assert store.job(job.id).size_bytes == 190
    assert kinds(store, job) == ["seen"]


def test_a_settled_job_is_not_updated_or_forgotten(store):
    job = queued(store)
    with pytest.raises(TransitionRefused):
        store.update_seen(job.id, 1, 1)
    with pytest.raises(TransitionRefused):
        store.forget(job.id, "gone")


def test_a_file_that_went_away_is_cancelled_with_the_reason(store):
    job = store.forget(seen(store).id, "the file disappeared")
    assert (job.state, job.error_code) == (JobState.CANCELLED, "cancelled")
    assert "disappeared" in job.error
    assert job.finished == START


@pytest.mark.parametrize("state", ["queued", "running", "done"])
def test_the_same_content_and_settings_is_a_duplicate(store, daemon, state):
    first = queued(store, "a.svs", "content")
    if state != "queued":
        claimed = store.claim(daemon, 60)
        if state == "done":
            finish(store, claimed, daemon)
    second = queued(store, "copy of a.svs", "content")
    assert (second.state, second.duplicate_of) == (JobState.DUPLICATE, first.id)
    assert store.events(second.id)[-1].data["duplicate_of"] == first.id
    assert store.claim(daemon, 60) is None or state == "queued"


def test_a_failed_job_has_no_duplicates(store, end_job):
    end_job(store, queued(store, "a.svs", "content").id, WorkerLost())
    assert queued(store, "b.svs", "content").state is JobState.QUEUED


@pytest.mark.parametrize("other", [{"preset": "scanner"}, {"settings_hash": "s2"}, {"region": (0, 0, 96, 96)}])
def test_the_same_content_in_another_way_is_no_duplicate(store, other):
    queued(store, "a.svs", "content")
    job = queued(store, "b.svs", "content", **other)
    assert job.state is JobState.QUEUED
    assert job.region == other.get("region")


def test_two_daemons_may_settle_the_same_file(store):
    job = queued(store, content="content")
    again = {"settings": {}, "settings_hash": "s1", "preset": "paper", "origin": "daemon:2"}
    assert store.queue(job.id, fingerprint="content", **again) == job
    with pytest.raises(TransitionRefused):
        store.queue(job.id, fingerprint="other content", **again)


def test_quarantine_keeps_code_and_true_reason(store):
    job = store.quarantine(seen(store).id, UnreadableTile("level 0, x 512, y 1024"), "daemon:1")
    assert (job.state, job.error_code) == (JobState.QUARANTINED, "unreadable_tile")
    assert job.error == str(UnreadableTile("level 0, x 512, y 1024"))
    event = store.events(job.id)[-1]
    assert event.data == {"from": "settling", "to": "quarantined", "error_code": "unreadable_tile"}


# --- work -------------------------------------------------------------------------------------------------------------


def test_claims_by_priority_then_age(store, daemon, clock):
    for name, priority in [("old", 0), ("low", -5), ("urgent", 9), ("new", 0)]:
        queued(store, name, priority=priority)
        clock.advance(1)
    assert [store.claim(daemon, 60).relative for _ in range(4)] == ["urgent", "old", "new", "low"]
    assert store.claim(daemon, 60) is None


def test_the_next_one_is_told_and_not_taken(store, daemon, clock):
    assert store.next_queued() is None
    for name, priority in [("old", 0), ("urgent", 9), ("cancelled", 10)]:
        job = queued(store, name, priority=priority)
        clock.advance(1)
    store.cancel(job.id, "person:cli")
    for name in ("urgent", "old"):
        assert (store.next_queued().relative, store.next_queued().state) == (name, JobState.QUEUED)
        assert store.claim(daemon, 60).relative == name
    assert store.next_queued() is None
    store.retry_later(job.id - 1, WorkerLost(), clock() + timedelta(seconds=9), "test")
    assert store.next_queued() is None
    clock.advance(9)
    assert store.next_queued().relative == "urgent"
    store.pause("person:cli", "because")
    assert store.next_queued() is None


def test_a_claim_makes_an_attempt(store, daemon):
    job = queued(store)
    claimed = store.claim(daemon, 60)
    assert (claimed.id, claimed.state, claimed.daemon) == (job.id, JobState.RUNNING, daemon)
    assert (claimed.attempts, claimed.started) == (1, START)
    (attempt,) = store.attempts(job.id)
    assert (attempt.number, attempt.daemon, attempt.ended, attempt.outcome) == (1, daemon, None, None)
    assert store.daemons()[0].jobs == [job.id]


def test_a_retry_waits_for_its_time(store, daemon, clock):
    queued(store)
    job = store.claim(daemon, 60)
    at = retry_at(job.attempts, 30, clock())
    waiting = store.retry_later(job.id, DiskFull("12 GB needed"), at, f"daemon:{daemon}")
    assert (waiting.state, waiting.next_try, waiting.error_code) == (JobState.QUEUED, at, "disk_full")
    clock.advance(29)
    assert store.claim(daemon, 60) is None
    clock.advance(1)
    again = store.claim(daemon, 60)
    assert (again.attempts, again.next_try, again.error) == (2, None, None)
    assert [attempt.outcome for attempt in store.attempts(job.id)] == ["retry_later", None]
    assert store.attempts(job.id)[0].error_code == "disk_full"


def test_a_clock_that_is_put_back_does_not_make_a_retry_wait_for_ever(store, daemon, clock):
    queued(store)
    job = store.claim(daemon, 60)
    store.retry_later(job.id, DiskFull(), retry_at(99, 30, clock()), f"daemon:{daemon}")
    assert store.claim(daemon, 60) is None
    clock.advance(-7 * 24 * 3600)
    assert store.claim(daemon, 60).id == job.id


def test_only_a_running_job_is_tried_later(store, clock, end_job):
    jobs = [seen(store, "a"), queued(store, "b"), end_job(store, queued(store, "c").id, WorkerLost())]
    for job in jobs:
        with pytest.raises(TransitionRefused):
            store.retry_later(job.id, WorkerLost(), clock(), "daemon:1")
        assert store.job(job.id).state is job.state


def test_nothing_is_claimed_while_paused(store, daemon):
    queued(store)
    assert store.paused() is None
    assert store.pause("person:cli")
    assert store.paused() == "paused by person:cli"
    assert store.claim(daemon, 60) is None
    assert store.resume("person:cli")
    assert store.claim(daemon, 60) is not None


def test_an_expired_lease_is_not_taken_over_while_paused(store, daemon, clock):
    queued(store)
    job = store.claim(daemon, 60)
    store.pause("person:cli")
    clock.advance(61)
    assert store.claim(daemon, 60) is None
    assert store.job(job.id).state is JobState.RUNNING


def test_a_daemon_lifts_only_pauses_of_daemons(store):
    store.pause("daemon:1", "disk full")
    store.pause("person:cli", "maintenance")
    assert store.resume("daemon:2")
    assert store.paused() == "maintenance"
    assert not store.resume("daemon:2")
    store.pause("daemon:1", "disk full")
    assert not store.pause("daemon:1", "disk full")
    assert store.resume("person:dashboard")
    assert store.paused() is None
    assert [event.kind for event in store.events()] == ["paused", "paused", "resumed", "paused", "resumed"]


def test_an_expired_lease_is_taken_over_and_the_old_daemon_told(store, daemon, clock):
    queued(store)
    job = store.claim(daemon, 60)
    other = store.register_daemon(host="lab", pid=2)
    clock.advance(59)
    assert store.claim(other, 60) is None
    assert store.heartbeat(daemon, job.id, 60, device="cuda")
    clock.advance(59)
    assert store.claim(other, 60) is None
    clock.advance(2)
    taken = store.claim(other, 60)
    assert (taken.id, taken.daemon, taken.attempts) == (job.id, other, 2)
    assert kinds(store, job)[-3:] == ["running", "lease_expired", "running"]
    assert [attempt.outcome for attempt in store.attempts(job.id)] == ["lease_expired", None]

    assert not store.heartbeat(daemon, job.id, 60)
    with pytest.raises(LeaseLost):
        store.progress(job.id, daemon, 1, 2)
    with pytest.raises(LeaseLost):
        store.set_slide_facts(job.id, 1, 1, None, holder=daemon)
    with pytest.raises(LeaseLost):
        finish(store, job, daemon)
    with pytest.raises(LeaseLost):
        store.fail(job.id, WorkerLost(), f"daemon:{daemon}")
    with pytest.raises(LeaseLost):
        store.retry_later(job.id, WorkerLost(), clock(), f"daemon:{daemon}")
    assert finish(store, job, other).state is JobState.DONE
    assert store.daemons()[1].device == "cuda"


@pytest.mark.parametrize("end", ["fail", "quarantine", "settle_again"])
@pytest.mark.parametrize("settles", [False, True])
def test_a_daemon_that_wakes_late_does_not_end_what_was_given_back(store, daemon, clock, end, settles):
    queued(store)
    job = store.claim(daemon, 60)
    other = store.register_daemon(host="lab", pid=2)
    clock.advance(61)
    store.release(store.claim(other, 60).id, other, "stopping")
    if settles:
        store.settle_again(job.id, SlideChanged("a.svs"), f"daemon:{other}")
    before = store.job(job.id)
    with pytest.raises(LeaseLost):
        getattr(store, end)(job.id, WorkerLost(), f"daemon:{daemon}", holder=daemon)
    assert store.job(job.id) == before
    assert before.state is (JobState.SETTLING if settles else JobState.QUEUED)


@pytest.mark.parametrize("end", ["fail", "quarantine"])
@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("who", ["daemon:1", "person:cli"])
def test_who_looked_at_a_settling_file_does_not_end_a_job_that_is_queued_meanwhile(store, daemon, end, running, who):
    """Its probe failed, late, and that of another daemon did not; it may run by now, even here."""
    job = queued(store)
    if running:
        assert store.claim(daemon, 60).daemon == 1
    before = store.job(job.id)
    with pytest.raises(TransitionRefused):
        getattr(store, end)(job.id, UnreadableTile(), who)
    assert store.job(job.id) == before
    if running:
        assert finish(store, job, daemon).state is JobState.DONE


def test_a_late_heartbeat_renews_a_lease_that_nobody_took(store, daemon, clock):
    queued(store)
    job = store.claim(daemon, 60)
    clock.advance(600)
    assert store.heartbeat(daemon, job.id, 60)
    assert store.claim(store.register_daemon(), 60) is None


def test_progress_is_measured_without_events(store, daemon):
    job = queued(store)
    store.claim(daemon, 60)
    store.progress(job.id, daemon, 3, 12, 1, float("nan"), 7.5)
    found = store.job(job.id)
    assert found.progress == 0.25
    assert (found.blocks_done, found.blocks_total, found.blocks_resumed) == (3, 12, 1)
    assert (found.rate, found.seconds_left) == (None, 7.5)
    assert kinds(store, job) == ["seen", "queued", "running"]
    assert (store.attempts(job.id)[0].blocks_done, store.attempts(job.id)[0].blocks_resumed) == (3, 1)


def test_facts_of_the_slide(store, daemon):
    job = queued(store)
    store.set_slide_facts(job.id, 2220, 2967, (0.499, 0.499), {"vendor": "aperio", "ratio": float("inf")})
    found = store.job(job.id)
    assert (found.width, found.height, found.mpp) == (2220, 2967, (0.499, 0.499))
    assert found.facts == {"vendor": "aperio", "ratio": None}
    store.set_slide_facts(job.id, 2220, 2967, None)
    assert store.job(job.id).mpp is None
    assert store.events(job.id)[-1].message == "2220 x 2967 px, resolution unknown"


def test_finish_keeps_everything(store, daemon, clock):
    queued(store)
    job = store.claim(daemon, 60)
    store.progress(job.id, daemon, 5, 6, 0, 2.0, 1.0)
    clock.advance(90)
    done = finish(
        store,
        job,
        daemon,
        verdict="review",
        reasons=["structure in the residual"],
        metrics={"psnr": float("inf"), "sigma_before": 12.5, "ssim": None},
        maps="/state/maps/1.npz",
        provenance={"model": {"preset": "paper"}, "versions": ["a", "b"]},
        model_checksum="abc",
    )
    assert done == store.job(job.id)
    assert (done.state, done.verdict, done.reasons) == (JobState.DONE, "review", ["structure in the residual"])
    assert done.metrics == {"psnr": None, "sigma_before": 12.5, "ssim": None}
    assert done.provenance == {"model": {"preset": "paper"}, "versions": ["a", "b"]}
    assert (done.maps, done.model_checksum) == ("/state/maps/1.npz", "abc")
    assert (done.progress, done.seconds_left, done.daemon) == (1.0, None, None)
    assert (done.started, done.finished) == (START, START + timedelta(seconds=90))
    assert store.attempts(job.id)[0].outcome == "done"


def test_release_does_not_count_as_an_attempt(store, daemon):
    job = queued(store)
    store.claim(daemon, 60)
    released = store.release(job.id, daemon, "shutdown")
    assert (released.state, released.attempts, released.next_try) == (JobState.QUEUED, 0, None)
    assert store.claim(daemon, 60).attempts == 1
    assert [attempt.number for attempt in store.attempts(job.id)] == [1, 2]


def test_what_a_dead_daemon_held_is_given_back_at_once(store, daemon):
    jobs = [queued(store, name) for name in ("a", "b", "c")]
    for _ in range(2):
        store.claim(daemon, 60)
    store.cancel(jobs[1].id, "person:cli")
    successor = store.register_daemon(host="lab", pid=2)
    given = store.stop_daemon(daemon, origin=f"daemon:{successor}", reason="its process is gone")
    assert given == [jobs[0].id, jobs[1].id]
    assert [store.job(job.id).state for job in jobs] == ["queued", "cancelled", "queued"]
    assert [known.id for known in store.daemons()] == [successor]
    assert len(store.daemons(stopped=True)) == 2
    assert store.stop_daemon(daemon) == []


def test_a_changed_file_settles_again(store, daemon):
    queued(store)
    job = store.claim(daemon, 60)
    settling = store.settle_again(job.id, SlideChanged(), f"daemon:{daemon}")
    assert (settling.state, settling.fingerprint, settling.error_code) == (JobState.SETTLING, None, "slide_changed")
    assert store.known()["/inbox/a.svs"].state is JobState.SETTLING
    assert seen(store).id == job.id


def test_a_changed_file_leaves_the_other_jobs_of_its_slide_as_they_were(store, daemon):
    queued(store)
    done = finish(store, store.claim(daemon, 60), daemon)
    again = store.rerun(done.id, preset="photo", settings={}, settings_hash="s1", origin="person:page")
    store.settle_again(again.id, SlideChanged(), f"daemon:{daemon}")
    store.update_seen(again.id, 99, 9)
    settled = {"settings": {}, "settings_hash": "s1", "preset": "paper", "origin": f"daemon:{daemon}"}
    assert store.queue(again.id, fingerprint="new", **settled).state is JobState.QUEUED
    assert store.job(done.id) == done


def test_a_changed_file_with_a_newer_job_is_not_settled_twice(store, daemon):
    queued(store)
    job = store.claim(daemon, 60)
    newer = seen(store, size=99)
    assert newer.id != job.id
    ended = store.settle_again(job.id, SlideChanged(), f"daemon:{daemon}")
    assert (ended.state, ended.error_code) == (JobState.CANCELLED, "slide_changed")
    assert f"job {newer.id}" in store.events(job.id)[-1].message


def test_one_job_can_be_claimed_by_number(store, daemon, clock):
    first, second = queued(store, "a"), queued(store, "b")
    store.pause("person:cli")
    assert store.claim(daemon, 60, only=second.id).id == second.id, "the user's request ignores the pause"
    assert store.claim(daemon, 60, only=second.id) is None, "it runs already"
    clock.advance(61)
    assert store.claim(daemon, 60, only=second.id).attempts == 2
    finish(store, second, daemon)
    assert store.claim(daemon, 60, only=second.id) is None
    assert store.claim(daemon, 60, only=77) is None
    assert store.job(first.id).state is JobState.QUEUED


@pytest.mark.parametrize("call", ["fail", "quarantine", "settle_again", "cancel", "retry"])
def test_a_done_job_stays_done(store, daemon, call):
    queued(store)
    done = finish(store, store.claim(daemon, 60), daemon)
    before = store.events()
    arguments = ["person:cli"] if call in {"cancel", "retry"} else [WorkerLost(), "person:cli"]
    with pytest.raises(TransitionRefused):
        getattr(store, call)(done.id, *arguments)
    assert (store.job(done.id), store.events()) == (done, before)


# --- people -----------------------------------------------------------------------------------------------------------


def test_cancel_before_it_runs(store):
    for job in (seen(store, "a"), queued(store, "b")):
        assert store.cancel(job.id, "person:cli").state is JobState.CANCELLED
        with pytest.raises(TransitionRefused):
            store.cancel(job.id, "person:cli")
    assert store.events(job.id)[-1].origin == "person:cli"


def test_a_running_job_is_asked_to_stop(store, daemon):
    job = queued(store)
    store.claim(daemon, 60)
    assert not store.cancel_requested(job.id)
    for _ in range(2):
        assert store.cancel(job.id, "person:cli").state is JobState.RUNNING
    assert store.cancel_requested(job.id)
    ended = store.cancelled(job.id, daemon)
    assert (ended.state, ended.error_code, ended.cancel_requested) == (JobState.CANCELLED, "cancelled", False)
    assert kinds(store, job)[-2:] == ["cancel_requested", "cancelled"]


def test_a_job_that_should_stop_does_not_run_again(store, daemon, clock):
    for name in ("retried", "released", "abandoned", "dead"):
        queued(store, name)
        job = store.claim(daemon, 60)
        if name == "dead":
            clock.advance(61)
            store.cancel(job.id, "person:cli")
        else:
            store.cancel(job.id, "person:cli")
        if name == "retried":
            store.retry_later(job.id, WorkerLost(), clock(), f"daemon:{daemon}")
        elif name == "released":
            store.release(job.id, daemon, "shutdown")
        elif name == "abandoned":
            clock.advance(61)
            assert store.claim(daemon, 60) is None
        assert store.job(job.id).state is JobState.CANCELLED, name
    assert store.claim(daemon, 60) is None


def test_retry_starts_over(store, daemon):
    queued(store)
    job = store.claim(daemon, 60)
    store.progress(job.id, daemon, 3, 6)
    store.fail(job.id, WorkerLost(), f"daemon:{daemon}", holder=daemon)
    again = store.retry(job.id, "person:cli")
    assert (again.state, again.attempts, again.error, again.progress) == (JobState.QUEUED, 0, None, 0.0)
    assert (again.started, again.finished) == (None, None)
    store.claim(daemon, 60)
    assert [attempt.number for attempt in store.attempts(job.id)] == [1, 2]


def test_retry_without_a_fingerprint_settles_first(store):
    job = store.quarantine(seen(store).id, EmptyFile(), "daemon:1")
    assert store.retry(job.id, "person:cli").state is JobState.SETTLING


def test_retry_without_a_fingerprint_is_refused_where_no_daemon_looks(store):
    file = {"size_bytes": 1, "mtime_ns": 1, "preset": "paper"}
    brought = store.see("/x/b.svs", "b.svs", **file, origin="person:cli")
    found = store.see("/x/f.svs", "f.svs", **file, origin="daemon:1")  # of a daemon that was started with /x
    for job in (brought, found):
        store.quarantine(job.id, EmptyFile(), "daemon:1")
    with pytest.raises(TransitionRefused, match="wsi-denoise run does"):
        store.retry(brought.id, "person:cli", inboxes=[Path("/other"), Path("/inbox")])
    for job in (brought, found):
        assert store.retry(job.id, "person:cli", inboxes=[Path("/x")]).state is JobState.SETTLING
    store.forget(found.id, "gone")
    assert store.retry(found.id, "person:cli", inboxes=[Path("/inbox")]).state is JobState.SETTLING
    store.forget(brought.id, "gone")
    assert store.retry(brought.id, "person:cli").state is JobState.SETTLING


def test_retry_of_an_older_job_of_an_unsettled_file_is_refused(store):
    old = store.quarantine(seen(store).id, EmptyFile(), "daemon:1")
    new = seen(store)
    with pytest.raises(TransitionRefused, match=f"job {new.id} is a newer one"):
        store.retry(old.id, "person:cli")


TRIAL = (0, 0, 64, 64)


def trial(store, name="a.svs"):
    return store.see(
        f"/inbox/{name}", name, size_bytes=10, mtime_ns=1, preset="paper", origin="person:cli", region=TRIAL
    )


def test_a_trial_does_not_stand_for_the_slide(store):
    first = trial(store)
    assert first.region == TRIAL
    assert store.known() == {}
    whole = seen(store)
    assert whole.id != first.id
    assert (seen(store).id, trial(store).id) == (whole.id, first.id)
    assert store.known()["/inbox/a.svs"].job_id == whole.id


def test_a_trial_is_no_newer_job_of_its_file(store):
    old = store.quarantine(seen(store).id, EmptyFile(), "daemon:1")
    whole = queued(store)
    trial(store)
    assert store.settle_again(whole.id, SlideChanged(), "daemon:1").state is JobState.SETTLING
    with pytest.raises(TransitionRefused, match=f"job {whole.id} is a newer one"):
        store.retry(old.id, "person:cli")


def test_a_trial_of_a_file_that_changed_fails_and_one_of_a_file_never_read_is_not_retried(store):
    job = store.queue(
        trial(store).id, fingerprint="x", settings={}, settings_hash="s", preset="paper", origin="t", region=TRIAL
    )
    ended = store.settle_again(job.id, SlideChanged(), "daemon:1")
    assert (ended.state, ended.error_code, ended.fingerprint) == (JobState.FAILED, "slide_changed", "x")
    never = store.forget(trial(store).id, "gone")
    with pytest.raises(TransitionRefused, match="wsi-denoise run does"):
        store.retry(never.id, "person:cli")


def test_retry_tries_a_waiting_job_now(store, daemon, clock):
    queued(store)
    job = store.claim(daemon, 60)
    store.retry_later(job.id, DiskFull(), clock() + timedelta(hours=1), f"daemon:{daemon}")
    assert store.retry(job.id, "person:cli").next_try is None
    assert store.claim(daemon, 60).id == job.id


def test_retry_is_refused_where_it_would_do_the_work_twice(store, daemon):
    first = queued(store, "a", "content")
    second = queued(store, "b", "content")
    with pytest.raises(TransitionRefused, match=f"job {first.id} is queued"):
        store.retry(second.id, "person:cli")
    for state in ("queued", "running", "done"):
        with pytest.raises(TransitionRefused):
            store.retry(first.id, "person:cli")
        if state == "queued":
            store.claim(daemon, 60)
        elif state == "running":
            finish(store, first, daemon)
    assert store.retry(second.id, "person:cli").duplicate_of is None


def test_priority_is_recorded_and_only_for_what_is_still_to_come(store):
    job = queued(store)
    store.set_priority(job.id, 5, "person:cli")
    store.set_priority(job.id, 5, "person:cli")
    assert [event.data for event in store.events(job.id) if event.kind == "priority"] == [{"old": 0, "new": 5}]
    store.cancel(job.id, "person:cli")
    with pytest.raises(TransitionRefused):
        store.set_priority(job.id, 6, "person:cli")


def test_a_job_that_is_not_there(store, daemon):
    error = WorkerLost()
    calls = {
        "job": (),
        "events": (),
        "attempts": (),
        "details": (),
        "update_seen": (1, 1),
        "forget": ("gone",),
        "quarantine": (error, "daemon:1"),
        "fail": (error, "daemon:1"),
        "settle_again": (error, "daemon:1"),
        "progress": (daemon, 1, 2),
        "set_slide_facts": (1, 1, None),
        "retry_later": (error, START, "daemon:1"),
        "remark": (daemon, "no worker"),
        "release": (daemon, "shutdown"),
        "cancelled": (daemon,),
        "cancel": ("person:cli",),
        "retry": ("person:cli",),
        "set_priority": (1, "person:cli"),
    }
    for name, arguments in calls.items():
        with pytest.raises(NoSuchJob, match="77"):
            getattr(store, name)(77, *arguments)
    with pytest.raises(NoSuchJob, match="77"):
        store.rerun(77, preset="paper", settings={}, settings_hash="", origin="person:cli")
    assert not store.cancel_requested(77)
    assert not store.heartbeat(daemon, 77, 60)
    takes_a_job = {
        name
        for name, method in inspect.getmembers(JobStore, inspect.isfunction)
        if not name.startswith("_") and "job_id" in inspect.signature(method).parameters
    }
    assert takes_a_job - set(calls) == {"queue", "finish", "cancel_requested", "heartbeat", "rerun"}


def test_new_weights_of_a_preset_are_other_work(store, daemon):
    def again(name, weights):
        return store.queue(
            seen(store, name).id, fingerprint="content", settings={}, settings_hash="s1", preset="paper",
            origin="daemon:1", model_checksum=weights,
        )  # fmt: skip

    assert again("a", "one").state is JobState.QUEUED
    finish(store, store.claim(daemon, 60), daemon, model_checksum="one")
    assert again("b", "one").state is JobState.DUPLICATE
    assert again("c", None).state is JobState.DUPLICATE  # without a digest
    assert again("d", "two").state is JobState.QUEUED
    assert again("e", "two").state is JobState.DUPLICATE


def test_why_a_running_job_waits(store, daemon):
    job = queued(store)
    with pytest.raises(LeaseLost):
        store.remark(job.id, daemon, "the cluster has no worker")
    store.claim(daemon, 60)
    before = store.job(job.id)
    store.remark(job.id, daemon, "the cluster has no worker")
    event = store.events(job.id)[-1]
    assert (event.kind, event.message, event.origin) == ("waiting", "the cluster has no worker", f"daemon:{daemon}")
    assert store.job(job.id) == before


def test_the_states_of_what_a_fingerprint_begins(store, daemon):
    queued(store, "a", "abc1")
    assert finish(store, store.claim(daemon, 60), daemon).state is JobState.DONE
    queued(store, "b", "abc2")
    queued(store, "c", "a_c3")
    assert store.states_of("abc") == {JobState.DONE, JobState.QUEUED}
    assert store.states_of("a_c") == {JobState.QUEUED}
    assert store.states_of("x") == set()


# --- values -----------------------------------------------------------------------------------------------------------


def test_hostile_names_come_back_as_they_were(store, tmp_path):
    names = ["line\nbreak.svs", "q'u\"ote%_.svs", "undecodable \udcff\udc80.svs", "ü" * 100 + ".svs", "\U0001f52c.svs"]
    jobs = {name: seen(store, name) for name in names}
    for name, job in jobs.items():
        assert (store.job(job.id).relative, store.job(job.id).slide) == (name, f"/inbox/{name}")
        assert seen(store, name).id == job.id
        json.dumps(job.to_json())
    assert set(store.known([f"/inbox/{name}" for name in names])) == {f"/inbox/{name}" for name in names}


def test_hostile_text_is_kept_readable(store):
    job = store.quarantine(seen(store).id, UnreadableTile("tag \x00 \udcff \ud800 ü"), "daemon:1")
    assert r"tag \x00 \udcff \ud800 ü" in store.job(job.id).error


def test_times_are_aware_and_in_utc(store, daemon, clock):
    clock.now = datetime(2026, 3, 1, 13, tzinfo=UTC).astimezone()
    job = seen(store)
    assert job.created == clock.now
    assert job.created.utcoffset() == timedelta(0)
    assert job.to_json()["created"] == "2026-03-01T13:00:00.000Z"
    clock.now = datetime(2026, 3, 1, 13)  # noqa: DTZ001
    with pytest.raises(Exception, match="no time zone"):
        seen(store, "b")


def test_a_sort_that_does_not_exist(store):
    with pytest.raises(UsageError, match="cannot be sorted by colour"):
        store.jobs(JobQuery(sort="-colour"))
