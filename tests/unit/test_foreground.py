"""Slides done at the terminal, beside a daemon; only the cluster, the probe and the pixels are the test's own."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from wsi_denoise import foreground
from wsi_denoise.intake.watcher import FULL_SECONDS, Watcher
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import JobQuery
from wsi_denoise.runner import Runner
from wsi_denoise.settings import load

SETTLE = 10


class Lab:
    """A folder with an inbox, a store, a daemon's watcher, and what a person runs."""

    def __init__(self, folder):
        self.folder = folder
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        chosen = {"intake.settle_seconds": SETTLE, "intake.events": False}
        self.loaded = load(folder=folder, environ={}, overrides=chosen)
        self.store = JobStore(self.loaded.settings.database_url)
        self.store.upgrade()
        self.trouble = None
        self.now = 1000.0
        self.watcher = Watcher(self.loaded.settings, self.store, probe=lambda _path: None, origin="daemon:1")

    def watch(self, *waits):
        """What a daemon sees: a look after each of these waits."""
        for seconds in waits or (0, SETTLE, FULL_SECONDS):
            self.now += seconds
            self.watcher.look(self.now)

    def run(self, *paths, region=None):
        return foreground.run_slides(list(paths), self.loaded, self.store, region=region)

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
