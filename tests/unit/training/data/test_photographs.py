"""Photographs out of Debian's packages: read as the archive is made, and only what is known is taken."""

import hashlib
import io
import tarfile

import pytest

from training.data import photographs


def _package(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    found = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n1"), ("data.tar.xz/", packed.getvalue())):
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        found += header + content + b"\n" * (len(content) % 2)
    return found


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    content = _package({"usr/share/nature/Dune.jpg": b"sand", "usr/share/nature/Other.jpg": b"no"})
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "dunes.deb").write_bytes(content)
    package = photographs.Package(
        "dunes", "pool/dunes.deb", hashlib.sha256(content).hexdigest(), "usr/share", ("nature/Dune.jpg",)
    )
    monkeypatch.setattr(photographs, "PACKAGES", (package,))
    monkeypatch.setattr(photographs, "MIRRORS", (tmp_path.as_uri(),))
    return tmp_path / "pool" / "dunes.deb"


def test_named_pictures_are_taken_and_no_other(mirror, tmp_path):
    folder = tmp_path / "photographs"
    with pytest.raises(FileNotFoundError, match=r"python -m training\.data\.photographs"):
        photographs.files(folder)
    photographs.main(["--out", str(folder)])
    (file,) = photographs.files(folder)
    assert file.read_bytes() == b"sand"
    assert [path.name for path in folder.iterdir()] == ["dunes-nature-Dune.jpg"]
    mirror.unlink()
    photographs.fetch(folder)  # nothing is asked for twice


def test_another_file_than_the_known_one_is_refused(mirror, tmp_path):
    mirror.write_bytes(mirror.read_bytes() + b" ")
    with pytest.raises(OSError, match="dunes could not be had"):
        photographs.fetch(tmp_path / "photographs")
    assert list((tmp_path / "photographs").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"!<arch>\n", b"PK\x03\x04"])
def test_what_is_no_package_is_said(content):
    with pytest.raises(ValueError, match="Debian package"):
        photographs.contents(content)
