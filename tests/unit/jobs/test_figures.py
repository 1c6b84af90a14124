"""Questions of the page: what waits, every job in turn, figures of many slides; and running a slide again."""

from datetime import UTC, datetime, timedelta

import pytest

from support.clock import Clock
from wsi_denoise.errors import BlockKillsWorker, TransitionRefused
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import JobQuery, Scanner

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock():
    return Clock(START, step=1)


@pytest.fixture
def store(tmp_path, clock):
    made = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", clock=clock)
    made.upgrade()
    yield made
    made.close()


def settling(store, name):
    return store.see(f"/in/{name}", name, size_bytes=1, mtime_ns=1, preset="paper", origin="daemon:1").id


def queued(store, name, content=None):
    job = settling(store, name)
    hashed = {"settings": {}, "settings_hash": "s", "preset": "paper", "origin": "daemon:1"}
    return store.queue(job, fingerprint=content or name, **hashed).id


def done(store, name, *, verdict="pass", scanner=None, region=None, weights=None, **metrics):
    job = settling(store, name)
    store.queue(job, fingerprint=name, settings={}, settings_hash="s", preset="paper", origin="daemon:1", region=region)
    daemon = store.register_daemon()
    assert store.claim(daemon, 60, only=job)
    store.set_slide_facts(job, 10, 10, None, scanner or {})
    ended = {"output": f"/out/{name}", "output_sha256": "0", "model_checksum": weights}
    store.finish(job, daemon, verdict=verdict, reasons=[], metrics=metrics, **ended)
    return job


def test_what_waits_is_in_the_order_in_which_it_is_claimed(store):
    settling(store, "late")
    jobs = [queued(store, name) for name in "abcde"]
    store.set_priority(jobs[3], 5, "person:page")
    store.set_priority(jobs[0], -1, "person:page")
    page = store.waiting()
    assert page.total == 6
    assert [job.relative for job in page.jobs] == ["d", "b", "c", "e", "a", "late"]
    daemon = store.register_daemon()
    claimed = [store.claim(daemon, 60).relative for _ in jobs]
    assert claimed == [job.relative for job in page.jobs[:5]]
    assert [job.relative for job in store.waiting(1).jobs] == ["late"]


def test_every_job_is_given_once_whatever_the_chunk(store):
    jobs = [queued(store, f"{number:03}") for number in range(23)]
    for chunk in (1, 5, 23, 500):
        assert [job.id for job in store.stream(JobQuery(limit=3, offset=2), chunk=chunk)] == jobs[::-1]
    some = store.stream(JobQuery(slide="1", states=(JobState.QUEUED,)), chunk=4)
    assert [job.relative for job in some] == ["021", *[f"{n:03}" for n in range(19, 9, -1)], "001"]
    assert list(store.stream(JobQuery(verdict="pass"))) == []


def test_a_new_job_does_not_disturb_who_reads_the_stream(store):
    jobs = [queued(store, name) for name in "abcd"]
    found = []
    for job in store.stream(JobQuery(), chunk=2):
        found.append(job.id)
        queued(store, f"new {job.id}")
    assert found == jobs[::-1]


def test_what_was_over_last_comes_first_however_it_ended(store):
    first, second = done(store, "x", sigma=1.0), queued(store, "y")
    queued(store, "waits")
    store.cancel(second, "person:page")
    assert [job.id for job in store.last_finished(5)] == [second, first]
    assert [job.id for job in store.last_finished(1)] == [second]
    store.retry(second, "person:page")
    assert [job.id for job in store.last_finished(5)] == [first]


def test_choices_are_what_occurs(store, end_job):
    assert store.choices() == ([], [])
    end_job(store, queued(store, "a"), BlockKillsWorker("x"))
    assert store.choices() == (["paper"], [BlockKillsWorker.code])


SCANNERS = {
    "a": {"vendor": "aperio", "model": "AT2", "serial_hash": "abcdef123456", "scan_week": "2026-W09"},
    "b": {"vendor": "hamamatsu"},
}


