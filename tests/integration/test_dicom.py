"""DICOM slides: made here frame by frame, whole and in parts."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, generate_uid

from wsi_denoise.errors import IncompleteSlide, SlideError, UnsupportedSlide
from wsi_denoise.intake.fingerprint import fingerprint
from wsi_denoise.intake.settling import PERHAPS_BEING_COPIED
from wsi_denoise.slide.reader import open_slide, probe

SIDE, COLUMNS, ROWS = 32, 3, 3
WIDTH, HEIGHT = SIDE * COLUMNS - 5, SIDE * ROWS - 7
PIXELS = np.random.default_rng(0).integers(0, 255, (SIDE * ROWS, SIDE * COLUMNS, 3), np.uint8)
SERIES, STUDY, FRAME = (generate_uid(entropy_srcs=[name]) for name in ("series", "study", "frame"))


def frames() -> list[bytes]:
    rows = [PIXELS[top : top + SIDE] for top in range(0, SIDE * ROWS, SIDE)]
    return [row[:, left : left + SIDE].tobytes() for row in rows for left in range(0, SIDE * COLUMNS, SIDE)]


def instance(path: Path, data: list[bytes], **values: object) -> Path:
    """Write an uncompressed slide of which a file holds some frames."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.77.1.6"), generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = STUDY, SERIES, FRAME
    made.Modality, made.ImageType = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.Rows, made.Columns, made.NumberOfFrames = SIDE, SIDE, len(data)
    made.TotalPixelMatrixColumns, made.TotalPixelMatrixRows = WIDTH, HEIGHT
    made.DimensionOrganizationType = "TILED_FULL"
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [0.0005, 0.0005]
    shared.PixelMeasuresSequence = [measures]
    made.SharedFunctionalGroupsSequence = [shared]
    for name, value in values.items():
        setattr(made, name, value)
    made.PixelData = b"".join(data)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.save_as(path, enforce_file_format=True)
    return path


def concatenation(
    folder: Path, present: tuple[int, ...], *, stated: bool, parts: int = 3, series: str = SERIES
) -> Path:
    """Write the parts that are `present` of a slide that is split into files."""
    each = COLUMNS * ROWS // parts
    uid = generate_uid()
    for number in present:
        start = each * (number - 1)
        values = {"ConcatenationUID": uid, "InConcatenationNumber": number, "ConcatenationFrameOffsetNumber": start}
        if stated:
            values["InConcatenationTotalNumber"] = parts
        instance(folder / f"{number:08}", frames()[start : start + each], SeriesInstanceUID=series, **values)
    return folder


def check(path: Path) -> None:
    with open_slide(path) as slide:
        assert (slide.info.width, slide.info.height, slide.info.mpp) == (WIDTH, HEIGHT, (0.5, 0.5))
        np.testing.assert_array_equal(slide.read(0, 0, WIDTH, HEIGHT), PIXELS[:HEIGHT, :WIDTH])


@pytest.mark.parametrize("name", ["00000001", "IM_0001", "1.2.840.7", "a.dcm", "a.dicom"])
def test_a_slide_is_read_whatever_its_file_is_called(tmp_path, name):
    path = instance(tmp_path / "case" / name, frames())
    for each in (path, path.parent):
        check(each)
        assert probe(each).reader == "openslide"
    assert fingerprint(path) == fingerprint(path.parent)


@pytest.mark.parametrize("stated", [True, False])
def test_a_concatenation_is_read_from_its_folder_and_from_any_part(tmp_path, stated):
    folder = concatenation(tmp_path / "case", (1, 2, 3), stated=stated)
    check(folder)
    for part in folder.iterdir():
        check(part)


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("present", [(1,), (2,), (3,), (1, 2), (1, 3), (2, 3)])
def test_a_concatenation_that_lacks_a_part_is_waited_for(tmp_path, stated, present):
    folder = concatenation(tmp_path / "case", present, stated=stated)
    for path in (folder, *folder.iterdir()):
        with pytest.raises(IncompleteSlide) as raised:
            open_slide(path)
        assert "concatenation" in raised.value.detail
    assert IncompleteSlide in PERHAPS_BEING_COPIED
    concatenation(folder, (1, 2, 3), stated=stated)
    check(folder)


def test_the_concatenation_of_another_series_in_the_folder_says_nothing(tmp_path):
    concatenation(tmp_path, (1, 2), stated=False, series=generate_uid())
    check(instance(tmp_path / "whole.dcm", frames()))


def test_a_concatenation_that_contradicts_itself_is_not_called_incomplete(tmp_path):
    concatenation(tmp_path / "case", (1, 2, 3), stated=True)
    values = {"ConcatenationFrameOffsetNumber": 0, "InConcatenationTotalNumber": 3, "InConcatenationNumber": 1}
    uid = generate_uid()
    for name in ("1", "2"):
        instance(tmp_path / "twice" / name, frames(), ConcatenationUID=uid, **values)
    with pytest.raises(UnsupportedSlide, match="multiple SOP instances in concatenation"):
        open_slide(tmp_path / "twice")


@pytest.mark.parametrize("value", [b"many", b"-1", b"9" * 30])
def test_a_damaged_header_of_a_part_is_an_error_of_the_slide(tmp_path, value):
    folder = concatenation(tmp_path / "case", (1, 2, 3), stated=False)
    path = folder / "00000003"
    data = path.read_bytes()
    at = data.index(b"\x28\x00\x08\x00IS")
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    padded = value + b" " * (len(value) % 2)
    path.write_bytes(data[: at + 6] + len(padded).to_bytes(2, "little") + padded + data[at + 8 + length :])
    with pytest.raises(SlideError):
        open_slide(folder)


@pytest.mark.shared
def test_the_cases_of_dicom_without_suffix_and_of_half_a_concatenation(shared):
    with open_slide(shared / "cases" / "dicom-no-suffix" / "d_nosuffix") as slide:
        assert (slide.info.width, slide.info.height, slide.info.mpp) == (700, 520, (0.5, 0.5))
    with open_slide(shared / "cases" / "dicom-concatenation-half" / "d_concat") as slide:
        assert slide.info.width == 700
    with pytest.raises(IncompleteSlide):
        open_slide(shared / "cases" / "dicom-concatenation-half" / "d_concat_half")
