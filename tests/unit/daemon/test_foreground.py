"""Slides done at the terminal, beside a daemon; only the cluster, the probe and the pixels are the test's own."""

import os
import shutil
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from wsi_denoise.daemon import foreground
from wsi_denoise.daemon.runner import Runner
from wsi_denoise.errors import SourceUnavailable, TransitionRefused, UnsupportedSlide, WorkerLost
from wsi_denoise.intake.watcher import FULL_SECONDS, Watcher
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import JobQuery
from wsi_denoise.settings import load

SETTLE = 10


class Lab:
    """A folder with an inbox, a store, a daemon's watcher, and commands that a user runs."""

    def __init__(self, folder):
        self.folder = folder
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        chosen = {"intake.settle_seconds": SETTLE, "intake.events": False}
        self.loaded = load(folder=folder, environ={}, overrides=chosen)
        self.store = JobStore(self.loaded.settings.database_url)
        self.store.upgrade()
        self.trouble, self.interrupted, self.worked = None, False, []
        self.now = 1000.0
        self.watcher = Watcher(self.loaded.settings, self.store, probe=lambda _path: None, origin="daemon:1")

    def watch(self, *waits):
        """Scan the inbox after each of these waits."""
        for seconds in waits or (0, SETTLE, FULL_SECONDS):
            self.now += seconds
            self.watcher.look(self.now)

    def run(self, *paths, region=None):
        return foreground.run_slides(list(paths), self.loaded, self.store, region=region)

    def interrupt(self, *paths, region=None):
        """Begin a run, and end it in the middle."""
        self.interrupted = True
        with pytest.raises(KeyboardInterrupt):
            self.run(*paths, region=region)
        self.interrupted = False

    def jobs(self):
        """State and region of every job, oldest first."""
        jobs = self.store.jobs(JobQuery(sort="id", limit=None)).jobs
        return [(job.state.value, job.region) for job in sorted(jobs, key=lambda job: job.id)]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    made = Lab(tmp_path)

    @contextmanager
    def connect(_settings):
        yield SimpleNamespace(near=None)

    def run(self, job):
        made.worked.append(job.id)
        if made.interrupted:
            made.store.release(job.id, self._daemon_id, "the daemon is stopping")
            raise KeyboardInterrupt
        facts = {"verdict": "pass", "reasons": [], "metrics": {}, "output": f"/{job.id}", "output_sha256": "0"}
        return made.store.finish(job.id, self._daemon_id, **facts)

    monkeypatch.setattr(foreground, "connect", connect)
    monkeypatch.setattr(foreground, "probe", lambda *_: made.trouble)
    monkeypatch.setattr(Runner, "run", run)
    yield made
    made.watcher.close()
    made.store.close()


TRIAL = (0, 0, 100, 100)


def test_the_daemon_denoises_a_slide_of_which_there_was_a_trial(lab):
    slide = lab.inbox / "a.tif"
    slide.write_bytes(b"pixels")
    (job,) = lab.run(slide, region=TRIAL)
    assert job.state is JobState.DONE
    lab.watch()
    assert lab.jobs() == [("done", TRIAL), ("queued", None)]


def test_a_trial_leaves_the_daemon_the_job_that_is_settling(lab):
    slide = lab.inbox / "a.tif"
    slide.write_bytes(b"pixels")
    lab.watch(0)
    lab.run(slide, region=TRIAL)
    lab.watch(SETTLE, FULL_SECONDS)
    assert lab.jobs() == [("queued", None), ("done", TRIAL)]


def test_a_persons_preset_outlasts_a_change_of_the_file(lab):
    slide = lab.inbox / "a.tif"
    slide.write_bytes(b"pixels")
    settings = lab.loaded.settings
    chosen = settings.with_values({"model.preset": "photo"})
    job = foreground._submit(slide, chosen, lab.store, None, None)
    lab.watch(0)
    slide.write_bytes(b"other pixels")
    lab.watch()
    (found,) = lab.store.jobs().jobs
    assert (found.id, found.state, found.preset) == (job.id, JobState.QUEUED, "photo")
    assert found.fingerprint != job.fingerprint


