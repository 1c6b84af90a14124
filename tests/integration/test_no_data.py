"""Areas without pixels in a file have the background's colour, and are distinguished from black."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from wsi_denoise.slide.geometry import Lattice
from wsi_denoise.slide.reader import open_slide
from wsi_denoise.slide.tissue import thumbnail_side, tissue_patches


@pytest.fixture(scope="module")
def expected(shared):
    with Image.open(shared / "cases" / "expected_pixels.png") as picture:
        return np.asarray(picture.convert("RGB")).astype(np.int16)


@pytest.mark.parametrize("name", ["d_sparse_missing", "zero_tile_aperio.svs", "zero_tile_generic.tif"])
def test_a_frame_or_tile_that_is_left_out_has_the_backgrounds_colour(shared, expected, name):
    with open_slide(shared / "data" / "vendor-made" / name) as slide:
        pixels = slide.read(0, 0, slide.info.width, slide.info.height).astype(np.int16)
        background = np.array(slide.info.background)
    assert background.min() > 200
    left_out = (pixels == background).all(axis=2)
    assert 0.1 < left_out.mean() < 0.6
    assert np.abs(pixels - expected)[~left_out].mean() < 3


def test_gaps_of_mirax_have_the_backgrounds_colour_and_are_no_tissue(shared):
    with open_slide(shared / "data" / "vendor-made" / "mirax_gap.mrxs") as slide:
        size = (slide.info.width, slide.info.height)
        pixels = slide.read(0, 0, *size)
        lattice = Lattice(*size)
        mask = tissue_patches(slide.thumbnail(thumbnail_side(lattice.patch_shape)), lattice.patch_shape, size)
        background = np.array(slide.info.background)
    gap = (pixels == background).all(axis=2)
    assert background.min() > 200
    assert gap.mean() > 0.5
    assert mask.found
    assert mask.patches.mean() < 0.5


def test_a_sparse_tile_of_philips_is_read_as_expected(shared):
    folder = shared / "data" / "vendor-made"
    with open_slide(folder / "philips_sparse.tiff") as slide:
        pixels = slide.read(0, 0, slide.info.width, slide.info.height).astype(np.int16)
        background = np.array(slide.info.background)
    exact = np.load(folder / "philips_sparse.tiff.expected.npy")
    left_out = (pixels == background).all(axis=2)
    assert left_out.mean() > 0.2
    assert np.abs(pixels - exact)[~left_out].max() <= 2


@pytest.mark.parametrize("compression", ["deflate", "jpeg", None])
def test_a_tile_without_bytes_is_background_and_a_black_one_is_black(tmp_path, compression):
    y, x = np.mgrid[:512, :512]
    pixels = np.stack([235 + (x + y) % 3, 232 + x % 3, 236 + y % 3], axis=-1).astype(np.uint8)
    pixels[256:, 256:] = 0
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, tile=(256, 256), compression=compression, photometric="rgb")
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tags = tiff.pages.first.tags
        counts, offsets = list(tags["TileByteCounts"].value), list(tags["TileOffsets"].value)
        tags["TileByteCounts"].overwrite([counts[0], 0, *counts[2:]])
        tags["TileOffsets"].overwrite([offsets[0], 0, *offsets[2:]])
    with open_slide(path) as slide:
        read = slide.read(0, 0, 512, 512)
        background = np.array(slide.info.background)
    assert background.min() > 200
    assert (read[:256, 256:] == background).all()
    assert read[256:, 256:].max() <= 3
