"""Which files of a folder tree are slides, and which belong together."""

import errno
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from wsi_denoise.errors import NotARegularFile, NotASlide, SlideVanished, SourceUnavailable, UnsupportedSlide
from wsi_denoise.intake import files
from wsi_denoise.intake.files import SUFFIXES, Candidate, Kind, slides_under
from wsi_denoise.intake.fingerprint import fingerprint
from wsi_denoise.intake.ignored import SYSTEM_NAMES
from wsi_denoise.intake.slide_files import Snapshot, companions, has_parts, lacks_original, slide_files, snapshot
from wsi_denoise.intake.sniff import DicomHeader, dicom_header, dicom_series, image_format, is_own_output, shown

TIFF = b"II*\0\x08\0\0\0\0\0\0\0\0\0"


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def nobody() -> Callable:
    """Run a block as a user without permission to read everything. The container's user is often root, which has it."""

    @contextmanager
    def as_nobody() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return as_nobody


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user can reach; pytest's own cannot be."""
    folder = Path(tempfile.mkdtemp(prefix="wsi-denoise-"))
    folder.chmod(0o755)
    yield folder
    for inner in folder.rglob("*"):
        if inner.is_dir() and not inner.is_symlink():
            inner.chmod(0o755)
    shutil.rmtree(folder)


def write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def scan(inbox: Path, *ignore: str, exclude: tuple[Path, ...] = ()) -> dict[str, Candidate]:
    found = list(slides_under(inbox, ignore, exclude=exclude))
    names = [str(candidate.relative) for candidate in found]
    assert len(names) == len(set(names)), "an entry is reported once"
    return {str(candidate.relative): candidate for candidate in found}


SYSTEM = [
    *("#recycle", "@Recycle", "@recycle", "$RECYCLE.BIN", "$Recycle.Bin", "#snapshot", "~snapshot", "@eaDir", "@EADIR"),
    *("System Volume Information", "lost+found", ".snapshot", ".snapshots", ".zfs", ".Trash-1000", ".Trashes", ".sync"),
    *(".stversions", "@Recently-Snapshot", ".AppleDouble", ".fseventsd", ".~tmp~", "@GMT-2026.01.01-00.00.00", "@tmp"),
    *(".@__thumb", ".rsync-partial", "Network Trash Folder", ".TemporaryItems", ".Recycle.Bin", ".dropbox.cache"),
]
TRANSFERS = [
    *("a.svs.filepart", "a.svs.FILEPART", "a.svs.part", "a.svs.lftp", "a.svs.partial", "a.svs.1a2b3c4d.partial"),
    *(".a.svs.Ab3xQ9", "~syncthing~a.svs.tmp", ".syncthing.a.svs.tmp", ".a.svs.~1a2b3c4d", "a.svs.crdownload"),
    *("a.svs.aspera-ckpt", "a.svs.aspx", ".in.a.svs", ".pureftpd-upload.5a1b.15.2f.svs", "a.svs.aria2", "a.svs.!sync"),
    *(
        "._a.svs",
        ".nfs0000000012ab34cd00000001",
        ".fuse_hidden0000001200000001",
        ".smbdeleteAAA1",
        "~$a.svs",
        "a.svs.TMP",
    ),
]


@pytest.mark.parametrize("ignore", [(), ("*.bak",)], ids=["no patterns", "own patterns"])
def test_names_of_systems_and_transfer_tools_are_no_slides(inbox, ignore):
    """A lab that sets ``intake.ignore`` keeps these."""
    for name in SYSTEM:
        write(inbox / name / "deep" / "a.tiff", TIFF)
        write(inbox / "folder" / name / "a.svs")
    for name in TRANSFERS:
        write(inbox / name, TIFF)
    write(inbox / "folder" / "a.svs")
    assert list(scan(inbox, *ignore)) == ["folder/a.svs"]