def test_figures_are_of_whole_slides_that_are_done(store):
    first = done(store, "x", scanner=SCANNERS["a"], sigma=3.0, other=1.0)
    second = done(store, "y", scanner=SCANNERS["b"], verdict="review", sigma=None)
    done(store, "trial", region=(0, 0, 5, 5), sigma=9.0)
    queued(store, "z")
    found, total = store.figures(["sigma", "missing"], JobQuery(limit=None))
    assert total == 2
    assert [(one.job_id, one.values) for one in found] == [(second, {"sigma": None}), (first, {"sigma": 3.0})]
    assert found[1].scanner == Scanner("aperio", "AT2", "abcdef123456")
    assert found[1].scan_week == "2026-W09"
    assert str(found[1].scanner) == "aperio AT2 #abcd"
    assert str(Scanner(None, None, None)) == "scanner not named"
    few, total = store.figures(["sigma"], JobQuery(limit=1))
    assert [one.job_id for one in few] == [second]
    assert total == 2
    assert store.figures(["sigma"], JobQuery(slide="X"))[1] == 1


def test_a_trend_is_by_scanner_and_day_or_week(store, clock):
    done(store, "1", scanner=SCANNERS["a"], sigma=2.0)
    done(store, "2", scanner=SCANNERS["a"], sigma=4.0)
    done(store, "3", scanner=SCANNERS["b"], sigma=7.0)
    done(store, "4", scanner=SCANNERS["b"], sigma=None)
    clock.now += timedelta(days=1)
    done(store, "5", scanner=SCANNERS["a"], sigma=10.0)
    days = store.trend("sigma", JobQuery())
    assert [
        (p.when, p.scanner.vendor, p.mean, p.low, p.high, p.slides) for p in sorted(days, key=lambda p: p.mean)
    ] == [
        ("2026-03-01", "aperio", 3.0, 2.0, 4.0, 2),
        ("2026-03-01", "hamamatsu", 7.0, 7.0, 7.0, 1),
        ("2026-03-02", "aperio", 10.0, 10.0, 10.0, 1),
    ]
    weeks = store.trend("sigma", JobQuery(), by="scan_week")
    assert [(p.when, p.slides, p.high) for p in weeks] == [("2026-W09", 3, 10.0)], "a job without a week is in none"
    since = store.trend("sigma", JobQuery(since=START + timedelta(hours=12)))
    assert [p.when for p in since] == ["2026-03-02"]


def again(store, job, **changed):
    asked = {"preset": "paper", "settings": {"q": 1}, "settings_hash": "t", "origin": "person:page"} | changed
    return store.rerun(job, **asked)


def test_a_slide_is_run_again_with_another_preset(store):
    job = done(store, "x", sigma=1.0)
    new = again(store, job, preset="scanner", settings_hash="s")
    assert (new.state, new.preset, new.slide, new.fingerprint) == (JobState.QUEUED, "scanner", "/in/x", "x")
    assert [event.kind for event in store.events(new.id)] == ["rerun"]
    assert store.job(job).state is JobState.DONE
    daemon = store.register_daemon()
    assert store.claim(daemon, 60).id == new.id


def test_running_again_what_would_not_differ_is_refused(store):
    job = done(store, "x", sigma=1.0)
    with pytest.raises(TransitionRefused, match="nothing would differ"):
        again(store, job, settings_hash="s")
    new = again(store, job)
    with pytest.raises(TransitionRefused, match=f"job {new.id} is queued"):
        again(store, job)
    assert store.jobs().total == 2, "a refusal leaves no job behind"


def test_new_weights_of_the_same_preset_are_run_again(store):
    job = done(store, "x", weights="old", sigma=1.0)
    with pytest.raises(TransitionRefused, match="nothing would differ"):
        again(store, job, settings_hash="s", model_checksum="old")
    new = again(store, job, settings_hash="s", model_checksum="new")
    assert (new.state, new.model_checksum) == (JobState.QUEUED, "new")
    with pytest.raises(TransitionRefused, match=f"job {new.id} is queued"):
        again(store, job, settings_hash="s", model_checksum="new")


def test_what_has_not_settled_is_not_run_again(store):
    with pytest.raises(TransitionRefused, match="not settled"):
        again(store, settling(store, "x"))


def test_what_is_known_of_a_daemon_grows(store):
    daemon = store.register_daemon(facts={"inbox": ["/in"]})
    store.note_daemon(daemon, {"cluster": "1 worker"})
    store.note_daemon(999, {"cluster": "nobody"})
    assert store.daemons()[0].facts == {"inbox": ["/in"], "cluster": "1 worker"}
