"""What the paths of ``wsi-denoise run`` stand for, and that one of them never ends the others."""

import json
import os
import shutil
from pathlib import Path

import pytest

from wsi_denoise.cli.app import run as command
from wsi_denoise.daemon import foreground
from wsi_denoise.errors import NoSlideInFolder, NoSuchPath, UnsupportedSlide
from wsi_denoise.intake.arguments import slides_of
from wsi_denoise.intake.fingerprint import fingerprint
from wsi_denoise.intake.slide_files import slide_files, strange_part

TIFF = b"II*\0\x08\0\0\0\0\0\0\0\0\0"


def dicom(series: str) -> bytes:
    uid = series.encode()
    uid += b"\0" * (len(uid) % 2)
    return b"\0" * 128 + b"DICM" + b"\x20\0\x0e\0UI" + len(uid).to_bytes(2, "little") + uid


def write(path: Path, content: bytes = TIFF) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def found(path: Path, *exclude: Path) -> list[str]:
    """Paths below `path`, or ``.`` for itself, with the code of the error where there is one."""
    return [
        f"{each.path.relative_to(path)}{f' {each.error.code}' if each.error else ''}"
        for each in slides_of(path, [".*", "*.part"], exclude)
    ]


def store(path: Path) -> Path:
    write(path / ".zgroup", b'{"zarr_format": 2}')
    write(path / ".zattrs", b'{"multiscales": []}')
    write(path / "0" / ".zarray", b"{}")
    write(path / "0" / "0" / "0", b"chunk")
    return path


def test_a_file_stands_for_itself_whatever_it_is(tmp_path):
    assert found(write(tmp_path / "a.svs")) == ["."]
    assert found(write(tmp_path / "a.odd", b"x")) == ["."]


def test_a_folder_stands_for_all_slides_in_it_and_below(tmp_path):
    for name in (
        "b.svs",
        "a.tif",
        "case/c.ndpi",
        "case/notes.txt",
        ".hidden.svs",
        "d.svs.part",
        "m.mrxs",
        "m/Slidedat.ini",
    ):
        write(tmp_path / name, b"text" if name.endswith(".txt") else TIFF)
    store(tmp_path / "case" / "image.ome.zarr")
    store(tmp_path / "case" / "noname")
    write(tmp_path / "series" / "1", dicom("1.2"))
    write(tmp_path / "series" / "2", dicom("1.2"))
    # As a scan: the files of a folder first.
    assert found(tmp_path) == [
        "a.tif",
        "b.svs",
        "m.mrxs",
        "case/c.ndpi",
        "case/image.ome.zarr",
        "case/noname",
        "series",
    ]


@pytest.mark.parametrize("name", ["a.zarr", "a", "a.ome"])
def test_the_folder_of_an_ngff_image_is_one_slide(tmp_path, name):
    path = store(tmp_path / name)
    assert found(path) == ["."]
    assert len(slide_files(path)) == 4
    before = fingerprint(path)
    write(path / "0" / "0" / "0", b"other")
    assert fingerprint(path) != before


def test_an_ngff_image_of_version_5_is_known_without_a_suffix(tmp_path):
    write(tmp_path / "a" / "zarr.json", b'{"zarr_format": 3, "node_type": "group"}')
    write(tmp_path / "a" / "0" / "zarr.json", b'{"zarr_format": 3, "node_type": "array"}')
    assert found(tmp_path / "a") == ["."]
    assert found(tmp_path) == ["a"]


def test_a_zarr_array_by_itself_is_no_slide_of_a_folder(tmp_path):
    write(tmp_path / "in" / "0" / ".zarray", b"{}")
    write(tmp_path / "in" / "1" / "zarr.json", b'{"node_type": "array"}')
    (each,) = slides_of(tmp_path / "in", [], ())
    assert isinstance(each.error, NoSlideInFolder)
    assert "Zarr array" in str(each.error)


def test_a_link_inside_an_ngff_folder_without_a_suffix_is_found(tmp_path):
    path = store(tmp_path / "a")
    (path / "0" / "0" / "1").symlink_to("/etc/hostname")
    assert strange_part(path) == path / "0" / "0" / "1"


@pytest.mark.parametrize("name", ["{}.dcm", "{}.dicom", "0000000{}", "IM_000{}"])
def test_the_folder_of_one_dicom_series_is_one_slide(tmp_path, name):
    for number in (1, 2):
        write(tmp_path / "series" / name.format(number), dicom("1.2"))
    assert found(tmp_path / "series") == ["."]
    write(tmp_path / "series" / name.format(3), dicom("1.3"))
    assert len(found(tmp_path / "series")) == 2
    (tmp_path / "series" / name.format(3)).unlink()
    write(tmp_path / "series" / "a.svs")
    assert found(tmp_path / "series") == ["a.svs", name.format(1)]


