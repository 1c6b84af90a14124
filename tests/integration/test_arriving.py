"""Slides of several files that are watched while they are copied: a real watcher, the real reader, real files.

Only the clock is the test's own.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsi_denoise.errors import SlideError, SourceError, WsiDenoiseError
from wsi_denoise.intake.report import Report
from wsi_denoise.intake.watcher import Watcher
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import Job, JobQuery
from wsi_denoise.settings import load
from wsi_denoise.slide import reader

SETTLE, GRACE = 10, 100


def opened(path: Path) -> WsiDenoiseError | None:
    """Open a slide as a worker does."""
    try:
        reader.probe(path)
    except (SlideError, SourceError) as error:
        return error
    return None


class Lab:
    def __init__(self, folder: Path) -> None:
        self.inbox, self.quarantine = folder / "inbox", folder / "quarantine"
        self.inbox.mkdir()
        overrides = {
            "intake.settle_seconds": SETTLE,
            "intake.grace_seconds": GRACE,
            "intake.events": False,
        }
        settings = load(folder=folder, environ={}, overrides=overrides).settings
        self.store = JobStore(settings.database_url)
        self.store.upgrade()
        self.during: Callable[[], None] = lambda: None
        self.watcher = Watcher(settings, self.store, probe=self.probe, origin="daemon:1")
        self.now = 1000.0

    def probe(self, path: Path) -> WsiDenoiseError | None:
        found = opened(path)
        self.during()
        return found

    def look(self, seconds: float) -> Report:
        self.now += seconds
        return self.watcher.look(self.now)

    def still(self, seconds: float) -> None:
        """Look often, while nothing changes; nothing may leave the inbox."""
        before = self.files()
        for _ in range(int(seconds) // 5):
            assert self.look(5).quarantined == []
        assert self.files() == before
        assert not self.quarantine.exists()

    def files(self, folder: Path | None = None) -> list[str]:
        folder = folder or self.inbox
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    def jobs(self) -> list[Job]:
        return self.store.jobs(JobQuery(sort="id", limit=None)).jobs[::-1]

    def states(self) -> list[tuple[str, str, str | None]]:
        return [(job.relative, job.state.value, job.error_code) for job in self.jobs()]


@pytest.fixture
def lab(tmp_path: Path):
    made = Lab(tmp_path)
    yield made
    made.watcher.close()
    made.store.close()


def picture(path: Path, side: int) -> None:
    pixels = np.random.default_rng(side).integers(100, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", quality=90, subsampling=0, restart_marker_blocks=4)


TABLE = """\ufeff[GENERAL]
SLIDE_ID = x
[HIERARCHICAL]
INDEXFILE = Index.dat
[DATAFILE]
FILE_COUNT = 2
FILE_0 = Data0000.dat
FILE_1 = Data0001.dat
"""


def test_a_mirax_slide_whose_folder_comes_after_its_key_file_stays_together(lab: Lab) -> None:
    picture(lab.inbox / "a.mrxs", 64)
    lab.still(GRACE - 20)
    (lab.inbox / "a").mkdir()
    for name, content in (("Data0000.dat", "0"), ("Data0001.dat", "1"), ("Index.dat", "i"), ("Slidedat.ini", TABLE)):
        (lab.inbox / "a" / name).write_text(content, encoding="utf-8")
        lab.still(GRACE - 20)
    assert lab.states() == [("a.mrxs", "settling", None)]
    # It does not open, but is complete: after its grace it is quarantined, and stays where it is.
    before = lab.files()
    lab.look(GRACE)
    assert lab.states() == [("a.mrxs", "quarantined", "incomplete_slide")]
    assert lab.files() == before
    assert lab.files(lab.quarantine) == ["a.mrxs", "a.mrxs.txt"]
    assert (lab.quarantine / "a.mrxs").is_symlink()


def test_what_a_mirax_slide_lacks_is_said(tmp_path: Path) -> None:
    picture(tmp_path / "a.mrxs", 64)
    assert "the folder a that belongs to a.mrxs is not there" in str(opened(tmp_path / "a.mrxs"))
    (tmp_path / "a").mkdir()
    assert "a holds no Slidedat.ini" in str(opened(tmp_path / "a.mrxs"))
    (tmp_path / "a/Slidedat.ini").write_text(TABLE + "FILE_2 = ../../secret\n", encoding="utf-8")
    assert "a lacks Data0000.dat and 2 more" in str(opened(tmp_path / "a.mrxs"))
    for name in ("Index.dat", "Data0000.dat"):
        (tmp_path / "a" / name).touch()
    assert "a lacks Data0001.dat." in str(opened(tmp_path / "a.mrxs"))


def test_a_hamamatsu_slide_whose_pictures_come_after_its_key_file_is_one_job(lab: Lab) -> None:
    size = "PhysicalWidth=100000\nPhysicalHeight=100000\nSourceLens=20\n"
    (lab.inbox / "s.vms").write_text(
        "[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns=1\nNoJpegRows=1\n"
        f"ImageFile=s.jpg\nMapFile=map.jpg\nMacroImage=macro.jpg\n{size}"
    )
    for name, side in (("s", 512), ("map", 64), ("macro", 64)):
        lab.still(GRACE - 20)
        assert lab.states() == [("s.vms", "settling", None)]
        picture(lab.inbox / f"{name}.jpg", side)
    lab.look(5)
    lab.look(SETTLE)
    assert lab.states() == [("s.vms", "queued", None)]
    assert lab.files() == ["macro.jpg", "map.jpg", "s.jpg", "s.vms"]


def test_a_dicom_series_whose_label_comes_first_is_one_job(lab: Lab, shared: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    series = sorted((shared / "data/slides/derived/CMU-1-Small-Region.dicom").iterdir())
    kinds = {file: pydicom.dcmread(file, stop_before_pixels=True).ImageType[2] for file in series}
    series.sort(key=lambda file: ["LABEL", "THUMBNAIL", "OVERVIEW", "VOLUME"].index(kinds[file]))
    (lab.inbox / "case").mkdir()
    for number, file in enumerate(series[:3]):
        shutil.copy(file, lab.inbox / "case")
        lab.still(GRACE - 20)
        assert len(lab.files()) == number + 1
    assert lab.states() == [("case", "settling", None)]
    for file in series[3:]:
        shutil.copy(file, lab.inbox / "case")
    lab.look(5)
    lab.look(SETTLE)
    assert lab.states() == [("case", "queued", None)]


def test_a_dicom_series_whose_small_levels_come_first_is_one_job(lab: Lab, shared: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    (lab.inbox / "case").mkdir()
    original = None
    for file in (shared / "data/slides/derived/CMU-1-Small-Region.dicom").iterdir():
        data = pydicom.dcmread(file)
        if data.ImageType[2] == "VOLUME" and data.TotalPixelMatrixColumns == 2220:
            original = file
        elif data.ImageType[2] == "VOLUME" and data.TotalPixelMatrixColumns == 139:  # the others do not decode
            data.ImageType = [
                "DERIVED",
                "PRIMARY",
                "VOLUME",
                "RESAMPLED",
            ]  # as scanners say of such; this writer did not
            data.save_as(lab.inbox / "case" / file.name)
    assert original is not None
    assert lab.files()
    lab.still(GRACE - 10)
    assert opened(lab.inbox / "case") is None
    assert lab.states() == [("case", "settling", None)]
    shutil.copy(original, lab.inbox / "case")
    lab.look(5)
    lab.look(SETTLE)
    assert lab.states() == [("case", "queued", None)]


def test_a_reduced_copy_of_which_nothing_more_comes_is_taken_after_its_grace(lab: Lab, shared: Path) -> None:
    shutil.copytree(shared / "data/slides/camelyon-jpeg.dicom", lab.inbox / "case")
    lab.still(GRACE)
    assert lab.states() == [("case", "settling", None)]
    lab.look(5)
    assert lab.states() == [("case", "queued", None)]


def test_a_label_alone_is_said_to_be_incomplete(lab: Lab, shared: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    for file in (shared / "data/slides/derived/CMU-1-Small-Region.dicom").iterdir():
        if pydicom.dcmread(file, stop_before_pixels=True).ImageType[2] == "LABEL":
            (lab.inbox / "case").mkdir()
            shutil.copy(file, lab.inbox / "case")
    lab.still(GRACE - 5)
    lab.look(5)
    lab.look(GRACE)
    assert lab.states() == [("case", "quarantined", "incomplete_slide")]
    assert "label" in (lab.jobs()[0].error or "")


def test_a_file_that_is_replaced_while_it_is_probed_is_not_quarantined(lab: Lab) -> None:
    (lab.inbox / "a.svs").write_bytes(b"ZISRAWFILE" + bytes(600))

    def replace() -> None:
        (lab.inbox / "a.new").write_bytes(b"another scan")
        (lab.inbox / "a.new").rename(lab.inbox / "a.svs")

    lab.still(GRACE - 5)
    lab.during = replace
    assert lab.look(5 + GRACE).quarantined == []
    assert (lab.inbox / "a.svs").read_bytes() == b"another scan"
    assert not lab.quarantine.exists()


def test_an_unsupported_file_is_quarantined_when_it_has_settled(lab: Lab) -> None:
    (lab.inbox / "a.jpg").write_bytes(b"\xff\xd8\xffpicture")
    lab.look(5)
    assert lab.states() == [("a.jpg", "settling", None)]
    for _ in range(4):
        lab.look(SETTLE)
    assert lab.states() == [("a.jpg", "quarantined", "unsupported_slide")]
    assert (lab.inbox / "a.jpg").read_bytes() == b"\xff\xd8\xffpicture"
