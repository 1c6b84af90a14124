"""End of a job in the database: the retries, their delays, and faults of the database."""

import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.clock import Clock
from support.listener import listen
from support.stores import open_store
from wsi_denoise.daemon.heartbeat import Heartbeat
from wsi_denoise.daemon.pauses import Pauses
from wsi_denoise.daemon.runner import Runner
from wsi_denoise.daemon.service import Daemon
from wsi_denoise.errors import (
    DatabaseFull,
    DatabaseUnreachable,
    LeaseLost,
    NoSuchJob,
    OutputUnwritable,
    SchedulerUnreachable,
    SlideChanged,
    TransitionRefused,
    UnreadableTile,
    WorkerLost,
)
from wsi_denoise.intake.quarantine import Quarantine
from wsi_denoise.jobs import pruning
from wsi_denoise.jobs.database import engine
from wsi_denoise.jobs.retry import DEATHS
from wsi_denoise.jobs.states import JobState
from wsi_denoise.processing.dask.cluster import Cluster
from wsi_denoise.processing.events import Interrupted
from wsi_denoise.settings import load


class BrokenCluster(Cluster):
    """Takes no task: `call` raises an error."""

    def __init__(self, error):
        super().__init__(None, "broken")
        object.__setattr__(self, "error", error)

    def call(self, *_arguments, **_named):
        raise self.error


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def settings(tmp_path):
    return load(overrides={"jobs.heartbeat_seconds": 0.1}, folder=tmp_path, environ={}).settings


@pytest.fixture
def store(settings, clock):
    with open_store(settings.database_url, clock) as store:
        yield store


@pytest.fixture
def job(settings, store):
    slide = settings.intake.inbox[0] / "a.tiff"
    slide.parent.mkdir()
    slide.write_bytes(b"slide")
    status = slide.stat()
    seen = store.see(slide, "a.tiff", size_bytes=5, mtime_ns=status.st_mtime_ns, preset="paper", origin="test")
    return store.queue(seen.id, fingerprint="f" * 64, settings={}, settings_hash="s", preset="paper", origin="test")


@pytest.fixture
def attempt(settings, store, clock):
    """Claim the job when it is due, run it once on a broken cluster, and return it."""
    daemon = store.register_daemon()
    stop = threading.Event()

    def run(error):
        clock.now += timedelta(hours=1, minutes=1)  # longer than any wait
        claimed = store.claim(daemon, 600)
        if claimed is None:
            clock.now += timedelta(hours=1, minutes=1)
            claimed = store.claim(daemon, 600)
        with Heartbeat(store, daemon, settings) as heartbeat:
            return Runner(settings, store, daemon, BrokenCluster(error), heartbeat, stop).run(claimed)

    return run


def test_what_may_be_the_jobs_own_fault_is_tried_so_often(settings, job, attempt):
    for _ in range(settings.jobs.attempts - 1):
        assert attempt(WorkerLost("x")).state is JobState.QUEUED
    ended = attempt(WorkerLost("x"))
    assert (ended.state, ended.error_code) == (JobState.FAILED, "worker_lost")


def test_what_the_surroundings_cause_never_fails_a_job(settings, job, attempt):
    waits = []
    for _ in range(4 * settings.jobs.attempts):
        ended = attempt(SchedulerUnreachable("x"))
        assert (ended.state, ended.error_code) == (JobState.QUEUED, "scheduler_unreachable")
        waits.append(ended.next_try - datetime.now(UTC))
    assert waits[0] < waits[1] < waits[2]
    assert waits[-1] <= timedelta(hours=1)
    # Nor does it use up what the job may fail.
    assert attempt(WorkerLost("x")).state is JobState.QUEUED


@pytest.fixture
def posted():
    with listen() as listener:
        yield listener


def test_a_job_that_begins_to_wait_is_posted_once(settings, store, clock, job, posted):
    settings = settings.model_copy(update={"notify": settings.notify.model_copy(update={"url": posted.url})})
    daemon = store.register_daemon()
    cluster = BrokenCluster(OutputUnwritable("/denoised"))
    with Heartbeat(store, daemon, settings) as heartbeat:
        runner = Runner(settings, store, daemon, cluster, heartbeat, threading.Event())
        for error in (*[cluster.error] * 3, WorkerLost("x"), SchedulerUnreachable("x"), cluster.error):
            cluster.error = error
            clock.now += timedelta(hours=1, minutes=1)
            runner.run(store.claim(daemon, 600))
    assert [(post["event"], post["job_id"], post["state"], post["error_code"]) for post in posted.messages] == [
        ("waiting", job.id, "queued", "output_unwritable"),
        ("waiting", job.id, "queued", "scheduler_unreachable"),
    ]


