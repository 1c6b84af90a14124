"""What a runner makes of a slide that is missing: removed, or on a share that is away."""

import threading
from datetime import timedelta

import pytest

from support.clock import Clock
from support.stores import open_store
from wsi_denoise.daemon.heartbeat import Heartbeat
from wsi_denoise.daemon.runner import Runner
from wsi_denoise.errors import IncompleteSlide, SlideKillsDaemon, SlideVanished, UnreadableTile
from wsi_denoise.intake.quarantine import Quarantine
from wsi_denoise.jobs.states import JobState
from wsi_denoise.processing.dask.cluster import Cluster
from wsi_denoise.settings import load
from wsi_denoise.system.mounts import Places


class Broken(Cluster):
    """Raises an error at the first call, after something happened to the folders."""

    def __init__(self, error, happens):
        super().__init__(None, "broken")
        object.__setattr__(self, "error", error)
        object.__setattr__(self, "happens", happens)

    def call(self, *_arguments, **_named):
        self.happens()
        raise self.error


@pytest.fixture
def settings(tmp_path):
    return load(overrides={"jobs.heartbeat_seconds": 0.1}, folder=tmp_path, environ={}).settings


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(settings, clock):
    with open_store(settings.database_url, clock) as store:
        yield store


@pytest.fixture
def slide(settings):
    slide = settings.intake.inbox[0] / "a.tiff"
    slide.parent.mkdir()
    slide.write_bytes(b"slide")
    return slide


@pytest.fixture
def job(settings, store, slide):
    size = {"size_bytes": 5, "mtime_ns": slide.stat().st_mtime_ns}
    place = Places(settings.intake.inbox).of(slide)
    seen = store.see(slide, "a.tiff", preset="paper", origin="daemon:1", place=place, **size)
    return store.queue(seen.id, fingerprint="f" * 64, settings={}, settings_hash="s", preset="paper", origin="daemon:1")


@pytest.fixture
def attempt(settings, store, clock, job):
    daemon = store.register_daemon()
    quarantine = Quarantine(settings.intake.quarantine)

    def run(error=None, happens=lambda: None):
        clock.now += timedelta(hours=1, minutes=1)  # longer than any wait
        claimed = store.claim(daemon, 600)
        with Heartbeat(store, daemon, settings) as heartbeat:
            cluster = Broken(error, happens)
            runner = Runner(settings, store, daemon, cluster, heartbeat, threading.Event(), quarantine=quarantine)
            return runner.run(claimed)

    return run


def away(slide, *, mount_point):
    slide.parent.rename(slide.parent.with_name("away"))
    if mount_point:
        slide.parent.mkdir()


@pytest.mark.parametrize("mount_point", [True, False])
def test_a_slide_on_a_share_that_is_away_waits_however_long(settings, slide, attempt, mount_point):
    away(slide, mount_point=mount_point)
    for _ in range(3 * settings.jobs.attempts):
        ended = attempt()
        assert (ended.state, ended.error_code, ended.attempts) == (JobState.QUEUED, "source_unavailable", 0)
    assert "mounted" in ended.error


def test_a_slide_that_was_removed_fails_in_the_end(settings, slide, attempt):
    slide.unlink()
    for _ in range(settings.jobs.attempts - 1):
        assert (attempt().state) is JobState.QUEUED
    ended = attempt()
    assert (ended.state, ended.error_code) == (JobState.FAILED, "slide_vanished")


@pytest.mark.parametrize("error", [SlideVanished("x"), UnreadableTile("x"), IncompleteSlide("x")])
@pytest.mark.parametrize("mount_point", [True, False])
def test_what_a_worker_says_while_the_share_goes_away_is_not_held_against_the_slide(
    settings, slide, attempt, error, mount_point
):
    ended = attempt(error, lambda: away(slide, mount_point=mount_point))
    assert (ended.state, ended.error_code) == (JobState.QUEUED, "source_unavailable")
    assert not list(settings.intake.quarantine.glob("*")), "no note"


def test_a_worker_that_does_not_see_the_share_fails_no_job(settings, slide, attempt):
    for _ in range(3 * settings.jobs.attempts):
        ended = attempt(SlideVanished("x"))
        assert (ended.state, ended.error_code) == (JobState.QUEUED, "source_unavailable")
    assert "a worker does not find a.tiff" in ended.error


def test_a_slide_that_is_replaced_while_a_tile_is_read_settles_again(slide, attempt):
    ended = attempt(UnreadableTile("x"), lambda: slide.write_bytes(b"another"))
    assert (ended.state, ended.error_code) == (JobState.SETTLING, "slide_changed")


@pytest.mark.parametrize("error", [UnreadableTile("x"), SlideKillsDaemon("x")])
def test_a_fault_of_a_slide_that_is_there_is_its_fault(attempt, error):
    ended = attempt(error)
    assert (ended.state, ended.error_code) == (JobState.QUARANTINED, error.code)