def test_folders_of_the_program_are_not_entered(tmp_path):
    write(tmp_path / "a.svs")
    write(tmp_path / "out" / "b.tif")
    assert found(tmp_path, tmp_path / "out") == ["a.svs"]
    assert found(tmp_path / "out", tmp_path / "out") == ["b.tif"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "is empty"),
        ([".hidden"], "intake.ignore"),
        (["a.txt", "b.txt"], "2 other files, such as a.txt: not a slide"),
    ],
)
def test_a_folder_without_a_slide_says_what_is_in_it(tmp_path, names, words):
    (tmp_path / "in").mkdir()
    for name in names:
        write(tmp_path / "in" / name, b"text")
    (each,) = slides_of(tmp_path / "in", [".*"], ())
    assert isinstance(each.error, NoSlideInFolder)
    assert words in str(each.error)


def test_what_is_known_to_be_wrong_in_a_folder_is_listed_with_its_reason(tmp_path):
    write(tmp_path / "a.isyntax", b"x")
    write(tmp_path / "b.svs")
    (tmp_path / "c.svs").symlink_to("/nowhere")
    assert found(tmp_path) == ["a.isyntax unsupported_slide", "b.svs", "c.svs not_a_regular_file"]


@pytest.mark.parametrize("name", ["absent", "absent.svs", "a" * 400, "a\nb"])
def test_a_path_that_does_not_exist_says_so(tmp_path, name):
    (each,) = slides_of(tmp_path / name, [], ())
    assert isinstance(each.error, NoSuchPath)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder, and a cluster that none of the slides here reaches."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(capsys, *arguments):
    code = command([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_every_argument_that_cannot_be_run_is_listed(capsys, here):
    (here / "empty").mkdir()
    write(here / "texts" / "a.txt", b"text")
    code, told = answer(capsys, "run", "absent.svs", "empty", "texts")
    assert code == 2
    assert [job["error_code"] for job in told["jobs"]] == ["no_such_path", "no_slide_in_folder", "no_slide_in_folder"]
    assert [Path(job["slide"]).name for job in told["jobs"]] == ["absent.svs", "empty", "texts"]
    assert {job["state"] for job in told["jobs"]} == {"failed"}
    assert told["total"] == 3
    assert told["error_code"] == "no_such_path"
    assert not (here / "state").exists()


def test_without_a_database_every_argument_is_listed(capsys, here):
    write(here / "a.svs")
    code, told = answer(capsys, "run", "a.svs", "absent.svs", "--database", "sqlite:////proc/none/jobs.sqlite")
    assert code == 1
    assert [Path(job["slide"]).name for job in told["jobs"]] == ["a.svs", "absent.svs"]
    assert told["jobs"][1]["error_code"] == "no_such_path"
    assert told["jobs"][0]["error"]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_one_bad_argument_stops_none_of_the_others(capsys, tmp_path, monkeypatch):
    """Nothing here is a slide that opens; that each of them has its own end is what counts."""
    write(tmp_path / "many" / "a.svs", b"text")
    write(tmp_path / "many" / "b.tif", b"")
    write(tmp_path / "c.svs", b"text")
    (tmp_path / "empty").mkdir()
    submit = foreground._submit

    def submitted(path, *rest):
        if path.name == "a.svs":
            shutil.rmtree(path.parent)
        return submit(path, *rest)

    monkeypatch.setattr(foreground, "_submit", submitted)
    settings = ["--set", "compute.workers=1"]
    code, told = answer(capsys, "run", "many", "absent.svs", "empty", "c.svs", *settings)
    assert code == 1
    listed = [(Path(job["slide"]).name, job["error_code"]) for job in told["jobs"]]
    assert listed == [
        ("a.svs", "slide_vanished"),
        ("b.tif", "slide_vanished"),
        ("absent.svs", "no_such_path"),
        ("empty", "no_slide_in_folder"),
        ("c.svs", "not_a_slide"),
    ]
    assert told["jobs"][4]["id"] == 1
    assert "error_code" not in told


def test_a_mistake_of_the_program_in_one_slide_stops_none_of_the_others(tmp_path):
    def work(path):
        raise (UnsupportedSlide("x") if path.name == "a" else RuntimeError("y"))

    ended = [foreground._attempt(work, tmp_path / name) for name in "ab"]
    assert [each.error_code for each in ended] == ["unsupported_slide", "internal_error"]
    assert os.fspath(tmp_path / "b") == ended[1].slide
