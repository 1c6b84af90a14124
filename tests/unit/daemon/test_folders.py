"""Outputs go only into the folder that they went into before: its marker file and the job database agree."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from wsi_denoise.daemon.folders import FolderWatch, MarkedFolder, Missing, StateFolder, output_folder, quarantine_folder
from wsi_denoise.errors import OutputUnwritable
from wsi_denoise.jobs import places
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.settings import load
from wsi_denoise.system.mounts import MARKER, Place, read_marker

KNOWN = {"preset": "paper", "origin": "test"}


@pytest.fixture
def settings(tmp_path):
    return load(folder=tmp_path, environ={}).settings


@pytest.fixture
def nas(tmp_path):
    """A mount point; what an unmount and a mount do to it."""
    folder = tmp_path / "nas"
    folder.mkdir()

    def unmount():
        folder.rename(tmp_path / "away")
        folder.mkdir()

    def mount():
        shutil.rmtree(folder)
        (tmp_path / "away").rename(folder)

    return SimpleNamespace(folder=folder, unmount=unmount, mount=mount)


@pytest.fixture(params=["", "denoised", "deep/denoised"])
def folder(nas, request, store):
    """A named output folder, which is the mount point or below it."""
    return MarkedFolder(nas.folder / request.param, store)


def test_a_named_folder_is_made_once(folder, nas):
    folder.check()
    assert read_marker(folder.path)
    folder.check()
    nas.unmount()
    for _ in range(2):
        with pytest.raises(OutputUnwritable, match="may not be mounted") as refused:
            folder.check()
    assert f"wsi-denoise confirm {folder.path}" in str(refused.value)
    assert list(nas.folder.iterdir()) == [], "nothing is made in the mount point"
    nas.mount()
    folder.check()
    assert [file.name for file in folder.path.iterdir()] == [MARKER]


def test_a_removed_folder_is_made_again_where_that_cannot_be_a_share(nas, store):
    path = nas.folder / "denoised"
    MarkedFolder(path, store).check()
    shutil.rmtree(path)
    with pytest.raises(OutputUnwritable, match="is missing"):
        MarkedFolder(path, store).check()
    MarkedFolder(path, store, missing=Missing.MAKE_BESIDE).check()
    nas.unmount()
    with pytest.raises(OutputUnwritable, match="is missing"):
        MarkedFolder(path, store, missing=Missing.MAKE_BESIDE).check()
    path.mkdir()
    for missing in (Missing.WAIT, Missing.MAKE_BESIDE):
        with pytest.raises(OutputUnwritable, match="has lost its marker"):
            MarkedFolder(path, store, missing=missing).check()


def test_our_own_default_gets_no_marker_and_stays_on_its_mount(nas, store):
    path = nas.folder / "denoised"
    folder = MarkedFolder(path, store, missing=Missing.MAKE)
    folder.check()
    shutil.rmtree(path)
    folder.check()
    assert list(path.iterdir()) == []
    here = places.folder(store, path)
    place = Place.parse(here.place)
    for host in (place.host, "a container of another name"):
        away = replace(here, place=str(Place(host, str(path), None)))
        places.record(store, away, "test", datetime.now(UTC))
        with pytest.raises(OutputUnwritable, match="was on another mount before"):
            folder.check()
    folder.confirm()
    folder.check()


def test_a_default_folder_that_was_named_before_needs_its_marker(nas, store):
    MarkedFolder(nas.folder, store).check()
    nas.unmount()
    with pytest.raises(OutputUnwritable, match="has lost its marker"):
        MarkedFolder(nas.folder, store, missing=Missing.MAKE).check()


def test_a_lost_marker_is_confirmed(folder):
    folder.check()
    (folder.path / MARKER).unlink()
    with pytest.raises(OutputUnwritable, match="has lost its marker"):
        folder.check()
    folder.confirm()
    folder.check()


def test_the_folder_below_a_share_is_another_one_after_the_share_was_confirmed(nas, store):
    # The first start was without the share; later its own folder is the right one.
    folder = MarkedFolder(nas.folder, store)
    folder.check()
    nas.unmount()  # the other way round here: the local folder goes, and the share comes
    folder.confirm()
    shutil.move(nas.folder, nas.folder.with_name("share"))
    nas.folder.with_name("away").rename(nas.folder)
    with pytest.raises(OutputUnwritable, match="marker of another folder"):
        folder.check()


def test_a_folder_of_another_database_is_taken_as_it_is(folder, tmp_path):
    folder.check()
    other = JobStore(f"sqlite:///{tmp_path / 'other.sqlite'}")
    other.upgrade()
    theirs = MarkedFolder(folder.path, other)
    before = read_marker(folder.path)
    theirs.check()
    folder.check()
    (folder.path / MARKER).unlink()
    folder.confirm()
    theirs.confirm()  # each database confirms for itself, and none takes the folder from the other
    folder.check()
    assert read_marker(folder.path) != before
    other.close()


def done(store, output):
    seen = store.see(f"/inbox/{output.name}", output.name, size_bytes=1, mtime_ns=1, **KNOWN)
    store.queue(seen.id, fingerprint=output.name, settings={}, settings_hash="s", **KNOWN)
    daemon = store.register_daemon()
    store.claim(daemon, 60, only=seen.id)
    store.finish(seen.id, daemon, verdict="pass", reasons=[], metrics={}, output=output, output_sha256="0")


def test_outputs_of_a_version_without_markers_are_marked_without_an_alarm(nas, store):
    for name in ("a.tiff", "b.tiff"):
        (nas.folder / name).write_bytes(b"output")
        done(store, nas.folder / name)
    (nas.folder / "b.tiff").unlink()
    MarkedFolder(nas.folder, store).check()
    assert read_marker(nas.folder)


@pytest.mark.parametrize("below", ["", "denoised"])
def test_the_first_start_of_this_version_without_the_share_is_an_alarm(nas, store, below):
    path = nas.folder / below
    path.mkdir(exist_ok=True)
    (path / "a.tiff").write_bytes(b"output")
    done(store, path / "a.tiff")
    nas.unmount()
    with pytest.raises(OutputUnwritable, match="none of the outputs"):
        MarkedFolder(path, store).check()
    assert list(nas.folder.iterdir()) == []
    nas.mount()
    MarkedFolder(path, store).check()


def test_outputs_that_are_moved_away_regularly_are_no_alarm(nas, store):
    done(store, nas.folder / "a.tiff")
    (nas.folder / "case").mkdir()
    MarkedFolder(nas.folder, store).check()


def test_a_new_database_beside_a_marker_that_names_it_is_an_alarm(nas, tmp_path):
    url = f"sqlite:///{tmp_path / 'state' / 'jobs.sqlite'}"

    def opened():
        store = JobStore(url)
        store.upgrade()
        return store

    first = opened()
    MarkedFolder(nas.folder, first, own_database=True).check()
    first.close()
    shutil.rmtree(tmp_path / "state")
    second = opened()
    again = MarkedFolder(nas.folder, second, own_database=True)
    with pytest.raises(OutputUnwritable, match="which is new"):
        again.check()
    again.confirm()
    again.check()
    second.close()


def test_links(nas, store, tmp_path):
    (nas.folder / "denoised").mkdir()
    link = tmp_path / "link"
    link.symlink_to(nas.folder / "denoised")
    folder = MarkedFolder(link, store)
    folder.check()
    nas.unmount()
    with pytest.raises(OutputUnwritable, match="may not be mounted"):
        folder.check()
    assert list(nas.folder.iterdir()) == []
    nas.mount()
    folder.check()
    (tmp_path / "other").mkdir()
    link.unlink()
    link.symlink_to(tmp_path / "other")
    with pytest.raises(OutputUnwritable, match="has lost its marker"):
        folder.check()


def test_settings_decide_what_a_missing_folder_means(tmp_path, store):
    def missing(**overrides):
        loaded = load(folder=tmp_path, environ={}, overrides=overrides)
        found = output_folder(loaded, store, "daemon:1"), output_folder(loaded, store, "x", at_terminal=True)
        return [folder._missing for folder in (*found, quarantine_folder(loaded, store, "daemon:1"))]

    assert missing() == [Missing.MAKE, Missing.MAKE, Missing.MAKE]
    named = missing(**{"output.folder": "out", "intake.quarantine": "bad"})
    assert named == [Missing.WAIT, Missing.MAKE_BESIDE, Missing.WAIT]


def test_an_output_folder_that_was_changed_in_the_settings_is_a_new_one(nas, store):
    MarkedFolder(nas.folder / "one", store).check()
    MarkedFolder(nas.folder / "two", store).check()
    assert len(places.folders(store)) == 2
    nas.unmount()
    with pytest.raises(OutputUnwritable):
        MarkedFolder(nas.folder / "one", store).check()


def test_a_marker_that_was_cut_off_is_written_anew(nas, store):
    (nas.folder / MARKER).write_bytes(b"")
    MarkedFolder(nas.folder, store).check()
    assert read_marker(nas.folder)


def test_a_folder_that_is_back_is_said_and_its_jobs_are_due(folder, nas, store, caplog):
    said, called = [], []
    watch = FolderWatch(folder, store, "daemon:1", say=said.append, on_return=lambda: called.append(1))
    watch.tick()
    assert (said, called) == ([], [])
    nas.unmount()
    caplog.clear()
    for _ in range(3):
        watch.tick()
    assert (len(said), called, len(caplog.records)) == (1, [], 1)
    nas.mount()
    for _ in range(3):
        watch.tick()
    assert (said[1:], called) == ([f"{folder.path} is there again"], [1])


def test_the_quarantine_folder_is_made_when_it_is_needed(nas, store):
    folder = MarkedFolder(nas.folder / "quarantine", store)
    watch = FolderWatch(folder, store, "daemon:1", say=print, for_jobs=False)
    watch.tick()
    assert not folder.path.exists()
    folder.check()
    watch.tick()
    assert read_marker(folder.path)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_state_folder_that_was_removed_is_noticed(tmp_path, replaced):
    path = tmp_path / "state"
    path.mkdir()
    state = StateFolder(path)
    state.check()
    path.rename(tmp_path / "moved")
    if replaced:
        path.mkdir()
    with pytest.raises(OutputUnwritable, match="was replaced" if replaced else "was removed"):
        state.check()
    if replaced:
        path.rmdir()
    (tmp_path / "moved").rename(path)
    state.check()
