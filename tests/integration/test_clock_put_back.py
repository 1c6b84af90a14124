"""The clock was ahead when a machine died, and is right since: nothing waits for the times that it left behind."""

import os
import socket
import time
from datetime import UTC, datetime, timedelta

import pytest

from support.clock import Clock
from support.stores import open_store
from wsi_denoise.daemon import disk_space, pauses, recovery, retention
from wsi_denoise.errors import WorkerLost
from wsi_denoise.jobs.database import upgrades
from wsi_denoise.jobs.record import LEASE
from wsi_denoise.jobs.retry import retry_at
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import JobQuery
from wsi_denoise.settings import load
from wsi_denoise.system.process import identity

LEASE_SECONDS = 60.0
AHEAD = [timedelta(minutes=2), timedelta(hours=3), timedelta(days=4000)]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(database_url, clock):
    with open_store(database_url, clock) as store:
        yield store


def queued(store, name="a.svs"):
    job = store.see(f"/inbox/{name}", name, size_bytes=1, mtime_ns=1, preset="paper", origin="daemon:1")
    given = {"fingerprint": f"content of {name}", "settings": {}, "settings_hash": "s", "preset": "paper"}
    return store.queue(job.id, **given, origin="daemon:1")


@pytest.mark.parametrize("ahead", AHEAD, ids=str)
@pytest.mark.parametrize("registered", ["before the jump", "after it"])
def test_a_lease_from_the_future_has_expired(store, clock, ahead, registered):
    job, before, right = queued(store), store.register_daemon(), clock.now
    clock.now += ahead
    dead = store.register_daemon() if registered == "after it" else before
    assert store.claim(dead, LEASE_SECONDS).id == job.id
    store.heartbeat(dead, job.id, LEASE_SECONDS)
    clock.now = right
    taken = store.claim(store.register_daemon(), LEASE_SECONDS)
    assert taken is not None
    assert (taken.id, taken.attempts) == (job.id, 2)
    assert [attempt.outcome for attempt in store.attempts(job.id)] == ["lease_expired", None]
    assert not store.heartbeat(dead, job.id, LEASE_SECONDS)


def test_one_slide_alone_is_taken_too(store, clock):
    job, dead = queued(store), store.register_daemon()
    clock.now += timedelta(hours=3)
    store.claim(dead, LEASE_SECONDS)
    clock.now -= timedelta(hours=3)
    assert store.claim(store.register_daemon(), LEASE_SECONDS, only=job.id) is not None


def test_a_running_job_with_such_a_lease_is_cancelled_at_once(store, clock):
    job, dead = queued(store), store.register_daemon()
    clock.now += timedelta(hours=3)
    store.claim(dead, LEASE_SECONDS)
    assert store.cancel(job.id, "person:cli").state is JobState.RUNNING  # by that clock, its daemon lives
    clock.now -= timedelta(hours=3)
    assert store.cancel(job.id, "person:cli").state is JobState.CANCELLED


def test_a_job_that_was_to_stop_is_cancelled_by_the_next_daemon(store, clock):
    job, dead = queued(store), store.register_daemon()
    clock.now += timedelta(hours=3)
    store.claim(dead, LEASE_SECONDS)
    store.cancel(job.id, "person:cli")
    clock.now -= timedelta(hours=3)
    assert store.claim(store.register_daemon(), LEASE_SECONDS) is None
    assert store.job(job.id).state is JobState.CANCELLED


def test_a_small_difference_between_machines_takes_no_job_from_a_daemon_that_lives(store, clock):
    job, alive = queued(store), store.register_daemon()
    clock.now += timedelta(seconds=20)
    store.claim(alive, LEASE_SECONDS)
    clock.now -= timedelta(seconds=20)
    assert store.claim(store.register_daemon(), LEASE_SECONDS) is None
    assert store.job(job.id).daemon == alive


def test_a_daemon_with_longer_leases_keeps_its_job(store, clock):
    job, alive = queued(store), store.register_daemon(facts={LEASE: 6000.0})
    store.claim(alive, 6000.0)
    assert store.claim(store.register_daemon(facts={LEASE: 60.0}), 60.0) is None
    assert store.cancel(job.id, "person:cli").state is JobState.RUNNING
    clock.now -= timedelta(hours=1)
    store.claim(store.register_daemon(), 60.0)
    assert store.job(job.id).state is JobState.CANCELLED