def test_names_that_only_look_like_those_of_systems_are_slides(inbox):
    names = ["recycle/a.svs", "snapshot 1/a.svs", "lost and found.svs", "part.svs", "a.part.svs", "#1.svs", "@home.svs"]
    names += [
        "~a.svs",
        "$1.svs",
        "tmp/a.svs",
        "Information/a.svs",
        "a.filepart.svs",
        "sync.svs",
        "trash.svs",
        "in.a.svs",
    ]
    for name in names:
        write(inbox / name)
    assert sorted(slides(inbox)) == sorted(names)


def test_the_system_names_can_be_switched_off(inbox):
    write(inbox / "#recycle" / "a.svs")
    found = slides_under(inbox, [".*"], ignore_system=False)
    assert [str(candidate.relative) for candidate in found] == ["#recycle/a.svs"]


def test_the_documentation_lists_the_system_names():
    text = (Path(__file__).parents[3] / "docs" / "it" / "inbox.md").read_text("utf-8")
    for origin, names in SYSTEM_NAMES.items():
        assert f"| {origin} | {' '.join(f'`{name}`' for name in names)} |" in text


def slides(inbox: Path, *ignore: str) -> list[str]:
    return [name for name, candidate in scan(inbox, *ignore).items() if candidate.kind is Kind.SLIDE]


def dicom(path: Path, series: str, *, nested: bool = False, syntax: str = "1.2.840.10008.1.2.1") -> Path:
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
    dataset.SOPInstanceUID = "1.2.3.4"
    if nested:
        inner, reference = Dataset(), Dataset()
        reference.SeriesInstanceUID = "9.9.9"
        inner.ReferencedSeriesSequence = [reference]
        dataset.ReferencedStudySequence = [inner]
        for outer, keyword in ((dataset, "ReferencedStudySequence"), (inner, "ReferencedSeriesSequence")):
            outer[keyword].is_undefined_length = True
            outer[keyword].value[0].is_undefined_length_sequence_item = True
    dataset.StudyInstanceUID = "1.2.3"
    dataset.SeriesInstanceUID = series
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


# -- what is found


def test_slides_are_found_at_any_depth_in_a_fixed_order(inbox: Path) -> None:
    deep = Path(*"abcdefghij")
    for name in ("z.svs", "B.TIFF", "m.ome.tif", deep / "y.ndpi", "a/x.svs"):
        write(inbox / name)
    assert slides(inbox) == ["B.TIFF", "m.ome.tif", "z.svs", "a/x.svs", str(deep / "y.ndpi")]


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix not in {".zarr", ".dcm", ".dicom"}])
def test_every_suffix_is_taken_whatever_its_case(inbox: Path, suffix: str) -> None:
    write(inbox / f"a{suffix}")
    write(inbox / f"b{suffix.upper()}")
    assert slides(inbox) == [f"a{suffix}", f"b{suffix.upper()}"]


def test_a_tree_deeper_than_the_recursion_limit_is_scanned(inbox: Path) -> None:
    folder = inbox
    for _ in range(1500):
        folder /= "d"
        folder.mkdir()
    (folder / "a.svs").touch()
    found = slides(inbox)
    (folder / "a.svs").unlink()
    while folder != inbox:  # what cleans up after the tests would recurse
        folder.rmdir()
        folder = folder.parent
    assert len(found) == 1


def test_snapshot_is_size_and_time_of_change(inbox: Path) -> None:
    path = write(inbox / "a.svs", b"12345")
    os.utime(path, ns=(0, 123_456_789))
    assert scan(inbox)["a.svs"].snapshot == Snapshot(5, 123_456_789)
    assert slide_files(path) == (path,)


def test_a_zero_byte_file_is_a_slide_whose_content_is_still_to_come(inbox: Path) -> None:
    write(inbox / "a.svs", b"")
    assert scan(inbox)["a.svs"].kind is Kind.SLIDE


def test_hidden_and_partial_names_are_ignored_by_pattern_folders_too(inbox: Path) -> None:
    for name in (".a.svs.Xy12", "b.svs.part", "c.tmp", ".hidden/d.svs", "incoming.tmp/e.svs", "f.svs"):
        write(inbox / name)
    assert list(scan(inbox, ".*", "*.part", "*.tmp")) == ["f.svs"]


