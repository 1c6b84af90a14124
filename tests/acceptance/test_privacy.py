"""Marks planted in every corner of a slide, and looked for in all that the program wrote."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from support.listener import listen
from support.slides import tiled_tissue

ACCESSION = "S26-4711-DOE"
MARK = "XMARKX"


@pytest.fixture
def posts():
    with listen() as listener:
        yield listener


def aperio(file: Path, pixels: np.ndarray) -> None:
    """A slide as Aperio writes them, with a label and a macro image and marks in texts and tags."""
    text = (
        f"Aperio Image Library v11.2.1\n{pixels.shape[1]}x{pixels.shape[0]} (256x256) JPEG/RGB Q=70"
        f"|AppMag = 20|MPP = 0.4990|ScanScope ID = {MARK}1|User = {MARK}2|Title = {MARK}3|Filename = {MARK}4"
        f"|Date = 12/29/09|Time = 09:59:15|Patient ID = {MARK}5"
    )
    strings = {
        315: f"{MARK}6",
        316: f"{MARK}7",
        33432: f"{MARK}8",
        269: f"{MARK}9",
        700: f"<x>{MARK}10</x>",
        65000: f"{MARK}11",
    }
    tags = [(tag, 2, len(value) + 1, value, True) for tag, value in strings.items()]
    label = np.full((120, 160, 3), 200, np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    with tifffile.TiffWriter(part) as tiff:
        tiff.write(pixels, photometric="rgb", tile=(256, 256), compression="jpeg", description=text, metadata=None,
                   software=f"{MARK}12", datetime="2009:12:29 09:59:15", extratags=tags)  # fmt: skip
        for kind in ("label", "macro"):
            described = f"Aperio Image Library v11.2.1\n{kind} 160x120 {MARK}13"
            tiff.write(label, photometric="rgb", description=described, metadata=None, subfiletype=1)
    part.rename(file)


def ome(file: Path, pixels: np.ndarray) -> None:
    """An OME-TIFF with names in its XML."""
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Experimenter ID="Experimenter:0" LastName="{MARK}20" Email="{MARK}21"/>'
        f'<Image ID="Image:0" Name="{MARK}22"><AcquisitionDate>2009-12-29T09:59:15</AcquisitionDate>'
        f"<Description>{MARK}23</Description>"
        f'<Pixels ID="Pixels:0" SizeX="{pixels.shape[1]}" SizeY="{pixels.shape[0]}" SizeC="3" SizeZ="1" SizeT="1"'
        ' DimensionOrder="XYCZT" Type="uint8" PhysicalSizeX="0.5" PhysicalSizeY="0.5">'
        '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData/></Pixels></Image></OME>'
    )
    part = file.with_name(f".{file.name}.part")
    tifffile.imwrite(
        part, pixels, photometric="rgb", tile=(256, 256), compression="jpeg", description=text, metadata=None
    )
    part.rename(file)


def dicom(source: Path, folder: Path) -> None:
    """A real DICOM series with names in its attributes."""
    import pydicom  # noqa: PLC0415 - half a second, for this alone

    part = folder.with_name(f".{folder.name}.part")
    part.mkdir(parents=True)
    for file in source.glob("*.dcm"):
        data = pydicom.dcmread(file)
        data.PatientName, data.PatientID, data.AccessionNumber = f"{MARK}30^A", f"{MARK}31", f"{MARK}32"
        data.StudyDescription, data.InstitutionName = f"{MARK}33", f"{MARK}34"
        data.DeviceSerialNumber, data.StudyID = f"{MARK}35", f"{MARK}36"
        data.save_as(part / file.name)
    part.rename(folder)


def everything(folder: Path):
    """Every file below a folder but the inbox, with its bytes; members of archives too."""
    for file in sorted(folder.rglob("*")):
        if not file.is_file() or file.is_symlink() or file.is_relative_to(folder / "inbox"):
            continue
        yield file.relative_to(folder), file.read_bytes()
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                yield from ((Path(f"{file}!{name}"), archive.read(name)) for name in archive.namelist())


def holding(folder: Path, mark: str) -> list[Path]:
    found = []
    for name, content in everything(folder):
        texts = (mark.encode(), mark.encode("utf-16-le"), mark.encode("utf-16-be"))
        if any(text in content for text in texts):
            found.append(name)
    return found


def test_nothing_of_a_label_or_a_property_outside_the_list_is_written_anywhere(workplace, posts, tmp_path, request):
    place = workplace({"notify": {"url": posts.url}, "log": {"names": False, "level": "debug"}})
    aperio(place.inbox / f"{ACCESSION}.svs", tiled_tissue(700, 500, 1))
    ome(place.inbox / f"{ACCESSION}.ome.tif", tiled_tissue(600, 500, 2))
    (place.inbox / f"{ACCESSION}-broken.svs").write_bytes(b"no slide " + MARK.encode())
    (place.inbox / f"{ACCESSION}.txt").write_text(f"a note {MARK}")
    names = [f"{ACCESSION}.svs", f"{ACCESSION}.ome.tif"]
    shared = Path(request.getfixturevalue("shared_or_none") or tmp_path)
    series = shared / "data" / "slides" / "derived" / "CMU-1-Small-Region.dicom"
    if series.is_dir():
        dicom(series, place.inbox / f"{ACCESSION}.dicom")
        names.append(f"{ACCESSION}.dicom")
    place.start()
    jobs = [place.done(name) for name in names]
    place.wait_for(f"{ACCESSION}-broken.svs", "quarantined")
    for job in jobs:
        place.cli("verify", job.output)
    place.cli("jobs", "--json")
    place.stop()

    assert jobs[0].facts["scan_week"] == "2009-W53"
    assert holding(place.folder, MARK) == []
    # The images of label and macro: the output has one picture and its smaller levels.
    for job in jobs:
        with tifffile.TiffFile(job.output) as tiff:
            sizes = [page.shape[:2] for page in tiff.pages]
        width, height = job.width, job.height
        assert sizes[0] == (height, width)
        assert sizes == [(-(-height // 2**level), -(-width // 2**level)) for level in range(len(sizes))]
        # The name itself is in no metadata of the output, only in its name.
        assert ACCESSION.encode() not in Path(job.output).read_bytes()
    # Names are in the database and in the quarantine note. Not in a log that is sent elsewhere, nor in what is posted.
    places = {part.parts[0] for part in holding(place.folder, ACCESSION)}
    assert places <= {".wsi-denoise", "quarantine"}
    assert not [part for part in holding(place.folder, ACCESSION) if "logs" in part.parts]
    assert ACCESSION not in (place.folder / "terminal").read_text()
    assert {message["event"] for message in posts.messages} >= {"done", "quarantined"}
    assert not [body for body in posts.posts if ACCESSION.encode() in body or MARK.encode() in body]


def test_the_search_finds_what_is_there(tmp_path):
    (tmp_path / "a").write_bytes(b"x" + MARK.encode("utf-16-le"))
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", MARK * 100)
    assert len(holding(tmp_path, MARK)) == 2


@pytest.fixture
def shared_or_none(request):
    try:
        return request.getfixturevalue("shared")
    except pytest.skip.Exception:
        return None