def test_a_person_who_tries_again_begins_a_new_count(settings, store, job, attempt):
    for _ in range(settings.jobs.attempts):
        ended = attempt(WorkerLost("x"))
    assert ended.state is JobState.FAILED
    store.retry(job.id, "person:cli")
    assert attempt(WorkerLost("x")).state is JobState.QUEUED


@pytest.fixture
def dies(store, clock):
    """Have a daemon die at the job, before or after a block was finished; found out by a successor or by the lease."""

    def die(*, blocks=0, found=True):
        clock.now += timedelta(hours=1, minutes=1)  # longer than any wait
        dying = store.register_daemon()
        claimed = store.claim(dying, 600)
        if claimed is None:  # its lease had expired, and its next try has a time
            clock.now += timedelta(hours=1, minutes=1)
            claimed = store.claim(dying, 600)
        if blocks:
            store.progress(claimed.id, dying, blocks, 100)
        if found:
            store.stop_daemon(dying, origin="recovery", reason="died without a word", died=True)

    return die


def test_a_daemon_that_dies_again_and_again_fails_no_job(settings, job, attempt, dies):
    for _ in range(DEATHS - 1):
        dies()
    assert attempt(WorkerLost("x")).state is JobState.QUEUED


@pytest.mark.parametrize("found", [True, False])
def test_a_slide_at_which_every_daemon_dies_is_quarantined_in_the_end(store, job, attempt, dies, found):
    for _ in range(DEATHS):
        dies(found=found)
    ended = attempt(WorkerLost("x"))
    assert (ended.state, ended.error_code) == (JobState.QUARANTINED, "slide_kills_daemon")
    # A retry by a user resets the count of attempts.
    store.retry(job.id, "person:cli")
    dies()
    assert attempt(WorkerLost("x")).state is JobState.QUEUED


@pytest.mark.parametrize("inside", [True, False])
def test_a_damaged_slide_gets_a_note_and_a_link_and_stays_where_it_is(settings, store, tmp_path, monkeypatch, inside):
    def denoise(_job):
        raise UnreadableTile("x")

    slide = (settings.intake.inbox[0] if inside else tmp_path / "archive") / "case7.tiff"
    slide.parent.mkdir()
    slide.write_bytes(b"slide")
    known = {"preset": "paper", "origin": "person:cli"}
    seen = store.see(slide, slide.name, size_bytes=5, mtime_ns=slide.stat().st_mtime_ns, **known)
    store.queue(seen.id, fingerprint="f" * 64, settings={}, settings_hash="s", **known)
    daemon = store.register_daemon()
    quarantine = Quarantine(settings.intake.quarantine)
    heartbeat = Heartbeat(store, daemon, settings)
    runner = Runner(settings, store, daemon, None, heartbeat, threading.Event(), quarantine=quarantine)
    monkeypatch.setattr(runner, "_denoise", denoise)
    assert runner.run(store.claim(daemon, 60)).state is JobState.QUARANTINED
    assert slide.read_bytes() == b"slide"
    assert quarantine.has_note(slide, Path(slide.name))
    assert (settings.intake.quarantine / slide.name).is_symlink()


def test_deaths_of_a_slide_that_gets_on_are_not_its_fault(job, attempt, dies):
    for done in range(4 * DEATHS):
        dies(blocks=1 if done % 10 == 0 else 0)
    assert attempt(WorkerLost("x")).state is JobState.QUEUED


@pytest.mark.parametrize("found", [True, False])
def test_after_the_third_death_other_slides_go_first(store, clock, job, dies, found):
    for _ in range(3):
        dies(found=found)
    clock.now += timedelta(seconds=0 if found else 601)
    another = store.register_daemon()
    assert store.claim(another, 600) is None
    waiting = store.job(job.id)
    assert (waiting.state, waiting.next_try - clock.now) == (JobState.QUEUED, timedelta(seconds=10))
    assert "3 in a row before a block was finished" in store.events(job.id)[-1].message
    clock.now += timedelta(seconds=11)
    assert store.claim(another, 600).id == job.id


# -- a machine that slept


DONE = {"verdict": "pass", "reasons": [], "metrics": {}, "output": "/o", "output_sha256": "0"}


@pytest.fixture
def sleeps(settings, store, job, clock, monkeypatch):
    """Run the claimed job on a machine that sleeps while others decide about it, and wakes with an error or a result.

    Returns how it ended, and what was posted about it.
    """
    posts = []
    monkeypatch.setattr(
        "wsi_denoise.daemon.runner.notifications.post", lambda _url, _timeout, event, _job: posts.append(event)
    )
    daemon = store.register_daemon()

    def run(meanwhile, wakes_with):
        def denoise(claimed):
            clock.now += timedelta(hours=2)
            meanwhile(claimed)
            if isinstance(wakes_with, BaseException):
                raise wakes_with
            return wakes_with

        claimed = store.claim(daemon, 60)
        runner = Runner(settings, store, daemon, None, Heartbeat(store, daemon, settings), threading.Event())
        monkeypatch.setattr(runner, "_denoise", denoise)
        return runner.run(claimed), posts

    return run