def test_other_files_are_reported_with_the_reason(inbox: Path) -> None:
    write(inbox / "notes.txt")
    candidate = scan(inbox)["notes.txt"]
    assert candidate.kind is Kind.OTHER
    assert "not a slide by its name" in candidate.reason


@pytest.mark.parametrize(
    ("head", "format_"),
    [
        (b"II*\0", "TIFF"),
        (b"MM\0+", "TIFF"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
    ],
)
def test_an_image_under_another_name_is_said_to_be_one(inbox: Path, head: bytes, format_: str) -> None:
    write(inbox / "slide.svs.A1b2C3d4", head + bytes(200))
    candidate = scan(inbox)["slide.svs.A1b2C3d4"]
    assert candidate.kind is Kind.SLIDE
    assert isinstance(candidate.problem, NotASlide)
    assert format_ in str(candidate.problem)


def test_a_slide_of_a_format_that_nothing_here_reads_is_refused_and_not_ignored(inbox: Path) -> None:
    write(inbox / "a.lif")
    assert isinstance(scan(inbox)["a.lif"].problem, UnsupportedSlide)


def test_whether_a_czi_can_be_read_is_for_the_reader_to_say(inbox: Path) -> None:
    write(inbox / "a.czi", b"ZISRAWFILE" + bytes(600))
    assert scan(inbox)["a.czi"].problem is None


def test_a_dicom_directory_file_is_no_slide(inbox: Path) -> None:
    write(inbox / "DICOMDIR", bytes(128) + b"DICM")
    assert scan(inbox)["DICOMDIR"].kind is Kind.OTHER


# -- what is not a regular file


def test_links_out_of_the_inbox_are_refused(inbox: Path, tmp_path: Path) -> None:
    write(tmp_path / "outside.svs")
    write(tmp_path / "archive/b.svs")
    (inbox / "a.svs").symlink_to(tmp_path / "outside.svs")
    (inbox / "archive").symlink_to(tmp_path / "archive")
    (inbox / "c.svs").symlink_to("../inbox/../outside.svs")
    found = scan(inbox)
    assert set(found) == {"a.svs", "archive", "c.svs"}
    assert all(isinstance(candidate.problem, NotARegularFile) for candidate in found.values())


def test_a_link_out_of_an_inbox_with_a_similar_name_is_not_inside(inbox: Path, tmp_path: Path) -> None:
    target = write(tmp_path / "inbox2" / "a.svs")
    (inbox / "a.svs").symlink_to(target)
    assert isinstance(scan(inbox)["a.svs"].problem, NotARegularFile)


def test_links_inside_the_inbox_are_not_a_second_slide_and_loops_end(inbox: Path) -> None:
    write(inbox / "a/real.svs")
    (inbox / "link.svs").symlink_to("a/real.svs")
    (inbox / "a/loop").symlink_to("..")
    (inbox / "self").symlink_to("self")
    found = scan(inbox)
    assert slides(inbox) == ["self", "a/real.svs"]
    assert found["link.svs"].kind is Kind.OTHER
    assert found["a/loop"].kind is Kind.OTHER
    assert isinstance(found["self"].problem, NotARegularFile)


def test_an_inbox_that_is_itself_a_link_is_scanned(inbox: Path, tmp_path: Path) -> None:
    write(inbox / "a.svs")
    (tmp_path / "link").symlink_to(inbox)
    assert slides(tmp_path / "link") == ["a.svs"]


def test_pipes_sockets_and_dangling_links_are_refused_without_blocking(inbox: Path, monkeypatch) -> None:
    os.mkfifo(inbox / "pipe.svs")
    (inbox / "dangling.svs").symlink_to(inbox / "nothing")
    monkeypatch.chdir(inbox)  # socket names are short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.svs")
    found = scan(inbox)
    assert set(found) == {"pipe.svs", "dangling.svs", "socket.svs"}
    assert all(isinstance(candidate.problem, NotARegularFile) for candidate in found.values())
    assert "pipe" in str(found["pipe.svs"].problem)


@pytest.mark.timeout(20)
def test_a_pipe_is_never_opened_even_when_it_replaces_a_file(inbox: Path) -> None:
    os.mkfifo(inbox / "pipe.svs")
    with pytest.raises(OSError, match="not a regular file"):
        image_format(inbox / "pipe.svs")


# -- names


@pytest.mark.parametrize(
    "name",
    [
        b"new\nline.svs",
        b"latin\xe9.svs",
        b"tab\t\x1b[31m.svs",
        b"a" * 251 + b".svs",
        " ö 切片 .svs".encode(),
        b"-rf.svs",
    ],
)
def test_any_name_survives(inbox: Path, name: bytes) -> None:
    path = inbox / os.fsdecode(name)
    path.write_bytes(b"x")
    (candidate,) = slides_under(inbox, ())
    assert os.fsencode(candidate.path.name) == name
    assert slide_files(candidate.path) == (path,)
    assert shown(candidate.path).isprintable()
    shown(candidate.path).encode()


# -- folders that are not entered


def test_excluded_folders_are_not_entered(inbox: Path) -> None:
    write(inbox / "quarantine/a.svs")
    write(inbox / "b.svs")
    assert list(scan(inbox, exclude=(inbox / "quarantine",))) == ["b.svs"]


def test_an_inbox_that_is_gone_is_not_an_empty_one(inbox: Path) -> None:
    inbox.rmdir()
    with pytest.raises(SourceUnavailable):
        scan(inbox)


def test_an_unreadable_folder_is_reported_and_the_scan_goes_on(open_folder: Path, nobody: Callable) -> None:
    write(open_folder / "a/hidden.svs")
    write(open_folder / "b/seen.svs")
    (open_folder / "a").chmod(0)
    with nobody():
        found = scan(open_folder)
    assert found["a"].kind is Kind.UNREADABLE
    assert isinstance(found["a"].problem, SourceUnavailable)
    assert found["b/seen.svs"].kind is Kind.SLIDE


def test_a_file_that_may_not_be_read_is_still_a_slide(open_folder: Path, nobody: Callable) -> None:
    write(open_folder / "a.svs").chmod(0)
    with nobody():
        assert slides(open_folder) == ["a.svs"]


# -- slides of several files


def mrxs(inbox: Path, name: str = "s") -> Path:
    for inner in ("Slidedat.ini", "Index.dat", "Data0000.dat", "deep/Data0001.dat"):
        write(inbox / name / inner, b"12")
    return write(inbox / f"{name}.mrxs", b"345")


def test_mrxs_and_its_folder_are_one_slide(inbox: Path) -> None:
    path = mrxs(inbox)
    write(inbox / "s/preview.jpg", b"6")
    assert list(scan(inbox)) == ["s.mrxs"]
    assert len(slide_files(path)) == 6
    assert scan(inbox)["s.mrxs"].snapshot.size_bytes == 3 + 4 * 2 + 1


def test_mrxs_folder_that_arrives_first_is_no_slide_of_its_own(inbox: Path) -> None:
    mrxs(inbox).unlink()
    found = scan(inbox)
    assert list(found) == ["s"]
    assert found["s"].kind is Kind.OTHER


def test_mrxs_file_that_arrives_first_is_there_and_grows_with_its_folder(inbox: Path) -> None:
    path = mrxs(inbox)
    shutil.move(inbox / "s", inbox.parent / "elsewhere")
    assert scan(inbox)["s.mrxs"].snapshot.size_bytes == 3
    shutil.move(inbox.parent / "elsewhere", inbox / "s")
    assert scan(inbox)["s.mrxs"].snapshot.size_bytes == 11
    newest = path.stat().st_mtime_ns + 10**9
    os.utime(inbox / "s/deep/Data0001.dat", ns=(newest, newest))
    assert scan(inbox)["s.mrxs"].snapshot.mtime_ns == newest


@pytest.mark.parametrize("inside", [True, False])
def test_a_slide_whose_folder_or_file_is_a_link_is_refused(inbox: Path, tmp_path: Path, inside: bool) -> None:
    elsewhere = (inbox if inside else tmp_path) / "elsewhere"
    write(elsewhere / "s/Slidedat.ini")
    write(elsewhere / "a.jpg")
    dicom(elsewhere / "2.dcm", "1.2.3.4.5")
    write(inbox / "b.mrxs")
    (inbox / "b").symlink_to(elsewhere / "s")
    write(inbox / "v.vms", b"ImageFile=v.jpg\n")
    (inbox / "v.jpg").symlink_to(elsewhere / "a.jpg")
    dicom(inbox / "case/1.dcm", "1.2.3.4.5")
    (inbox / "case/2.dcm").symlink_to(elsewhere / "2.dcm")
    found = scan(inbox)
    for name, part in (("b.mrxs", "/b,"), ("v.vms", "/v.jpg,"), ("case", "/2.dcm,")):
        assert isinstance(found[name].problem, NotARegularFile)
        assert part in str(found[name].problem)
    assert "b" not in found
    with pytest.raises(NotARegularFile, match=r"/b,"):
        fingerprint(inbox / "b.mrxs")


def test_mrxs_with_a_link_among_its_files_is_refused(inbox: Path, tmp_path: Path) -> None:
    path = mrxs(inbox)
    (inbox / "s/deep/Data0002.dat").symlink_to(write(tmp_path / "secret"))
    assert isinstance(scan(inbox)["s.mrxs"].problem, NotARegularFile)
    assert len(slide_files(path)) == 5


def test_a_stray_slidedat_does_not_hide_slides(inbox: Path) -> None:
    write(inbox / "a/Slidedat.ini")
    write(inbox / "a/b.svs")
    write(inbox / "Slidedat.ini")
    write(inbox / "c.svs")
    assert slides(inbox) == ["c.svs", "a/b.svs"]


def test_vms_names_its_pictures_and_they_are_no_slides(inbox: Path, tmp_path: Path) -> None:
    write(tmp_path / "secret.jpg")
    key = b"[Virtual Microscope Specimen]\r\nImageFile=a.jpg\r\nImageFile(1,0)=b (1,0).jpg\r\nMapFile=map.jpg\r\n"
    key += b"MacroImage=../secret.jpg\r\nOptimisationFile=a.opt\r\nImageFile(9,9)=notyet.jpg\r\n"
    path = write(inbox / "s.vms", key)
    for name in ("a.jpg", "b (1,0).jpg", "map.jpg", "a.opt", "other.jpg"):
        write(inbox / name)
    assert slides(inbox) == ["other.jpg", "s.vms"]
    assert {file.name for file in slide_files(path)} == {"s.vms", "a.jpg", "b (1,0).jpg", "map.jpg", "a.opt"}


@pytest.mark.parametrize("locked", ["m", "m/deep"])
def test_a_mirax_folder_that_may_not_be_listed_hides_no_other_slide(
    open_folder: Path, nobody: Callable, locked: str
) -> None:
    mrxs(open_folder, "m")
    for name in ("a.svs", "z.svs", "sub/b.svs"):
        write(open_folder / name)
    (open_folder / locked).chmod(0)
    with nobody():
        found = scan(open_folder)
    assert set(found) == {"a.svs", "m.mrxs", "z.svs", "sub/b.svs"}
    assert found["m.mrxs"].kind is Kind.UNREADABLE
    assert isinstance(found["m.mrxs"].problem, SourceUnavailable)
    assert {found[name].kind for name in found if name != "m.mrxs"} == {Kind.SLIDE}


@pytest.mark.parametrize("suffix", [".vms", ".vmu"])
def test_a_key_file_that_may_not_be_read_hides_no_other_slide_and_its_pictures_are_none(
    open_folder: Path, nobody: Callable, suffix: str
) -> None:
    write(open_folder / f"s{suffix}", b"ImageFile=s.jpg\r\nMapFile=s_map2.jpg\r\n").chmod(0)
    for name in ("a.svs", "s.jpg", "s_map2.JPG", "s.svs", "other.jpg", "sub/b.svs"):
        write(open_folder / name)
    with nobody():
        found = scan(open_folder)
    assert found.pop(f"s{suffix}").kind is Kind.UNREADABLE
    assert set(found) == {"a.svs", "s.svs", "other.jpg", "sub/b.svs"}
    assert {candidate.kind for candidate in found.values()} == {Kind.SLIDE}


def test_a_key_file_that_fails_once_is_reported_once(inbox: Path, monkeypatch) -> None:
    write(inbox / "s.vms", b"ImageFile=s.jpg\r\n")
    write(inbox / "s.jpg")
    calls = []

    def fails_once(path: Path) -> list[Path]:
        calls.append(path)
        if len(calls) == 1:
            raise OSError(errno.EIO, "Input/output error")
        return companions(path)

    monkeypatch.setattr(files, "companions", fails_once)
    assert {name: candidate.kind for name, candidate in scan(inbox).items()} == {"s.vms": Kind.UNREADABLE}
    assert slides(inbox) == ["s.vms"]


def test_vms_with_garbage_inside_is_one_file(inbox: Path) -> None:
    path = write(inbox / "s.vms", os.urandom(5000) + b"\nImageFile=s.vms\nImageFile=.\nImageFile=\n")
    assert slide_files(path) == (path,)


def test_a_dicom_series_is_one_slide_and_grows(inbox: Path) -> None:
    dicom(inbox / "case/2.dcm", "1.5")
    first = scan(inbox)
    dicom(inbox / "case/1.dcm", "1.5")
    write(inbox / "case/3.dcm", b"")
    write(inbox / "case/._1.dcm")
    second = scan(inbox, ".*")
    assert list(first) == list(second) == ["case"]
    assert second["case"].snapshot.size_bytes == 2 * first["case"].snapshot.size_bytes
    assert [file.name for file in slide_files(inbox / "case")] == ["1.dcm", "2.dcm", "3.dcm"]


@pytest.mark.parametrize(
    "names", [("00000001", "00000002"), ("IM_0001", "I2"), ("1.2.840.5", "1.2.840.6"), ("1.dicom", "2")]
)
def test_a_dicom_series_without_suffixes_is_one_slide_and_grows(inbox: Path, names: tuple[str, str]) -> None:
    dicom(inbox / "case" / names[0], "1.5")
    first = scan(inbox)
    before = fingerprint(inbox / "case")
    dicom(inbox / "case" / names[1], "1.5")
    write(inbox / "case/DICOMDIR", bytes(128) + b"DICM")
    write(inbox / "case/README", b"not an image")
    second = scan(inbox)
    assert [name for name, each in second.items() if each.kind is Kind.SLIDE] == list(first) == ["case"]
    assert second["case"].problem is None
    assert second["case"].snapshot.size_bytes == 2 * first["case"].snapshot.size_bytes
    assert {file.name for file in slide_files(inbox / "case")} == set(names)
    assert {file.name for file in slide_files(inbox / "case" / names[1])} == set(names)
    assert has_parts(inbox / "case" / names[0])
    assert fingerprint(inbox / "case") != before


def test_what_a_copier_has_not_finished_is_no_part_of_a_dicom_series(inbox: Path) -> None:
    dicom(inbox / "case/1", "1.5")
    for name in (".2", "2.part", "2.dcm.filepart"):
        dicom(inbox / "case" / name, "1.5")
    assert slide_files(inbox / "case") == (inbox / "case/1",)


def test_series_without_suffixes_in_one_folder_and_in_the_inbox_are_told_apart(inbox: Path) -> None:
    for name, series in (("case/1", "1.5"), ("case/2", "1.6"), ("case/3", "1.5"), ("4", "1.7"), ("5", "1.7")):
        dicom(inbox / name, series)
    assert slides(inbox) == ["4", "case/1", "case/2"]
    assert [file.name for file in slide_files(inbox / "case/1")] == ["1", "3"]


def test_a_dicom_file_without_suffix_that_is_a_link_is_refused_and_another_link_is_not_a_part(
    inbox: Path, tmp_path: Path
) -> None:
    dicom(inbox / "case/1", "1.5")
    (inbox / "case/README").symlink_to(write(tmp_path / "notes"))
    assert scan(inbox)["case"].problem is None
    (inbox / "case/2").symlink_to(dicom(tmp_path / "2", "1.5"))
    assert isinstance(scan(inbox)["case"].problem, NotARegularFile)


def test_a_file_that_may_not_be_read_does_not_hide_a_dicom_series(open_folder: Path, nobody: Callable) -> None:
    dicom(open_folder / "case/1", "1.5")
    write(open_folder / "case/2").chmod(0)
    with nobody():
        assert slide_files(open_folder / "case") == (open_folder / "case/1",)


def test_several_series_in_a_folder_are_several_slides(inbox: Path) -> None:
    for name, series in (("1", "1.5"), ("2", "1.6"), ("3", "1.5")):
        dicom(inbox / f"case/{name}.dcm", series)
    assert slides(inbox) == ["case/1.dcm", "case/2.dcm"]
    assert [file.name for file in slide_files(inbox / "case/1.dcm")] == ["1.dcm", "3.dcm"]
    assert [file.name for file in slide_files(inbox / "case/2.dcm")] == ["2.dcm"]


def test_the_inbox_itself_is_never_one_slide(inbox: Path) -> None:
    dicom(inbox / "1.dcm", "1.5")
    dicom(inbox / "2.dcm", "1.5")
    write(inbox / "a.svs")
    assert slides(inbox) == ["a.svs", "1.dcm"]


def test_other_slides_beside_a_dicom_series_are_slides(inbox: Path) -> None:
    dicom(inbox / "case/1.dcm", "1.5")
    write(inbox / "case/a.svs")
    assert slides(inbox) == ["case/a.svs", "case"]


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.50"])
@pytest.mark.parametrize("nested", [False, True])
def test_the_series_of_a_file_is_its_own_and_not_one_it_refers_to(tmp_path: Path, nested: bool, syntax: str) -> None:
    assert dicom_series(dicom(tmp_path / "a.dcm", "1.2.3.45", nested=nested, syntax=syntax)) == "1.2.3.45"


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"])
def test_whether_a_series_lacks_its_full_resolution_is_read_from_its_files(tmp_path: Path, syntax: str) -> None:
    def add(name: str, *words: str) -> bool:
        path = dicom(tmp_path / "case" / name, "1.5", nested=True, syntax=syntax)
        if words:
            data = dcmread(path)
            data.ImageType = list(words)
            data.save_as(path)
            assert dicom_header(path) == DicomHeader("1.5", words)
        return lacks_original(tmp_path / "case")

    assert not add("0.dcm")
    assert not add("1.dcm", "ORIGINAL", "PRIMARY", "LABEL", "NONE")
    assert add("2.dcm", "DERIVED", "PRIMARY", "VOLUME", "RESAMPLED")
    assert lacks_original(tmp_path / "case/2.dcm")
    assert not add("3.dcm", "DERIVED", "PRIMARY", "VOLUME")
    (tmp_path / "case/3.dcm").unlink()
    assert not add("4.dcm", "ORIGINAL", "PRIMARY", "VOLUME", "NONE")
    assert not lacks_original(write(tmp_path / "a.svs"))


def test_a_zarr_folder_is_one_slide(inbox: Path) -> None:
    write(inbox / "s.ome.zarr/0/0/0.0", b"12")
    write(inbox / "s.ome.zarr/.zattrs", b"3")
    assert list(scan(inbox, ".*")) == ["s.ome.zarr"]
    assert scan(inbox)["s.ome.zarr"].snapshot.size_bytes == 3


@pytest.mark.parametrize("name", ["a.svs", "a.dcm", "a.mrxs", "a.vms", "folder"])
def test_the_files_of_a_slide_that_is_gone(inbox: Path, name: str) -> None:
    with pytest.raises(SlideVanished):
        slide_files(inbox / name)
    with pytest.raises(SlideVanished):
        snapshot([inbox / name])


def test_an_empty_folder_has_no_slide_left(inbox: Path) -> None:
    (inbox / "case").mkdir()
    with pytest.raises(SlideVanished):
        slide_files(inbox / "case")


# -- outputs of this program


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_own_outputs_are_recognised(inbox: Path, bigtiff: bool, byteorder: str) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    for name, text in (("own.tif", "wsi-denoise 1.0\nmodel=x"), ("foreign.tif", "Aperio wsi-denoise 1.0")):
        with tifffile.TiffWriter(inbox / name, bigtiff=bigtiff, byteorder=byteorder) as tiff:
            tiff.write(pixels, description=text, metadata=None)
            tiff.write(pixels, description="wsi-denoise second page", metadata=None)
    found = scan(inbox)
    assert found["own.tif"].kind is Kind.OUTPUT
    assert found["foreign.tif"].kind is Kind.SLIDE


def test_a_foreign_file_that_becomes_an_output_is_looked_at_again(inbox: Path) -> None:
    write(inbox / "a.tif", TIFF)
    assert scan(inbox)["a.tif"].kind is Kind.SLIDE
    tifffile.imwrite(inbox / "a.tif", np.zeros((4, 4), np.uint8), description="wsi-denoise 1", metadata=None)
    assert scan(inbox)["a.tif"].kind is Kind.OUTPUT


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0", b""]),
    st.binary(max_size=300),
)
def test_garbage_in_a_header_says_nothing_and_never_raises(head: bytes, rest: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".tif") as file:
        file.write(head + rest)
        file.flush()
        assert is_own_output(Path(file.name)) is False
        image_format(Path(file.name))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_garbage_in_a_dicom_header_never_raises(rest: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        file.write(bytes(128) + b"DICM" + rest)
        file.flush()
        dicom_series(Path(file.name))


@pytest.mark.parametrize("offset", [0, 4, 2**31, 2**32 - 1])
def test_a_first_directory_anywhere_is_bounded(tmp_path: Path, offset: int) -> None:
    path = write(tmp_path / "a.tif", struct.pack("<2sHI", b"II", 42, offset) + b"\xff" * 200)
    assert is_own_output(path) is False


@pytest.mark.parametrize("offset", [2**62, 2**63 - 1, 2**64 - 1])
def test_a_first_directory_beyond_every_file_is_bounded(tmp_path: Path, offset: int) -> None:
    path = write(tmp_path / "a.tif", struct.pack("<2sHHHQ", b"II", 43, 8, 0, offset) + b"\xff" * 200)
    assert is_own_output(path) is False


def test_real_slides_are_all_found_and_none_is_an_output(shared: Path) -> None:
    found = scan(shared / "data" / "slides", ".*")
    assert {candidate.kind for candidate in found.values()} == {Kind.SLIDE}
    assert all(candidate.problem is None for candidate in found.values())
    assert {"camelyon-jpeg.dicom", "derived/CMU-1-Small-Region.dicom", "negative/broken.svs"} <= set(found)
    assert len(slide_files(shared / "data/slides/derived/CMU-1-Small-Region.dicom")) == 8


@pytest.mark.parametrize("metadata", [".zgroup", ".zattrs", "zarr.json"])
def test_an_ngff_folder_without_suffix_is_one_slide_even_if_its_metadata_is_ignored(inbox: Path, metadata: str) -> None:
    write(inbox / "case/image/0/0/0/0", b"12")
    write(inbox / "case/image" / metadata, b'{"node_type": "group"}')
    assert list(scan(inbox, ".*")) == ["case/image"]
    assert scan(inbox, ".*")["case/image"].snapshot.size_bytes == 24


def test_a_zarr_array_whose_group_has_not_arrived_is_no_slide_yet(inbox: Path) -> None:
    write(inbox / "image/0/.zarray", b"{}")
    write(inbox / "image/0/0/0", b"12")
    (found,) = scan(inbox).values()
    assert (found.kind, found.path) == (Kind.OTHER, inbox / "image/0")
    write(inbox / "image/.zattrs", b"{}")
    assert list(scan(inbox)) == ["image"]


@pytest.mark.parametrize("name", ["a.zarr.zip", "A.OME.ZARR.ZIP", "a.ozx"])
def test_a_zipped_store_is_not_passed_over(inbox: Path, name: str) -> None:
    write(inbox / name, b"PK")
    (found,) = scan(inbox).values()
    assert isinstance(found.problem, UnsupportedSlide)
    assert "unpack it" in str(found.problem)
