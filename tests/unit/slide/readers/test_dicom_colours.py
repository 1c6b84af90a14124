"""DICOM whose PhotometricInterpretation contradicts its frames is decoded as they state, or refused."""

import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import UID, generate_uid

from wsi_denoise.errors import ContradictoryColours, UnreadableTile
from wsi_denoise.slide.reader import open_slide, probe
from wsi_denoise.slide.readers.dicom_frames import read_instance

SIDE, COLUMNS, ROWS = 64, 4, 3
WIDTH, HEIGHT = SIDE * COLUMNS - 5, SIDE * ROWS - 7
JPEG, JPEG2000 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91"
SERIES, STUDY, PLANE = (generate_uid(entropy_srcs=[name]) for name in ("colours", "colours study", "colours frame"))


@pytest.fixture(scope="module")
def tissue(tissue_image) -> np.ndarray:
    return np.ascontiguousarray(tissue_image[200 : 200 + SIDE * ROWS, 200 : 200 + SIDE * COLUMNS])


def jfif(pixels):
    return imagecodecs.jpeg8_encode(pixels, level=95, subsampling="444")


def adobe_rgb(pixels):
    return imagecodecs.jpeg8_encode(pixels, level=95, colorspace="RGB", outcolorspace="RGB", subsampling="444")


def transformed(pixels):
    return imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", mct=True)


def plain(pixels):
    return imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", mct=False)


def plain_ycbcr(pixels):
    return plain(np.asarray(Image.fromarray(pixels).convert("YCbCr")))