def done_by_another(store):
    def finish(job):
        other = store.register_daemon()
        store.claim(other, 60)
        store.finish(job.id, other, **DONE)

    return finish


def taken_by_another(store):
    return lambda _job: store.claim(store.register_daemon(), 60)


def given_back_by_another(store):
    def give_back(job):
        other = store.register_daemon()
        store.claim(other, 60)
        store.release(job.id, other, "stopping")
        return other

    return give_back


def settling_again(store):
    def settle(job):
        other = given_back_by_another(store)(job)
        store.settle_again(job.id, SlideChanged("a.svs"), f"daemon:{other}")

    return settle


def cancelled_by_a_person(store):
    return lambda job: store.cancel(job.id, "person:page")


RESULT = (
    SimpleNamespace(
        judgement=SimpleNamespace(verdict=SimpleNamespace(value="pass"), reasons=()),
        metrics={},
        output="/mine",
        sha256="1",
        facts={},
        seconds={},
        model_sha256="m",
    ),
    None,
)


@pytest.mark.parametrize(
    "wakes_with", [WorkerLost("x"), UnreadableTile("x"), Interrupted("stop"), RuntimeError(), RESULT]
)
@pytest.mark.parametrize(
    ("meanwhile", "state"),
    [
        (done_by_another, JobState.DONE),
        (taken_by_another, JobState.RUNNING),
        (given_back_by_another, JobState.QUEUED),
        (settling_again, JobState.SETTLING),
        (cancelled_by_a_person, JobState.CANCELLED),
    ],
)
def test_what_others_decided_while_the_machine_slept_stands(store, sleeps, meanwhile, state, wakes_with):
    ended, posts = sleeps(meanwhile(store), wakes_with)
    assert ended.state is state
    assert ended == store.job(ended.id)
    assert ended.output == ("/o" if state is JobState.DONE else None)
    assert posts == [], "its end was reported before"


@pytest.mark.parametrize("wakes_with", [WorkerLost("x"), RESULT])
def test_a_job_that_is_not_in_the_record_any_more_ends_nothing(store, clock, sleeps, wakes_with):
    def forgotten(job):
        store.cancel(job.id, "person:page")
        assert pruning.remove(store, [job.id], "retention", clock.now) == 1

    ended, _ = sleeps(forgotten, wakes_with)
    with pytest.raises(NoSuchJob):
        store.job(ended.id)


@pytest.mark.parametrize("error", [TransitionRefused("job 1 is done"), NoSuchJob("1")])
def test_a_record_that_is_not_as_it_was_does_not_end_the_daemon(settings, store, job, monkeypatch, error):
    stop = threading.Event()

    def run(_job):
        stop.set()
        raise error

    loaded = SimpleNamespace(settings=settings)
    daemon = Daemon(loaded, store, say=print)
    never = SimpleNamespace(look=lambda: False)
    cluster = SimpleNamespace(is_closed=lambda: False)
    daemon._work(SimpleNamespace(run=run), cluster, store.register_daemon(), stop, never)
    assert stop.is_set()


def test_a_changed_slide_does_not_take_the_spool_of_the_job_before(settings, store, job, monkeypatch):
    """A job that is given back keeps its blocks, whatever becomes of the next one."""
    kept = settings.jobs.state / "spool" / "of-the-first"

    def interrupted(_request, _cluster, events, **_named):
        kept.mkdir(parents=True)
        (kept / "00000-00000.block").write_bytes(b"hours of work")
        plan = SimpleNamespace(
            work=SimpleNamespace(spool=kept, width=9, height=9, plan="", lattice=SimpleNamespace(block_shape=(1, 1))),
            info=SimpleNamespace(width=9, height=9, mpp=None),
            tissue_note="",
        )
        events.planned(plan)
        raise Interrupted("quiet hours have begun")

    monkeypatch.setattr("wsi_denoise.daemon.runner.denoise_slide", interrupted)
    monkeypatch.setattr("wsi_denoise.daemon.runner.facts_of", lambda _info: {})
    slide = Path(job.slide).with_name("b.tiff")
    slide.write_bytes(b"slide")
    known = {"preset": "paper", "origin": "test"}
    seen = store.see(slide, "b.tiff", size_bytes=5, mtime_ns=slide.stat().st_mtime_ns, **known)
    second = store.queue(seen.id, fingerprint="b" * 64, settings={}, settings_hash="s", **known)
    daemon = store.register_daemon()
    with Heartbeat(store, daemon, settings) as heartbeat:
        runner = Runner(settings, store, daemon, BrokenCluster(WorkerLost("")), heartbeat, threading.Event())
        assert runner.run(store.claim(daemon, 60, only=job.id)).state is JobState.QUEUED
        slide.write_bytes(b"changed while it waited")
        assert runner.run(store.claim(daemon, 60, only=second.id)).error_code == "slide_changed"
    assert list(kept.iterdir())


