"""The quarantine folder: a note, a link, and an original that is never touched."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from wsi_denoise.errors import OutputUnwritable, TruncatedSlide, UnreadableTile
from wsi_denoise.intake.quarantine import Placed, Quarantine

NOON = datetime(2024, 5, 6, 12, 0, tzinfo=UTC)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def quarantine(tmp_path: Path) -> Quarantine:
    return Quarantine(tmp_path / "quarantine")


def write(path: Path, content: bytes = b"pixels") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put(quarantine: Quarantine, slide: Path, inbox: Path, error=None, job_id: int = 7) -> Placed:
    error = error or UnreadableTile("level 0, x 512, y 0")
    return quarantine.put(slide, slide.relative_to(inbox), error, job_id=job_id, time=NOON)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())


# -- note and link


def test_the_note_says_what_happened_what_to_do_and_where_the_original_is(quarantine, inbox) -> None:
    slide = write(inbox / "deep/a.svs")
    placed = put(quarantine, slide, inbox)
    assert placed == Placed(quarantine.folder / "deep/a.svs.txt", quarantine.folder / "deep/a.svs")
    text = placed.note.read_text()
    for part in (
        "A tile of the slide cannot be decoded: level 0, x 512, y 0.",
        UnreadableTile.advice,
        str(slide),
        "unreadable_tile",
        "wsi-denoise retry 7",
        "2024-05-06T12:00:00+00:00",
        "research use only",
        "untouched",
    ):
        assert part in text
    assert placed.link.samefile(slide)
    assert slide.read_bytes() == b"pixels"


def test_doing_it_again_replaces_the_reason_and_leaves_nothing_else(quarantine, inbox) -> None:
    slide = write(inbox / "a.svs")
    put(quarantine, slide, inbox)
    put(quarantine, slide, inbox, TruncatedSlide(), job_id=8)
    assert files(quarantine.folder) == ["a.svs", "a.svs.txt"]
    assert "truncated" in (quarantine.folder / "a.svs.txt").read_text()


def test_release_removes_note_link_and_empty_folders_but_never_the_original(quarantine, inbox) -> None:
    slide = write(inbox / "deep/er/a.svs")
    other = write(inbox / "deep/b.svs")
    put(quarantine, slide, inbox)
    put(quarantine, other, inbox)
    assert quarantine.release(slide, Path("deep/er/a.svs")) is True
    assert files(quarantine.folder) == ["deep/b.svs", "deep/b.svs.txt"]
    assert not (quarantine.folder / "deep/er").exists()
    assert slide.read_bytes() == b"pixels"
    assert quarantine.release(slide, Path("deep/er/a.svs")) is False


def test_release_leaves_what_belongs_to_another_slide(quarantine, inbox) -> None:
    put(quarantine, write(inbox / "a.svs"), inbox)
    assert quarantine.release(inbox.parent / "second/a.svs", Path("a.svs")) is False
    assert files(quarantine.folder) == ["a.svs", "a.svs.txt"]


def test_the_same_name_in_two_inboxes_gives_two_notes(quarantine, inbox, tmp_path) -> None:
    first, second = write(inbox / "a.svs"), write(tmp_path / "second/a.svs")
    one, two = put(quarantine, first, inbox), put(quarantine, second, tmp_path / "second")
    assert one.note != two.note
    assert (one.link.resolve(), two.link.resolve()) == (first, second)
    assert put(quarantine, second, tmp_path / "second").note == two.note
    quarantine.release(second, Path("a.svs"))
    assert files(quarantine.folder) == ["a.svs", "a.svs.txt"]


@pytest.mark.parametrize(
    "name", [b"new\nline.svs", b"latin\xe9.svs", b"a" * 251 + b".svs", "切".encode() * 83 + b".svs", b"\xe9" * 255]
)
def test_any_name_gets_a_note(quarantine, inbox, name: bytes) -> None:
    slide = write(inbox / os.fsdecode(name))
    placed = put(quarantine, slide, inbox)
    assert placed.note.is_file()
    assert placed.link.samefile(slide)
    assert len(placed.note.read_text().splitlines()) == 11, "a line break in a name makes no line in the note"
    assert quarantine.release(slide, slide.relative_to(inbox))
    assert files(quarantine.folder) == []


def test_two_long_names_that_differ_at_the_end_do_not_collide(quarantine, inbox) -> None:
    slides = [write(inbox / ("a" * 250 + end)) for end in ("1.svs", "2.svs")]
    notes = {put(quarantine, slide, inbox).note for slide in slides}
    assert len(notes) == 2


def test_nothing_is_ever_written_through_a_link_into_the_inbox(quarantine, inbox) -> None:
    # A DICOM folder is quarantined, so its link in the quarantine is a way into the inbox.
    write(inbox / "case/1.dcm")
    slide = write(inbox / "case/a.svs")
    assert put(quarantine, inbox / "case", inbox).link == quarantine.folder / "case"
    placed = put(quarantine, slide, inbox)
    assert files(inbox) == ["case/1.dcm", "case/a.svs"]
    assert placed.note.parent == quarantine.folder
    assert quarantine.release(slide, Path("case/a.svs"))
    assert files(quarantine.folder) == ["case", "case.txt"]


def test_a_relative_path_that_climbs_stays_in_the_quarantine(quarantine, inbox, tmp_path) -> None:
    slide = write(tmp_path / "evil.svs")
    placed = quarantine.put(slide, Path("../../evil.svs"), TruncatedSlide(), job_id=1, time=NOON)
    assert placed.note.parent == quarantine.folder


def test_a_file_in_the_way_of_a_folder_or_a_link_is_left(quarantine, inbox) -> None:
    write(quarantine.folder / "deep", b"mine")
    write(quarantine.folder / "b.svs", b"mine")
    put(quarantine, write(inbox / "deep/a.svs"), inbox)
    placed = put(quarantine, write(inbox / "b.svs"), inbox)
    assert placed.link is None
    assert (quarantine.folder / "deep").read_bytes() == (quarantine.folder / "b.svs").read_bytes() == b"mine"


def test_where_it_cannot_be_written_is_said(tmp_path, inbox) -> None:
    write(tmp_path / "file")
    with pytest.raises(OutputUnwritable):
        put(Quarantine(tmp_path / "file"), write(inbox / "a.svs"), inbox)


def test_odd_bytes_in_the_reason_do_not_stop_the_note(quarantine, inbox) -> None:
    placed = put(quarantine, write(inbox / "a.svs"), inbox, TruncatedSlide("b\udce9\x00\n.svs"))
    assert "truncated" in placed.note.read_text()