@pytest.mark.parametrize("trouble", [WorkerLost(), UnsupportedSlide(), SourceUnavailable()])
def test_a_slide_that_a_daemon_queued_meanwhile_is_not_ended_by_a_persons_probe(lab, monkeypatch, trouble):
    slide = lab.inbox / "a.tif"
    slide.write_bytes(b"pixels")
    lab.watch(0)

    def probe(*_):
        lab.watch(SETTLE, FULL_SECONDS)
        return trouble

    monkeypatch.setattr(foreground, "probe", probe)
    (job,) = lab.run(slide)
    assert (job.state, job.error, lab.worked) == (JobState.DONE, None, [job.id])


@pytest.mark.parametrize("region", [None, TRIAL])
def test_an_interrupted_run_goes_on_when_it_is_asked_for_again(lab, region):
    slide = lab.folder / "x.tif"
    slide.write_bytes(b"pixels")
    lab.interrupt(slide, region=region)
    (job,) = lab.run(slide, region=region)
    assert (job.id, job.state) == (1, JobState.DONE)
    assert lab.worked == [1, 1]
    (same,) = lab.run(slide, region=region)
    assert (same.state, same.duplicate_of, lab.worked) == (JobState.DUPLICATE, 1, [1, 1])


def test_a_run_does_not_wait_for_the_next_try_of_the_one_before(lab):
    slide = lab.folder / "x.tif"
    slide.write_bytes(b"pixels")
    lab.interrupt(slide)
    daemon = lab.store.register_daemon()
    lab.store.claim(daemon, 60)
    lab.store.retry_later(1, WorkerLost(), datetime.now(UTC) + timedelta(hours=1), f"daemon:{daemon}")
    assert [job.id for job in lab.run(slide)] == [1]
    assert lab.worked == [1, 1]


@pytest.mark.parametrize("change", ["renamed", "touched", "replaced"])
def test_an_interrupted_run_of_a_file_that_is_no_longer_there_is_taken_over(lab, change):
    slide = lab.folder / "x.tif"
    slide.write_bytes(b"pixels")
    lab.interrupt(slide)
    if change == "touched":
        os.utime(slide, ns=(0, 5))
    else:
        slide = slide.rename(lab.folder / "y.tif")
    if change == "replaced":
        (lab.folder / "x.tif").write_bytes(b"other pixels")
    (job,) = lab.run(slide)
    assert (job.id, job.state, job.slide) == (2, JobState.DONE, str(slide))
    assert lab.jobs() == [("cancelled", None), ("done", None)]


def test_a_job_whose_folder_is_not_here_may_be_another_machines_and_is_not_cancelled(lab):
    slide = lab.folder / "share" / "x.tif"
    slide.parent.mkdir()
    slide.write_bytes(b"pixels")
    lab.interrupt(slide)
    shutil.copy(slide, lab.folder / "y.tif")
    shutil.rmtree(slide.parent)
    assert [job.id for job in lab.run(lab.folder / "y.tif")] == [1]


def test_a_run_takes_over_what_a_daemon_gives_back(lab, monkeypatch):
    slide = lab.folder / "x.tif"
    slide.write_bytes(b"pixels")
    lab.interrupt(slide)
    daemon = lab.store.register_daemon()
    lab.store.claim(daemon, 60)
    monkeypatch.setattr(foreground, "IDLE_SECONDS", 0.05)
    stops = threading.Timer(0.3, lab.store.release, (1, daemon, "the daemon is stopping"))
    stops.start()
    (job,) = lab.run(slide)
    stops.join()
    assert (job.id, job.state, lab.worked) == (1, JobState.DONE, [1, 1])


def test_a_slide_outside_the_inboxes_that_did_not_open_is_run_again(lab):
    slide = lab.folder / "x.tif"
    slide.write_bytes(b"pixels")
    lab.trouble = UnsupportedSlide()
    (job,) = lab.run(slide)
    lab.trouble = None
    with pytest.raises(TransitionRefused, match="wsi-denoise run"):
        lab.store.retry(job.id, "person:cli", inboxes=lab.loaded.settings.intake.inbox)
    assert [job.state for job in lab.run(slide)] == [JobState.DONE]
    assert lab.jobs() == [("quarantined", None), ("done", None)]