def test_the_end_is_written_down_once_the_database_takes_it(settings, store, job, attempt, monkeypatch, caplog):
    monkeypatch.setattr(engine, "BUSY_WAITS", ())
    other = sqlite3.connect(store.file, isolation_level=None, check_same_thread=False)
    other.execute("PRAGMA busy_timeout = 10000")

    timer = threading.Timer(7.0, other.execute, ["ROLLBACK"])  # longer than a writer waits for the lock
    error = WorkerLost("x")

    def call(*_arguments, **_named):
        other.execute("BEGIN IMMEDIATE")
        timer.start()
        raise error

    monkeypatch.setattr(BrokenCluster, "call", call)
    try:
        ended = attempt(error)
    finally:
        timer.join()
        other.close()
    assert (ended.state, ended.error_code) == (JobState.QUEUED, "worker_lost")
    assert "storing the end of a job: The job database is locked" in caplog.text


def test_a_heart_beats_on_whatever_the_database_says(settings, job):
    """Otherwise leases would expire one after the other, unnoticed."""
    answers = [RuntimeError("out of the blue"), DatabaseUnreachable("x"), False]

    def beat(*_arguments, **_named):
        answer = answers.pop(0) if answers else False
        if isinstance(answer, Exception):
            raise answer
        return answer

    with Heartbeat(SimpleNamespace(heartbeat=beat), 1, settings) as heartbeat, heartbeat.on(job):
        assert heartbeat._lost.wait(10)
        with pytest.raises(LeaseLost):
            heartbeat.check()


def test_a_full_disk_pauses_the_queue_once_however_often_the_end_is_written(settings, store, job, monkeypatch):
    monkeypatch.setattr("wsi_denoise.daemon.runner.WRITE_SECONDS", 0.01)
    refused = []
    later = store.retry_later

    def retry_later(*arguments, **named):
        if len(refused) < 3:
            refused.append(DatabaseFull("jobs.sqlite"))
            raise refused[-1]
        return later(*arguments, **named)

    monkeypatch.setattr(store, "retry_later", retry_later)
    daemon = store.register_daemon()
    told = []
    pauses = Pauses(settings, store, daemon, on_pause=lambda: told.append("paused"))
    with Heartbeat(store, daemon, settings) as heartbeat:
        cluster = BrokenCluster(DatabaseFull("jobs.sqlite"))
        runner = Runner(settings, store, daemon, cluster, heartbeat, threading.Event(), pauses=pauses)
        ended = runner.run(store.claim(daemon, 60))
    assert (ended.state, ended.error_code) == (JobState.QUEUED, "database_full")
    assert len(refused) == 3
    assert told == ["paused"]
    assert pauses.hold._wait == 10.0  # doubled once
    assert set(store.pauses()) == {f"daemon:{daemon}"}


def test_an_error_that_nobody_thought_of_does_not_end_the_daemon(settings, store, job, monkeypatch, caplog):
    """It continues with the queue, after a delay that grows."""
    stop = threading.Event()
    waits = []

    def run(_job):
        raise RuntimeError("out of the blue")

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 9:
            stop.set()

    daemon = Daemon(SimpleNamespace(settings=settings), store, say=print)
    runner, never = SimpleNamespace(run=run), SimpleNamespace(look=lambda: False)
    monkeypatch.setattr(store, "claim", lambda *_: job)
    told = SimpleNamespace(is_set=stop.is_set, wait=wait)
    daemon._work(runner, SimpleNamespace(is_closed=lambda: False), store.register_daemon(), told, never)
    assert waits[:3] == [5.0, 10.0, 20.0]
    assert waits[-1] == 300.0
    assert "RuntimeError: out of the blue" in caplog.text


@pytest.mark.parametrize("code", ["scheduler_unreachable", "no_workers"])
def test_a_daemon_that_lost_its_cluster_with_a_job_leaves_it(settings, store, job, code):
    daemon = Daemon(SimpleNamespace(settings=settings), store, say=print)
    runner = SimpleNamespace(run=lambda _job: SimpleNamespace(error_code=code))
    cluster = SimpleNamespace(is_closed=lambda: False, is_there=lambda: False)
    never = SimpleNamespace(look=lambda: False)
    with pytest.raises(SchedulerUnreachable):
        daemon._work(runner, cluster, store.register_daemon(), threading.Event(), never)