def series(path: Path, pixels, encode, photometric, *, table="basic", **values) -> Path:
    """Write one level of a slide; `encode` is called with a frame's pixels, or pixels and number."""
    encoders = encode if isinstance(encode, list) else [encode] * (len(pixels) // SIDE * (pixels.shape[1] // SIDE))
    places = [(y, x) for y in range(0, pixels.shape[0], SIDE) for x in range(0, pixels.shape[1], SIDE)]
    frames = [
        each(np.ascontiguousarray(pixels[y : y + SIDE, x : x + SIDE]))
        for each, (y, x) in zip(encoders, places, strict=True)
    ]
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.77.1.6"), generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = STUDY, SERIES, PLANE
    made.Modality, made.ImageType = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, photometric, 0
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.Rows, made.Columns, made.NumberOfFrames = SIDE, SIDE, len(frames)
    made.TotalPixelMatrixColumns, made.TotalPixelMatrixRows = pixels.shape[1] - 5, pixels.shape[0] - 7
    made.DimensionOrganizationType = "TILED_FULL"
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [0.0005, 0.0005]
    shared.PixelMeasuresSequence = [measures]
    made.SharedFunctionalGroupsSequence = [shared]
    for name, value in values.items():
        setattr(made, name, value)
    if table == "extended":
        made.PixelData, made.ExtendedOffsetTable, made.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    else:
        fragments = 2 if table == "fragments" else 1
        made.PixelData = encapsulate(frames, fragments_per_frame=fragments, has_bot=table != "none")
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(JPEG if frames[0][:2] == b"\xff\xd8" else JPEG2000)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.save_as(path, enforce_file_format=True)
    return path


def check(path, pixels, most) -> tuple[str, ...]:
    expected = pixels[:HEIGHT, :WIDTH].astype(int)
    with open_slide(path) as slide:
        assert (slide.info.width, slide.info.height) == (WIDTH, HEIGHT)
        assert np.abs(slide.read(0, 0, WIDTH, HEIGHT) - expected).mean() < most
        x, y, width, height = SIDE - 9, SIDE - 3, SIDE + 20, SIDE + 5
        part = expected[y : y + height, x : x + width]
        assert np.abs(slide.read(x, y, width, height) - part).mean() < most
        assert np.abs(slide.thumbnail(40).mean((0, 1)) - expected.mean((0, 1))).max() < 4
        notes = slide.info.notes
    assert probe(path).notes == notes
    return notes


CONSISTENT = [
    (jfif, "YBR_FULL_422"),
    (adobe_rgb, "RGB"),
    (transformed, "RGB"),
    (transformed, "YBR_RCT"),
    (transformed, "YBR_ICT"),
    (plain, "RGB"),
]


@pytest.mark.parametrize(("encode", "photometric"), CONSISTENT)
def test_consistent_frames_are_read_without_a_note(tmp_path, tissue, encode, photometric):
    notes = check(series(tmp_path / "a.dcm", tissue, encode, photometric).parent, tissue, 3)
    assert not any("colour" in note for note in notes)


@pytest.mark.parametrize("table", ["basic", "none", "extended", "fragments"])
@pytest.mark.parametrize(("encode", "photometric"), [(jfif, "RGB"), (adobe_rgb, "YBR_FULL_422")])
def test_a_contradiction_is_decoded_as_the_frames_state_and_noted(tmp_path, tissue, encode, photometric, table):
    path = series(tmp_path / "a.dcm", tissue, encode, photometric, table=table)
    assert len(read_instance(path).frames) == COLUMNS * ROWS
    for each in (path, path.parent):
        assert any("contradictory colour model" in note for note in check(each, tissue, 3))


@pytest.mark.parametrize("photometric", ["RGB", "YBR_RCT", "YBR_ICT"])
def test_jpeg_2000_that_is_no_rgb_is_refused(tmp_path, tissue, photometric):
    path = series(tmp_path / "a.dcm", tissue, plain_ycbcr, photometric)
    with pytest.raises(ContradictoryColours, match="fit YCbCr only"):
        open_slide(path)


def test_each_frame_is_decoded_as_it_states(tmp_path, tissue):
    encoders = [adobe_rgb] * (COLUMNS * ROWS)
    encoders[7] = jfif
    path = series(tmp_path / "a.dcm", tissue, encoders, "RGB")
    assert any("1 of 12 sampled tiles" in note for note in check(path, tissue, 3))


def test_contradictory_frames_in_a_layout_that_only_openslide_reads_are_refused(tmp_path, tissue):
    for number, part in enumerate((tissue[: 2 * SIDE], tissue[2 * SIDE :])):
        series(
            tmp_path / f"{number}.dcm",
            part,
            jfif,
            "RGB",
            TotalPixelMatrixRows=HEIGHT,
            ConcatenationUID="1.2.3",
            InConcatenationNumber=number + 1,
            InConcatenationTotalNumber=2,
            ConcatenationFrameOffsetNumber=number * 2 * COLUMNS,
            SOPInstanceUIDOfConcatenationSource="1.2.3.4",
        )
    with pytest.raises(ContradictoryColours, match="only library"):
        open_slide(tmp_path)


def test_a_smaller_level_with_contradictory_colours_is_not_used(tmp_path, tissue):
    series(tmp_path / "a.dcm", tissue, adobe_rgb, "RGB")
    small = np.ascontiguousarray(np.pad(tissue[::2, ::2], ((0, 32), (0, 0), (0, 0)), constant_values=200))
    series(
        tmp_path / "b.dcm", small, jfif, "RGB",
        TotalPixelMatrixColumns=WIDTH // 2, TotalPixelMatrixRows=HEIGHT // 2,
        ImageType=["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"],
    )  # fmt: skip
    with open_slide(tmp_path) as slide:
        assert len(slide.info.levels) == 2
        assert not slide.level_is_true(1)


def test_a_damaged_frame_is_named(tmp_path, tissue):
    path = series(tmp_path / "a.dcm", tissue, jfif, "RGB")
    data = bytearray(path.read_bytes())
    start, end = read_instance(path).frames[5:7]
    half = (start + end) // 2
    data[half:end] = bytes(end - half)
    path.write_bytes(data)
    with open_slide(path) as slide:
        slide.read(0, 0, 10, 10)
        with pytest.raises(UnreadableTile, match="x 64, y 64"):
            slide.read(0, 0, WIDTH, HEIGHT)


CASES = {"colours-dicom-pi-rgb-jfif/d_pi_rgb_jfif": False, "colours-dicom-j2k-ycc/d_j2k_ycc_pi_RGB": True}


@pytest.mark.parametrize("name", CASES)
def test_cases_seen_in_use(shared, name):
    if not (shared / "cases").is_dir():
        pytest.skip(f"the cases are not at {shared}")
    if CASES[name]:
        with pytest.raises(ContradictoryColours):
            open_slide(shared / "cases" / name)
        return
    with Image.open(shared / "cases" / "expected_pixels.png") as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    with open_slide(shared / "cases" / name) as slide:
        assert np.abs(slide.read(0, 0, 700, 520) - expected).mean() < 2
        assert any("contradictory colour model" in note for note in slide.info.notes)
