"""`run`: whose fault it is when a slide cannot be taken up."""

import pytest

from wsi_denoise.daemon import foreground
from wsi_denoise.errors import NoWorkers, SchedulerUnreachable, TooLarge, WeightsDamaged, WorkerLost
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.settings import load


@pytest.mark.parametrize(
    ("trouble", "state"),
    [
        (SchedulerUnreachable(), JobState.FAILED),
        (NoWorkers(), JobState.FAILED),
        (WorkerLost(), JobState.FAILED),
        (WeightsDamaged(), JobState.FAILED),
        (TooLarge(), JobState.QUARANTINED),
    ],
)
def test_only_a_fault_of_the_slide_quarantines_it(tmp_path, monkeypatch, trouble, state):
    settings = load(folder=tmp_path, environ={}).settings
    store = JobStore(settings.database_url)
    store.upgrade()
    slide = tmp_path / "archive" / "case7.tiff"
    slide.parent.mkdir()
    slide.write_bytes(b"slide")
    monkeypatch.setattr(foreground, "probe", lambda *_arguments: trouble)
    try:
        job = foreground._submit(slide, settings, store, None, None)
        assert (job.state, job.error_code) == (state, trouble.code)
        # And once that is mended, it is done as if nothing had been.
        monkeypatch.setattr(foreground, "probe", lambda *_arguments: None)
        assert foreground._submit(slide, settings, store, None, None).state is JobState.QUEUED
    finally:
        store.close()
