"""A slide whose output was removed is queued again; an output that was moved is found again."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from wsi_denoise.cli import app
from wsi_denoise.cli.slides import job_of
from wsi_denoise.daemon.folders import MarkedFolder, Missing
from wsi_denoise.errors import TransitionRefused
from wsi_denoise.jobs import outputs, places
from wsi_denoise.jobs.places import RecordedFolder
from wsi_denoise.jobs.states import JobState
from wsi_denoise.settings import load
from wsi_denoise.slide.verify import sha256
from wsi_denoise.system.mounts import MARKER, Place

KNOWN = {"preset": "paper", "origin": "test"}


@pytest.fixture
def settings(tmp_path):
    return load(folder=tmp_path, environ={}).settings


@pytest.fixture
def folder(settings):
    folder = settings.output.folder
    folder.mkdir()
    return folder


def mark(store, folder, identifier="a" * 32):
    (folder / MARKER).write_text(f"id: {identifier}\n")
    places.record(store, RecordedFolder(folder, identifier, ""), "test", datetime.now(UTC))


def queue(store, name="a.svs", *, region=None):
    seen = store.see(f"/inbox/{name}", name, size_bytes=1, mtime_ns=1, region=region, **KNOWN)
    return store.queue(seen.id, fingerprint="f" * 64, settings={}, settings_hash="s", region=region, **KNOWN)


def finish(store, job, output):
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(f"pixels of {job.id}".encode())
    daemon = store.register_daemon()
    store.claim(daemon, 60, only=job.id)
    store.set_slide_facts(job.id, 10, 10, None)
    facts = {"verdict": "pass", "reasons": ["x"], "metrics": {"psnr": 1.0}}
    return store.finish(job.id, daemon, output=output, output_sha256=sha256(output), **facts)


@pytest.fixture
def done(store, folder):
    mark(store, folder)
    return finish(store, queue(store), folder / "case" / "a.tiff")


def remove(how, folder, output):
    if how == "file":
        output.unlink()
    elif how == "its folder":
        shutil.rmtree(output.parent)


@pytest.mark.parametrize("how", ["file", "its folder"])
def test_a_slide_whose_output_was_removed_is_no_duplicate(store, folder, done, how):
    assert queue(store, "copy.svs").state is JobState.DUPLICATE
    remove(how, folder, folder / "case" / "a.tiff")
    again = queue(store, "again.svs")
    assert (again.state, again.duplicate_of) == (JobState.QUEUED, None)
    finish(store, again, folder / "again.tiff")
    last = queue(store, "last.svs")
    assert (last.state, last.duplicate_of) == (JobState.DUPLICATE, again.id)


@pytest.mark.parametrize("how", ["folder", "mount point", "another folder"])
def test_nothing_counts_as_removed_while_the_share_of_the_outputs_is_away(store, folder, done, how):
    folder.rename(folder.with_name("away"))
    if how != "folder":
        folder.mkdir()
        (folder / "case").mkdir()
    if how == "another folder":
        (folder / MARKER).write_text(f"id: {'b' * 32}\n")
    assert queue(store, "copy.svs").state is JobState.DUPLICATE
    with pytest.raises(TransitionRefused, match="not to be seen"):
        store.retry(done.id, "person:cli")
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_name("away").rename(folder)
    with pytest.raises(TransitionRefused, match="its output is"):
        store.retry(done.id, "person:cli")


def test_the_folder_that_counts_is_the_one_the_output_was_written_to(store, folder, done, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    mark(store, other, "c" * 32)
    (folder / "case" / "a.tiff").unlink()
    shutil.rmtree(other)
    assert queue(store, "again.svs").state is JobState.QUEUED


def test_an_output_of_a_version_that_marked_no_folders(store, folder):
    job = finish(store, queue(store), folder / "a.tiff")
    (folder / "a.tiff").unlink()
    assert not outputs.is_removed(store, job), "an empty folder may be a mount point"
    (folder / "b.tiff").write_bytes(b"another")
    assert outputs.is_removed(store, job)
    shutil.rmtree(folder)
    assert not outputs.is_removed(store, job)


def test_our_own_default_folder_may_be_removed_as_a_whole(store, folder):
    MarkedFolder(folder, store, missing=Missing.MAKE).check()
    job = finish(store, queue(store), folder / "case" / "a.tiff")
    assert not outputs.is_removed(store, job)
    shutil.rmtree(folder)
    assert queue(store, "again.svs").state is JobState.QUEUED
    known = places.folder(store, folder)
    away = replace(known, place=str(replace(Place.parse(known.place), mount=str(folder))))
    places.record(store, away, "test", datetime.now(UTC))
    assert not outputs.is_removed(store, job), "its share is not mounted"


def test_a_link_that_took_the_place_of_an_output_is_an_output(store, folder, done):
    (folder / "case" / "a.tiff").unlink()
    (folder / "case" / "a.tiff").symlink_to("/archive/a.tiff")
    assert not outputs.is_removed(store, done)


def test_a_trial_whose_picture_was_removed_is_done_again(store, folder):
    mark(store, folder)
    job = finish(store, queue(store, region=(0, 0, 96, 96)), folder / "trial.tiff")
    (folder / "trial.tiff").unlink()
    again = queue(store, region=(0, 0, 96, 96))
    assert (again.state, again.id != job.id) == (JobState.QUEUED, True)


def test_a_done_job_whose_output_was_removed_can_be_tried_again(store, folder, done):
    (folder / "case" / "a.tiff").unlink()
    again = store.retry(done.id, "person:cli")
    assert (again.id, again.state, again.output, again.verdict, again.reasons, again.metrics) == (
        *(done.id, JobState.QUEUED, None, None, [], {}),
    )
    event = store.events(done.id)[-1]
    assert (event.kind, event.data["output"], event.data["output_sha256"]) == ("retry", done.output, done.output_sha256)
    with pytest.raises(TransitionRefused):
        store.retry(done.id, "person:cli")
    finished = finish(store, again, folder / "case" / "a.tiff")
    assert (finished.state, finished.verdict, finished.progress) == (JobState.DONE, "pass", 1.0)


def test_a_slide_whose_output_was_removed_can_be_run_again_with_the_same_settings(store, folder, done):
    same = {"preset": "paper", "settings": {}, "settings_hash": "s", "origin": "person:page"}
    with pytest.raises(TransitionRefused):
        store.rerun(done.id, **same)
    (folder / "case" / "a.tiff").unlink()
    assert store.rerun(done.id, **same).state is JobState.QUEUED


def test_retry_of_a_done_job_on_the_command_line(store, folder, done, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert app.run(["retry", str(done.id)]) == 2
    assert "its output is" in capsys.readouterr().err
    (folder / "case" / "a.tiff").unlink()
    assert app.run(["retry", str(done.id), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "queued"


def test_an_output_that_was_moved_and_renamed_is_found_by_its_checksum(store, folder, done, tmp_path):
    moved = tmp_path / "archive" / "renamed.tif"
    moved.parent.mkdir()
    (folder / "case" / "a.tiff").rename(moved)
    assert job_of(store, moved).id == done.id
    other = finish(store, queue(store, "other.svs"), folder / "other.tiff")
    shutil.copy(moved, folder / "other.tiff")
    assert job_of(store, folder / "other.tiff").id == done.id, "the content decides, not the name"
    (folder / "other.tiff").write_bytes(b"neither")
    assert job_of(store, folder / "other.tiff").id == other.id
    moved.write_bytes(b"nothing of ours")
    assert job_of(store, moved) is None