@pytest.mark.parametrize("ahead", AHEAD, ids=str)
def test_a_next_try_from_the_future_has_come(store, clock, ahead):
    job, daemon, right = queued(store), store.register_daemon(), clock.now
    clock.now += ahead
    store.claim(daemon, LEASE_SECONDS)
    store.retry_later(job.id, WorkerLost(), retry_at(1, 30, clock.now), f"daemon:{daemon}")
    assert store.claim(daemon, LEASE_SECONDS) is None
    clock.now = right
    assert store.next_queued().id == job.id
    assert store.claim(daemon, LEASE_SECONDS).id == job.id
    # From then on waits are waits, although an earlier attempt ended in the future.
    store.retry_later(job.id, WorkerLost(), retry_at(2, 30, clock.now), f"daemon:{daemon}")
    assert store.claim(daemon, LEASE_SECONDS) is None
    clock.now += timedelta(seconds=60)
    assert store.claim(daemon, LEASE_SECONDS).id == job.id


@pytest.mark.parametrize("ahead", AHEAD, ids=str)
def test_a_daemon_of_an_earlier_boot_is_dead(store, clock, ahead):
    job, right = queued(store), clock.now
    clock.now += ahead
    dead = store.register_daemon(host=socket.gethostname(), pid=os.getpid(), facts={**identity(), "boot": "another"})
    store.claim(dead, LEASE_SECONDS)
    clock.now = right
    assert recovery.recover(store) == [job.id]
    assert store.job(job.id).state is JobState.QUEUED


@pytest.mark.parametrize("ahead", [timedelta(hours=3), timedelta(days=4000)], ids=str)
def test_the_pause_of_a_dead_daemon_is_lifted(store, clock, ahead):
    right = clock.now
    clock.now += ahead
    dead = store.register_daemon()
    store.pause(f"daemon:{dead}", "disk full")
    clock.now = right
    alive = store.register_daemon()
    store.pause(f"daemon:{alive}", "disk full")
    store.pause("person:page", "why")
    assert pauses.lift_stale(store) == [f"daemon:{dead}"]
    assert set(store.pauses()) == {f"daemon:{alive}", "person:page"}


def test_an_upgrade_does_not_wait_for_a_dead_daemon(store, clock, monkeypatch):
    monkeypatch.setattr(upgrades, "HEAD", "9999")
    clock.now += timedelta(hours=3)
    store.register_daemon()
    assert len(upgrades.running(store, clock.now)) == 1
    assert upgrades.running(store, clock.now - timedelta(hours=3)) == []


def test_reserved_space_of_another_machine_is_released(tmp_path):
    file = tmp_path / "elsewhere-1.json"
    file.write_text('{"1": 5}', "ascii")
    promises = disk_space.Promises(tmp_path, 0)
    assert promises._promised() == {1: 5}
    ahead = time.time() + 1000 * 24 * 3600
    os.utime(file, (ahead, ahead))
    assert promises._promised() == {}
    assert not file.exists()


def test_what_another_program_left_goes_after_a_day(tmp_path):
    file = tmp_path / "x.part"
    for hours, kept in ((-30, False), (-1, True), (1, True), (1000, False)):
        file.touch()
        then = time.time() + hours * 3600
        os.utime(file, (then, then))
        assert recovery._is_wanted(file, "0" * 20, _NoJobs(), frozenset()) is kept


class _NoJobs:
    def states_of(self, _slide):
        return set()


def test_finished_blocks_from_the_future_are_kept_for_their_time_from_now_on(tmp_path):
    settings = load(folder=tmp_path, environ={}).settings
    job_store = JobStore(settings.database_url)
    job_store.upgrade()
    spool = settings.jobs.state / "spool" / f"{'a' * 20}-{'b' * 20}"
    spool.mkdir(parents=True)
    now = datetime.now(UTC)
    ahead = (now + timedelta(days=4000)).timestamp()
    os.utime(spool, (ahead, ahead))
    keep = timedelta(days=settings.jobs.keep_spool_days)
    assert not retention.tidy(settings, job_store, now, origin="test", dry=True)
    assert spool.stat().st_mtime == ahead
    assert not retention.tidy(settings, job_store, now, origin="test")
    assert not retention.tidy(settings, job_store, now + keep / 2, origin="test")
    assert retention.tidy(settings, job_store, now + 2 * keep, origin="test").spools == (spool,)
    assert not spool.exists()
    job_store.close()


def test_no_job_of_the_queue_is_lost_by_any_of_this(store, clock):
    jobs = [queued(store, f"{number}.svs").id for number in range(5)]
    daemon = store.register_daemon()
    for ahead in (0, 7200, -7200, 3600, 0):
        clock.now += timedelta(seconds=ahead)
        store.claim(daemon, LEASE_SECONDS)
    assert sorted(job.id for job in store.jobs(JobQuery(limit=None)).jobs) == jobs
