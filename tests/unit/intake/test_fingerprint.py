"""The fingerprint is of the content, whole and unchanged, or it is not given."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from wsi_denoise.errors import NotARegularFile, SlideChanged, SlideVanished
from wsi_denoise.intake import fingerprint as module
from wsi_denoise.intake.fingerprint import Stopped, fingerprint
from wsi_denoise.intake.slide_files import Snapshot, slide_files, snapshot


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def mrxs(folder: Path, name: str) -> Path:
    write(folder / name / "Slidedat.ini", b"[GENERAL]")
    write(folder / name / "deep/Data0000.dat", b"pixels")
    return write(folder / f"{name}.mrxs", b"thumbnail")


def test_one_file_is_what_sha256sum_prints(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 1000)
    path = write(tmp_path / "a.svs", os.urandom(12_345))
    assert fingerprint(path) == subprocess.check_output(["sha256sum", path], text=True).split()[0]


def test_a_file_of_a_dicom_series_alone_is_as_any_file(tmp_path: Path) -> None:
    write(tmp_path / "case/1.dcm", b"one")
    assert fingerprint(tmp_path / "case") == hashlib.sha256(b"one").hexdigest()


def test_several_files_are_what_the_documentation_says(tmp_path: Path) -> None:
    write(tmp_path / "case/2.dcm", b"two")
    write(tmp_path / "case/1.dcm", b"one")
    listed = subprocess.check_output(["sha256sum", "-z", "--", "1.dcm", "2.dcm"], cwd=tmp_path / "case")
    assert fingerprint(tmp_path / "case") == hashlib.sha256(listed).hexdigest()


def test_a_renamed_multi_file_slide_is_the_same_slide(tmp_path: Path) -> None:
    one, other = mrxs(tmp_path, "one"), mrxs(tmp_path, "other")
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize("change", ["content", "name", "file"])
def test_any_part_of_a_multi_file_slide_counts(tmp_path: Path, change: str) -> None:
    path = mrxs(tmp_path, "one")
    before = fingerprint(path)
    if change == "content":
        write(tmp_path / "one/deep/Data0000.dat", b"pixelz")
    elif change == "name":
        (tmp_path / "one/deep/Data0000.dat").rename(tmp_path / "one/deep/Data0001.dat")
    else:
        write(tmp_path / "one/deep/Empty.dat", b"")
    assert fingerprint(path) != before


def test_a_file_that_is_not_as_expected_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.svs", b"1234")
    with pytest.raises(SlideChanged):
        fingerprint(path, expected=Snapshot(3, path.stat().st_mtime_ns))
    assert fingerprint(path, expected=snapshot(slide_files(path)))


@pytest.mark.parametrize("change", ["grow", "touch", "replace", "add", "remove"])
def test_a_slide_that_changes_while_it_is_read_has_no_fingerprint(tmp_path: Path, monkeypatch, change: str) -> None:
    monkeypatch.setattr(module, "CHUNK", 10)
    one = write(tmp_path / "case/1.dcm", b"x" * 100)
    two = write(tmp_path / "case/2.dcm", b"y" * 100)
    pieces = 0

    def in_the_middle() -> bool:
        nonlocal pieces
        pieces += 1
        if pieces == 15:
            if change == "grow":
                with one.open("ab") as file:
                    file.write(b"more")
            elif change == "touch":
                os.utime(one, ns=(1, 1))
                os.utime(two, ns=(2, 2))
            elif change == "replace":
                write(tmp_path / "new", b"z" * 100).replace(two)
                os.utime(two, ns=(3, 3))
                os.utime(one, ns=(3, 3))
            elif change == "add":
                write(tmp_path / "case/3.dcm", b"")
            else:
                two.unlink()
        return True

    with pytest.raises((SlideChanged, SlideVanished)):
        fingerprint(tmp_path / "case", keep_going=in_the_middle)
    assert pieces >= 15


def test_a_slide_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(SlideVanished):
        fingerprint(tmp_path / "a.svs")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_file_swapped_for_a_link_or_a_pipe_is_not_followed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.svs"
    if kind == "link":
        path.symlink_to(write(tmp_path / "secret", b"secret"))
    else:
        os.mkfifo(path)
    with pytest.raises(NotARegularFile):
        fingerprint(path)


def test_reading_can_be_stopped(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        fingerprint(write(tmp_path / "a.svs", b"1234"), keep_going=lambda: False)
