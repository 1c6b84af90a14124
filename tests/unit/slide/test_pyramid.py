"""A written pyramid, read by two libraries that did not write it."""

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ImageCms

from wsi_denoise.slide import provenance
from wsi_denoise.slide.encoding import Encoding, Pixels, cut
from wsi_denoise.slide.geometry import count, level_sizes, tile_shape
from wsi_denoise.slide.halving import halve
from wsi_denoise.slide.pyramid import Bands, Header, Level, write_pyramid

DEFLATE = Encoding("deflate")
ODD_SIZES = [(1, 1), (16, 16), (97, 95), (256, 256), (257, 255), (515, 700), (1000, 999)]
ICC = bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
HEADER = Header(provenance.describe({"preset": "paper"}), (0.5, 0.25), ICC)


def pyramid_of(pixels: Pixels) -> list[Pixels]:
    """Each level by halving the whole image before."""
    levels = [pixels]
    for _ in level_sizes(pixels.shape[1], pixels.shape[0])[1:]:
        levels.append(halve(levels[-1]))
    return levels


def encoded(pixels: Pixels, encoding: Encoding) -> Level:
    height, width = pixels.shape[:2]
    rows, columns = tile_shape(width, height)
    tiles = [encoding.encode(cut(pixels, row, column)) for row in range(rows) for column in range(columns)]
    return Level((width, height), tiles)


def written(path: Path, pixels: Pixels, encoding: Encoding = DEFLATE, header: Header = HEADER) -> Path:
    write_pyramid(path, [encoded(level, encoding) for level in pyramid_of(pixels)], encoding, header)
    return path


def seen_by_openslide(slide: openslide.OpenSlide, level: int) -> Pixels:
    return np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))[..., :3]


@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize("compression", ["deflate", "zstd"])
def test_lossless_files_give_every_pixel_of_every_level_in_tifffile(size, compression, tissue_image, tmp_path):
    pixels = tissue_image[: size[1], : size[0]]
    file = written(tmp_path / "x.tiff", pixels, Encoding(compression))
    with tifffile.TiffFile(file) as tiff:
        assert len(tiff.pages) == len(level_sizes(*size))
        for page, level in zip(tiff.pages, pyramid_of(pixels), strict=True):
            np.testing.assert_array_equal(page.asarray(), level)


@pytest.mark.parametrize("size", ODD_SIZES)
def test_deflate_files_give_every_pixel_of_every_level_in_openslide(size, tissue_image, tmp_path):
    pixels = tissue_image[: size[1], : size[0]]
    with openslide.OpenSlide(written(tmp_path / "x.tiff", pixels)) as slide:
        assert slide.level_dimensions == level_sizes(*size)
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        for level, meant in enumerate(pyramid_of(pixels)):
            np.testing.assert_array_equal(seen_by_openslide(slide, level), meant)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg_files_have_the_same_colours_in_both(subsampling, tissue_image, tmp_path):
    pixels = tissue_image[:700, :515]
    file = written(tmp_path / "x.tiff", pixels, Encoding("jpeg", 95, subsampling))
    with openslide.OpenSlide(file) as slide, tifffile.TiffFile(file) as tiff:
        for number, (page, meant) in enumerate(zip(tiff.pages, pyramid_of(pixels), strict=True)):
            for found in (page.asarray(), seen_by_openslide(slide, number)):
                # Colours taken for RGB would be off by 50 grey levels.
                assert np.abs(found.astype(int) - meant).mean() < 4
                assert np.abs(found.mean(axis=(0, 1)) - meant.mean(axis=(0, 1))).max() < 1


def test_resolution_is_on_every_level(tissue_image, tmp_path):
    file = written(tmp_path / "x.tiff", tissue_image[:999, :1000])
    with openslide.OpenSlide(file) as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5, rel=1e-4)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.25, rel=1e-4)
    with tifffile.TiffFile(file) as tiff:
        assert len(tiff.pages) == 3
        for page in tiff.pages:
            assert page.tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
            height, width = page.shape[:2]
            for tag, mpp, side, full in (("XResolution", 0.5, width, 1000), ("YResolution", 0.25, height, 999)):
                numerator, denominator = page.tags[tag].value
                # What the whole level measures is what the whole slide measures.
                assert 1e4 * denominator / numerator * side == pytest.approx(mpp * full, rel=1e-4)


def test_no_resolution_is_invented(tissue_image, tmp_path):
    file = written(tmp_path / "x.tiff", tissue_image[:600, :600], header=Header(HEADER.description))
    with openslide.OpenSlide(file) as slide:
        assert "openslide.mpp-x" not in slide.properties
        assert "openslide.mpp-y" not in slide.properties
    with tifffile.TiffFile(file) as tiff:
        for page in tiff.pages:
            unit = page.tags.get("ResolutionUnit")
            assert unit is None or unit.value == tifffile.RESUNIT.NONE


