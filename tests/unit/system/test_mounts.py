"""A missing file was removed only if its place is there; mounts are tested in tests/acceptance/test_shares.py."""

import os

import pytest

from wsi_denoise.system import mounts
from wsi_denoise.system.mounts import Place, Places


@pytest.fixture
def inbox(tmp_path):
    folder = tmp_path / "nas" / "inbox"
    (folder / "case").mkdir(parents=True)
    (folder / "case" / "a.svs").write_bytes(b"slide")
    return folder


def test_a_removed_file_leaves_its_place(inbox):
    seen = Places([inbox]).of(inbox / "case" / "a.svs")
    (inbox / "case" / "a.svs").unlink()
    assert Places([inbox]).doubt(inbox / "case" / "a.svs", seen) == ""
    (inbox / "case").rmdir()
    assert Places([inbox]).doubt(inbox / "case" / "a.svs", seen) == "", "also the only one, with its folder"


def test_a_missing_inbox_is_away(inbox):
    seen = Places([inbox]).of(inbox / "case" / "a.svs")
    (inbox.parent).rename(inbox.parent.with_name("away"))
    assert "No such file" in Places([inbox]).doubt(inbox / "case" / "a.svs", seen)


def test_an_empty_folder_in_the_place_of_the_inbox_is_away_and_so_is_one_with_other_files(inbox):
    path = inbox / "case" / "a.svs"
    seen = Places([inbox]).of(path)
    inbox.rename(inbox.with_name("away"))
    inbox.mkdir()
    assert "not the folder" in Places([inbox]).doubt(path, seen)
    (inbox / "b.svs").write_bytes(b"written by a scanner while the share was away")
    assert "not the folder" in Places([inbox]).doubt(path, seen)


def test_a_link_to_another_share_is_away(inbox, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(inbox)
    seen = Places([link]).of(link / "case" / "a.svs")
    assert seen == Places([inbox]).of(inbox / "case" / "a.svs")
    (tmp_path / "other" / "case").mkdir(parents=True)
    link.unlink()
    link.symlink_to(tmp_path / "other")
    assert Places([link]).doubt(link / "case" / "a.svs", seen)
    link.unlink()
    link.symlink_to(tmp_path / "nothing")
    assert Places([link]).doubt(link / "case" / "a.svs", seen)


@pytest.mark.parametrize("recorded", [None, "elsewhere:77:/mnt/nas", "nonsense"])
def test_without_a_record_of_this_machine_only_an_empty_inbox_is_doubted(inbox, recorded):
    path = inbox / "case" / "a.svs"
    path.unlink()
    assert Places([inbox]).doubt(path, recorded) == ""
    (inbox / "case").rmdir()
    assert "empty" in Places([inbox]).doubt(path, recorded)


def test_a_file_outside_the_inboxes_depends_on_its_mount_alone(inbox, tmp_path):
    path = tmp_path / "archive" / "a.svs"
    seen = Places([inbox]).of(path)
    assert Places([inbox]).doubt(path, seen) == ""
    place = Place.parse(seen)
    assert place.inode is None
    away = str(Place(place.host, f"{place.mount.rstrip('/')}/archive", None))
    assert "not mounted" in Places([inbox]).doubt(path, away)


def test_a_share_that_was_mounted_over_the_folder_hides_what_was_in_it(inbox):
    path = inbox / "case" / "a.svs"
    place = Place.parse(Places([inbox]).of(path))
    if place.mount == "/":
        pytest.skip("the temporary folder is not on a mount of its own")
    assert "was not mounted" in Places([inbox]).doubt(path, str(Place(place.host, "/", place.inode)))


def test_without_a_list_of_mounts_the_folders_above_are_asked(inbox, monkeypatch, tmp_path):
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "nothing")
    place = Place.parse(Places([inbox]).of(inbox / "case" / "a.svs"))
    assert os.path.ismount(place.mount)
    assert inbox.is_relative_to(place.mount)


def test_a_place_survives_being_written_down():
    for place in (Place("lab", "/mnt/a:b", 7), Place("lab", "/", None)):
        assert Place.parse(str(place)) == place
