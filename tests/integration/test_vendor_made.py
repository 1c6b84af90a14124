"""Scanners' formats made by hand after their descriptions, compared pixel by pixel with an independent decoder.

Where the tiles are JPEG, the `*.expected.npy` arrays hold pixels from before compression or without the padding of
border tiles, so that they differ from any decoder's there; tifffile's decoding of the same tiles is exact.
"""

import struct
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import tifffile
from pydicom.encaps import generate_frames

from wsi_denoise.errors import NotRGB
from wsi_denoise.slide.reader import open_slide, probe

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def made(shared) -> Path:
    return shared / "data" / "vendor-made"


def pixels(path: Path) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return level 0, (height, width, 3), and the background colour."""
    assert probe(path).width > 0
    with open_slide(path) as slide:
        return slide.read(0, 0, slide.info.width, slide.info.height), slide.info.background


def expected(path: Path) -> np.ndarray:
    return np.load(path.with_name(f"{path.name}.expected.npy"))


def page(path: Path, number: int) -> np.ndarray:
    with tifffile.TiffFile(path) as tiff:
        return tiff.pages[number].asarray()


@pytest.mark.parametrize("name", ["mirax1.mrxs", "ndpi_norestart.ndpi", "ndpi_z.ndpi"])
def test_mirax_and_ndpi_are_read_exactly(made, name):
    np.testing.assert_array_equal(pixels(made / name)[0], expected(made / name))


def test_a_mirax_slide_of_mostly_empty_canvas_shows_background_where_nothing_was_scanned(made):
    shown, background = pixels(made / "mirax_gap.mrxs")
    scanned = np.zeros(shown.shape[:2], bool)
    scanned[768:1536, 512:1280] = True
    assert (shown[~scanned] == background).all()
    assert shown[scanned].std() > 10
    assert min(background) > 200


@pytest.mark.parametrize(
    ("name", "regions"),
    [("leica1.scn", [(1, 50, 30)]), ("leica2.scn", [(1, 50, 30), (3, 600, 400)])],
)
def test_the_regions_of_an_scn_are_where_its_description_says(made, name, regions):
    shown, background = pixels(made / name)
    wanted = np.full_like(shown, background)
    for number, x, y in regions:
        region = page(made / name, number)
        wanted[y : y + region.shape[0], x : x + region.shape[1]] = region
    np.testing.assert_array_equal(shown, wanted)
    assert np.abs(shown.astype(int) - expected(made / name)).mean() < 2


def test_the_overlapping_tiles_of_a_bif_are_joined(made):
    path = made / "bif_right_ov.bif"
    shown, _ = pixels(path)
    level = page(path, 2)
    wanted = np.zeros_like(shown)
    for column in range(3):
        wanted[:, 240 * column : 240 * column + 256] = level[:, 256 * column : 256 * column + 256]
    np.testing.assert_array_equal(shown, wanted)
    assert np.abs(shown.astype(int) - expected(path)).mean() < 4
    with open_slide(path) as slide:
        assert slide.info.compression == "jpeg"


@pytest.mark.parametrize("name", ["trestle.tif", "philips.tiff"])
def test_trestle_and_philips_are_read_as_tifffile_reads_them(made, name):
    np.testing.assert_array_equal(pixels(made / name)[0], page(made / name, 0))


@pytest.mark.parametrize(
    ("name", "box"),
    [
        ("philips_sparse.tiff", (512, 512, 1024, 1024)),
        ("zero_tile_aperio.svs", (256, 256, 512, 512)),
        ("zero_tile_generic.tif", (256, 256, 512, 512)),
    ],
)
def test_a_tile_without_bytes_is_background_and_the_others_are_exact(made, name, box):
    shown, background = pixels(made / name)
    empty = np.zeros(shown.shape[:2], bool)
    empty[box[1] : box[3], box[0] : box[2]] = True
    assert (shown[empty] == background).all()
    assert min(background) > 200
    np.testing.assert_array_equal(shown[~empty], page(made / name, 0)[~empty])


def frames(path: Path) -> tuple[pydicom.Dataset, list[np.ndarray]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(path)
    coded = generate_frames(data.PixelData, number_of_frames=int(data.NumberOfFrames))
    return data, [imagecodecs.jpeg_decode(frame, colorspace="YCBCR", outcolorspace="RGB") for frame in coded]


def test_a_dicom_concatenation_is_joined_exactly(made):
    folder = made / "d_concat"
    tiles = [tile for name in ("p1.dcm", "p2.dcm") for tile in frames(folder / name)[1]]
    rows = [np.concatenate(tiles[start : start + 3], axis=1) for start in range(0, 9, 3)]
    wanted = np.concatenate(rows)[:520, :700]
    for path in (folder, folder / "p2.dcm"):
        np.testing.assert_array_equal(pixels(path)[0], wanted)


def test_frames_that_a_sparse_dicom_leaves_out_are_background(made):
    shown, background = pixels(made / "d_sparse_missing")
    data, tiles = frames(made / "d_sparse_missing" / "a.dcm")
    wanted = np.empty((768, 768, 3), np.uint8)
    wanted[:] = background
    for place, tile in zip(data.PerFrameFunctionalGroupsSequence, tiles, strict=True):
        position = place.PlanePositionSlideSequence[0]
        y, x = position.RowPositionInTotalImagePixelMatrix, position.ColumnPositionInTotalImagePixelMatrix
        wanted[y - 1 : y + 255, x - 1 : x + 255] = tile
    np.testing.assert_array_equal(shown, wanted[:520, :700])
    assert min(background) > 200


def test_a_grey_label_before_the_slide_is_no_reason_to_refuse_it_and_grey_levels_are(made, tmp_path):
    data = bytearray((made / "bif_right_ov.bif").read_bytes())
    with tifffile.TiffFile(made / "bif_right_ov.bif") as tiff:
        assert tiff.byteorder == "<"
        label, slide = (tiff.pages[number].tags["PhotometricInterpretation"].valueoffset for number in (0, 2))
    grey = bytearray(data)
    struct.pack_into("<H", grey, label, 1)
    path = tmp_path / "label.bif"
    path.write_bytes(grey)
    np.testing.assert_array_equal(pixels(path)[0], pixels(made / "bif_right_ov.bif")[0])
    struct.pack_into("<H", data, slide, 1)
    path = tmp_path / "slide.bif"
    path.write_bytes(data)
    with pytest.raises(NotRGB):
        open_slide(path)