def test_the_icc_profile_is_copied(tissue_image, tmp_path):
    file = written(tmp_path / "x.tiff", tissue_image[:600, :600])
    with tifffile.TiffFile(file) as tiff:
        assert all(bytes(page.tags[34675].value) == ICC for page in tiff.pages)
    with openslide.OpenSlide(file) as slide:
        assert slide.color_profile is not None
        assert slide.color_profile.tobytes() == ICC
    bare = written(tmp_path / "y.tiff", tissue_image[:600, :600], header=Header(HEADER.description))
    with tifffile.TiffFile(bare) as tiff:
        assert all(34675 not in page.tags for page in tiff.pages)


def test_layout(tissue_image, tmp_path):
    file = written(tmp_path / "x.tiff", tissue_image, Encoding("jpeg"))
    with tifffile.TiffFile(file) as tiff:
        assert tiff.is_bigtiff
        assert [page.tags["NewSubfileType"].value for page in tiff.pages] == [0, 1, 1]
        assert all((page.tilewidth, page.tilelength) == (256, 256) for page in tiff.pages)
        assert all(330 not in page.tags for page in tiff.pages)  # SubIFDs: OpenSlide would see level 0 only
        assert provenance.parse(tiff.pages.first.description)["preset"] == "paper"
        assert [page.description for page in tiff.pages][1:] == ["", ""]
        assert str(tiff.pages.first.tags["Software"].value).startswith("wsi-denoise ")


def test_tiles_are_copied_byte_for_byte(tissue_image, tmp_path):
    encoding = Encoding("jpeg")
    level = encoded(tissue_image[:200, :600], encoding)
    file = written(tmp_path / "x.tiff", tissue_image[:200, :600], encoding)
    with tifffile.TiffFile(file) as tiff, file.open("rb") as raw:
        page = tiff.pages.first
        for tile, offset, length in zip(level.tiles, page.dataoffsets, page.databytecounts, strict=True):
            raw.seek(offset)
            assert raw.read(length) == tile


@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("level", [0, 1])
def test_a_wrong_number_of_tiles_is_refused(change, level, tissue_image, tmp_path):
    levels = [encoded(pixels, DEFLATE) for pixels in pyramid_of(tissue_image[:512, :512])]
    tiles = list(levels[level].tiles)
    wrong = tiles[:-1] if change < 0 else [*tiles, tiles[0]]
    levels[level] = Level(levels[level].size, wrong)
    with pytest.raises(ValueError, match=f"level {level} has .*{len(tiles)}"):
        write_pyramid(tmp_path / "x.tiff", levels, DEFLATE, HEADER)


def decoded(level: Level) -> Pixels:
    """The pixels of a level out of its encoded tiles."""
    width, height = level.size
    rows, columns = tile_shape(width, height)
    tiles = [DEFLATE.decode(tile) for tile in level.tiles]
    assert len(tiles) == rows * columns
    whole = np.concatenate([np.concatenate(tiles[row * columns : (row + 1) * columns], axis=1) for row in range(rows)])
    return whole[:height, :width]


def check_bands(pixels: Pixels, heights: list[int], folder: Path) -> None:
    sizes = level_sizes(pixels.shape[1], pixels.shape[0])
    bands = Bands(sizes, DEFLATE, folder)
    try:
        top = 0
        for height in heights:
            bands.feed(pixels[top : top + height])
            top += height
        assert top >= len(pixels)
        levels = list(bands.levels())
        assert [level.size for level in levels] == list(sizes)
        for level, meant in zip(levels, pyramid_of(pixels), strict=True):
            np.testing.assert_array_equal(decoded(level), meant)
    finally:
        bands.close()


@given(st.integers(1, 700), st.integers(1, 700), st.data())
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bands_give_what_halving_the_whole_image_gives(tmp_path, width, height, data):
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), np.uint8)
    heights, left = [], height
    while left:
        heights.append(data.draw(st.integers(1, left)))
        left -= heights[-1]
    check_bands(pixels, heights, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(1, 1), (300, 1025), (511, 513), (3, 2049)])
@pytest.mark.parametrize("step", [1, 7, 384])
def test_bands_of_odd_sizes(size, step, tmp_path):
    width, height = size
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    check_bands(pixels, [step] * count(height, step), tmp_path)


def test_bands_refuse_what_does_not_fit(tmp_path):
    bands = Bands([(600, 300), (300, 150), (150, 75)], DEFLATE, tmp_path)
    rows = np.zeros((200, 600, 3), np.uint8)
    with pytest.raises(ValueError, match="600 x 300"):
        bands.feed(rows[:, :599])
    bands.feed(rows)
    with pytest.raises(ValueError, match="only 200 of 300 rows"):
        list(bands.levels())
    with pytest.raises(ValueError, match="after row 200"):
        bands.feed(rows)
    bands.close()


def test_bands_keep_their_memory_flat(tmp_path):
    bands = Bands([(64, 4000), (32, 2000), (16, 1000), (8, 500), (4, 250)], DEFLATE, tmp_path)
    for start in range(0, 3990, 10):
        bands.feed(np.full((10, 64, 3), start % 256, np.uint8))
        level: Bands | None = bands
        while level:
            assert sum(len(rows) for rows in level._rows) < 256
            assert sum(len(rows) for rows in level._odd) < 2
            level = level._above
    bands.close()
