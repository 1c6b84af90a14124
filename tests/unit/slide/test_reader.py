"""Slides made here: what is read, what is refused, and with which reason."""

import contextlib
import gc
import os
import pickle
import resource
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from wsi_denoise.errors import (
    EmptyFile,
    NotARegularFile,
    NotASlide,
    NotRGB,
    SlideChanged,
    SlideError,
    SlideVanished,
    SourceUnavailable,
    TooLarge,
    TruncatedSlide,
    UnreadableTile,
    UnsupportedSlide,
)
from wsi_denoise.slide import base, metadata, reader
from wsi_denoise.slide.base import composite
from wsi_denoise.slide.reader import open_cached, open_slide, probe
from wsi_denoise.slide.readers import tiff_check, tiff_directory
from wsi_denoise.slide.readers.streams import declared_size


def image(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with a ramp, so that any shift or swap of channels shows; (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).integers(0, 20, (height, width))
    return np.stack([(x * 3 + noise) % 256, (y * 2) % 256, (x + y) % 256], axis=-1).astype(np.uint8)


def write(path, pixels, **options):
    options.setdefault("photometric", "rgb")
    tifffile.imwrite(path, pixels, **options)
    return path


TILED = {"tile": (64, 64), "compression": "deflate"}
LAYOUTS = {
    "tiled, deflate": TILED,
    "tiled, lzw and predictor": {"tile": (32, 48), "compression": "lzw", "predictor": True},
    "tiled, raw": {"tile": (64, 64)},
    "tiled, zstd": {"tile": (64, 64), "compression": "zstd"},
    "tiled, bigtiff, big endian": {"tile": (64, 64), "bigtiff": True, "byteorder": ">"},
    "strips, raw, one": {},
    "strips, raw, several": {"rowsperstrip": 7},
    "strips, deflate": {"rowsperstrip": 10, "compression": "deflate"},
    "tiled, lossless jpeg 2000": {"tile": (64, 64), "compression": "jpeg2000"},
}


@pytest.mark.parametrize("size", [(1, 1), (97, 95), (300, 170)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_lossless_tiffs_of_any_layout_and_size_are_read_exactly(tmp_path, layout, size):
    if "jpeg 2000" in layout and size == (1, 1):
        pytest.skip("the encoder refuses a single pixel")
    pixels = image(*size)
    path = write(tmp_path / "a.tif", pixels, **LAYOUTS[layout])
    with open_slide(path) as slide:
        assert (slide.info.width, slide.info.height) == size
        assert slide.info.levels[0] == size
        np.testing.assert_array_equal(slide.read(0, 0, *size), pixels)
        rng = np.random.default_rng(1)
        for _ in range(8):
            x, y = int(rng.integers(size[0])), int(rng.integers(size[1]))
            w, h = int(rng.integers(1, size[0] - x + 1)), int(rng.integers(1, size[1] - y + 1))
            got = slide.read(x, y, w, h)
            assert got.flags["C_CONTIGUOUS"]
            assert got.dtype == np.uint8
            np.testing.assert_array_equal(got, pixels[y : y + h, x : x + w])
    assert probe(path).levels == slide.info.levels


def test_jpeg_tiles_agree_with_pillow(tmp_path, tissue_image):
    path = write(
        tmp_path / "a.tif", tissue_image, tile=(64, 64), compression="jpeg", compressionargs={"level": 90},
        photometric="ycbcr", subsampling=(2, 2),
    )  # fmt: skip
    height, width = tissue_image.shape[:2]
    with open_slide(path) as slide, Image.open(path) as other:
        expected = np.asarray(other.convert("RGB"))
        assert np.abs(slide.read(0, 0, width, height).astype(int) - expected).mean() < 0.5
        assert slide.info.compression == "jpeg"


def test_regions_that_leave_the_slide_are_mistakes(tmp_path):
    with open_slide(write(tmp_path / "a.tif", image(100, 80), **TILED)) as slide:
        for region in [(-1, 0, 5, 5), (0, 0, 101, 1), (0, 79, 1, 2), (0, 0, 0, 1), (5, 5, 3, -1)]:
            with pytest.raises(ValueError, match="not within"):
                slide.read(*region)


def test_levels_of_a_pyramid_serve_the_thumbnail_and_nothing_else(tmp_path):
    pixels = np.full((512, 512, 3), 200, np.uint8)
    half = np.full((256, 256, 3), 196, np.uint8)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, photometric="rgb", tile=(128, 128), resolution=(20000, 20000), resolutionunit=3)
        tiff.write(half, photometric="rgb", tile=(128, 128), subfiletype=1)
    with open_slide(path) as slide:
        assert slide.info.levels == ((512, 512), (256, 256))
        assert slide.info.mpp == (0.5, 0.5)
        assert slide.thumbnail(80).mean() == 196
        assert slide.thumbnail(100).mean() == 200
        assert slide.read(0, 0, 512, 512).mean() == 200


def test_a_level_with_other_colours_or_damage_is_not_used(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(np.full((512, 512, 3), 200, np.uint8), photometric="rgb", tile=(128, 128))
        tiff.write(np.full((256, 256, 3), (200, 120, 120), np.uint8), photometric="rgb", tile=(128, 128), subfiletype=1)
    with open_slide(path) as slide:
        assert not slide.level_is_true(1)
        assert (slide.thumbnail(80) == 200).all()


def test_ome_levels_in_subdirectories_are_found_with_resolution_and_date(tmp_path):
    path = tmp_path / "a.ome.tif"
    ome = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Instrument><Objective NominalMagnification="40.0"/></Instrument>'
        "<Image><AcquisitionDate>2021-03-04T05:06:07</AcquisitionDate>"
        '<Pixels PhysicalSizeX="227" PhysicalSizeXUnit="nm" PhysicalSizeY="0.000000228" PhysicalSizeYUnit="m"/>'
        "</Image></OME>"
    )
    with tifffile.TiffWriter(path, ome=False) as tiff:
        tiff.write(image(300, 200), photometric="rgb", tile=(64, 64), subifds=1, description=ome, metadata=None)
        tiff.write(image(150, 100), photometric="rgb", tile=(64, 64), subfiletype=1, metadata=None)
    with open_slide(path) as slide:
        assert slide.info.levels == ((300, 200), (150, 100))
        assert slide.info.mpp == pytest.approx((0.227, 0.228))
        assert slide.info.objective_power == 40
        assert slide.info.scan_week == "2021-W09"
        np.testing.assert_array_equal(slide.read(0, 0, 300, 200), image(300, 200))


def test_thumbnail_of_one_level_is_made_in_strips_of_bounded_size(tmp_path, monkeypatch):
    pixels = image(700, 500)
    path = write(tmp_path / "a.tif", pixels, **TILED)
    with open_slide(path) as slide:
        whole = slide.thumbnail(70)
        largest = []
        original = type(slide)._read

        def watched(self, level, x, y, width, height):
            largest.append(width * height)
            return original(self, level, x, y, width, height)

        monkeypatch.setattr(type(slide), "_read", watched)
        for budget in (40_000, 3_000):
            monkeypatch.setattr(base, "STRIP_PIXELS", budget)
            largest.clear()
            assert np.abs(slide.thumbnail(70).astype(int) - whole).max() <= 1
            assert max(largest) <= budget * 1.5
    assert whole.shape == (50, 70, 3)
    expected = pixels.reshape(50, 10, 70, 10, 3).mean(axis=(1, 3))
    assert np.abs(whole - expected).max() <= 1


@pytest.mark.parametrize("alpha", ["unassalpha", "assocalpha"])
def test_transparent_areas_are_laid_on_the_slides_own_glass(tmp_path, alpha):
    pixels = np.empty((128, 128, 4), np.uint8)
    pixels[...] = (231, 228, 233, 255)
    pixels[:64, :64] = 0
    pixels[64:, 64:] = (100, 50, 100, 128)
    path = write(tmp_path / "a.tif", pixels, tile=(64, 64), compression="deflate", extrasamples=[alpha])
    with open_slide(path) as slide:
        assert slide.info.background == (231, 228, 233)
        got = slide.read(0, 0, 128, 128)
    assert (got[:64, :64] == (231, 228, 233)).all()
    assert (got[:64, 64:] == (231, 228, 233)).all()
    front = np.array([100, 50, 100]) * (128 / 255 if alpha == "unassalpha" else 1)
    assert np.abs(got[100, 100] - (front + np.array([231, 228, 233]) * 127 / 255)).max() <= 1


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_compositing_stays_between_both_colours(colour, alpha, behind):
    got = composite(np.full((1, 1, 3), colour, np.uint8), np.full((1, 1), alpha, np.uint8), (behind,) * 3)
    assert min(colour, behind) <= got.min() <= got.max() <= max(colour, behind)


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((20000, 25000), "CENTIMETER", (0.5, 0.4)),
        ((50800, 50800), "INCH", (0.5, 0.5)),
        ((96, 96), "INCH", None),
        ((600, 600), "INCH", None),
        ((1200, 1200), "INCH", None),
        ((472.4, 472.4), "CENTIMETER", None),
        ((2500, 2500), "CENTIMETER", (4, 4)),
        ((1, 1), "NONE", None),
        ((4e9, 4e9), "CENTIMETER", None),
    ],
)
def test_resolution_tags_are_believed_where_a_microscope_can_have_them(tmp_path, resolution, unit, expected):
    path = write(tmp_path / "a.tif", image(100, 80), resolution=resolution, resolutionunit=unit, **TILED)
    with open_slide(path) as slide:
        assert slide.info.mpp == (None if expected is None else pytest.approx(expected))
        assert bool(slide.info.notes) == (expected is None)


def test_a_printers_resolution_is_not_believed_in_strips_either_but_a_coarse_ome_tiff_is(tmp_path):
    printed = {"resolution": (1200, 1200), "resolutionunit": "INCH", "metadata": None}
    with open_slide(write(tmp_path / "a.tif", image(100, 80), **printed)) as slide:
        assert (slide.info.reader, slide.info.mpp) == ("tifffile", None)
        assert any("21.17" in note for note in slide.info.notes)
    ome = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image>'
        '<Pixels PhysicalSizeX="20" PhysicalSizeY="20"/></Image></OME>'
    )
    with open_slide(write(tmp_path / "b.ome.tif", image(100, 80), description=ome, **printed, **TILED)) as slide:
        assert slide.info.mpp == (20, 20)


def test_no_resolution_is_said_and_none_is_invented(tmp_path):
    with open_slide(write(tmp_path / "a.tif", image(10, 10), metadata=None)) as slide:
        assert slide.info.mpp is None
        assert slide.info.objective_power is None
        assert any("resolution" in note for note in slide.info.notes)


def test_colour_profile_is_kept_byte_for_byte(tmp_path):
    profile = os.urandom(301)
    for options in (TILED, {}):
        with open_slide(write(tmp_path / "a.tif", image(90, 90), iccprofile=profile, **options)) as slide:
            assert slide.info.icc_profile == profile


@pytest.mark.parametrize(
    ("pixels", "options", "words"),
    [
        (np.zeros((80, 80, 3), np.uint16), {}, "16 bits"),
        (np.zeros((80, 80), np.uint8), {"photometric": "minisblack"}, "grey"),
        (np.zeros((3, 80, 80), np.uint8), {"photometric": "minisblack"}, "3 images of one grey channel"),
        (np.zeros((80, 80, 4), np.uint8), {"photometric": "separated"}, "CMYK"),
        (
            np.zeros((80, 80), np.uint8),
            {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)},
            "palette",
        ),
        (np.zeros((80, 80, 3), np.float32), {}, "32 bits"),
    ],
)
def test_what_is_not_8_bit_rgb_is_refused_with_what_it_is(tmp_path, pixels, options, words):
    with pytest.raises(NotRGB, match=words):
        open_slide(write(tmp_path / "a.tif", pixels, **options))


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {}], ids=["tiles", "strips"])
@pytest.mark.parametrize("ome", [False, True])
def test_a_first_image_that_is_not_the_slide_is_refused(tmp_path, layout, ome):
    """An overview or label in front, as converters write it; published as the slide it would be a lost slide."""
    path = tmp_path / ("a.ome.tif" if ome else "a.tif")
    with tifffile.TiffWriter(path, ome=ome) as tiff:
        for pixels in (image(80, 60), image(300, 170)):
            tiff.write(pixels, photometric="rgb", metadata={"Name": "x"} if ome else None, **layout)
    with pytest.raises(UnsupportedSlide, match="first image, 80 x 60 px, is smaller than a later one, 300 x 170 px"):
        open_slide(path)


def test_a_smaller_image_behind_the_slide_is_none_of_our_business(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for pixels in (image(300, 170), image(80, 60)):
            tiff.write(pixels, photometric="rgb", metadata=None, tile=(64, 64))
    with open_slide(tmp_path / "a.tif") as slide:
        assert np.array_equal(slide.read(0, 0, 300, 170), image(300, 170))


def test_of_several_images_of_one_size_the_first_is_taken_and_that_is_noted(tmp_path):
    pixels = np.stack([image(300, 170, seed=seed) for seed in (1, 2, 3)])
    with open_slide(write(tmp_path / "a.tif", pixels, **TILED)) as slide:
        assert "it holds 3 images of this size, of which the first is taken" in slide.info.notes
        assert np.array_equal(slide.read(0, 0, 300, 170), pixels[0])


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {}], ids=["tiles", "strips"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_image_that_is_stored_turned_is_refused(tmp_path, layout, orientation):
    """OpenSlide turns each tile in its place; other readers turn nothing, or the whole."""
    path = write(tmp_path / "a.tif", image(300, 170), extratags=[(274, 3, 1, orientation, True)], **layout)
    with pytest.raises(UnsupportedSlide, match=f"turned or mirrored .orientation {orientation}"):
        open_slide(path)


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {}], ids=["tiles", "strips"])
def test_a_fourth_sample_of_no_stated_meaning_is_no_transparency(tmp_path, layout):
    pixels = np.dstack([image(300, 170), np.zeros((170, 300), np.uint8)])
    path = write(tmp_path / "a.tif", pixels, extrasamples=["unspecified"], **layout)
    with open_slide(path) as slide:
        assert np.array_equal(slide.read(0, 0, 300, 170), pixels[..., :3])


# What the file system has in store


def test_missing_empty_and_odd_paths(tmp_path):
    with pytest.raises(SlideVanished):
        open_slide(tmp_path / "nothing.svs")
    (tmp_path / "a.svs").touch()
    with pytest.raises(EmptyFile):
        open_slide(tmp_path / "a.svs")
    os.mkfifo(tmp_path / "pipe.svs")
    with pytest.raises(NotARegularFile):
        open_slide(tmp_path / "pipe.svs")
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotASlide, match="neither DICOM"):
        open_slide(tmp_path / "folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_a_file_without_permission_is_the_sources_fault(tmp_path):
    path = write(tmp_path / "a.tif", image(10, 10))
    path.chmod(0)
    with pytest.raises(SourceUnavailable):
        open_slide(path)


def test_an_error_of_the_disk_is_the_sources_fault(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", image(1000, 1000), **TILED)
    with open_slide(path) as slide:

        def broken(*_):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "pread", broken)
        with pytest.raises(SourceUnavailable, match="Input/output error"):
            slide.read(128, 128, 64, 64)


def test_names_with_newlines_and_of_255_bytes_are_read(tmp_path):
    for name in ("two\nlines.tif", "x" * 251 + ".tif", "μm.tif"):
        assert probe(write(tmp_path / name, image(100, 80), **TILED)).width == 100


def test_a_file_cut_while_it_is_read_has_changed(tmp_path):
    path = write(tmp_path / "a.tif", image(600, 600), **TILED)
    with open_slide(path) as slide:
        os.truncate(path, 5000)
        with pytest.raises(SlideChanged):
            slide.read(0, 0, 600, 600)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), UnsupportedSlide, "PNG"),
        (b"\xff\xd8\xff\xe0" + bytes(100), UnsupportedSlide, "JPEG"),
        (b"PK\x03\x04" + bytes(100), UnsupportedSlide, "ZIP"),
        (bytes(5000), NotASlide, "zeros"),
        (b"hello", NotASlide, "no reader"),
        (b"II*\x00", TruncatedSlide, "header"),
        (b"II*\x00" + bytes(100), NotASlide, "without any image"),
        (b"II*\x00\x08\x00\x00\x00" + bytes(100), TruncatedSlide, "zeros"),
        (b"II*\x00\x00\x10\x00\x00" + bytes(100), TruncatedSlide, "directory"),
    ],
)
def test_other_content_is_named(tmp_path, content, error, words):
    path = tmp_path / "a.svs"
    path.write_bytes(content)
    with pytest.raises(error, match=words):
        open_slide(path)


# Damage


def test_every_truncation_is_told_with_the_bytes_that_are_missing(tmp_path):
    whole = write(tmp_path / "a.tif", image(300, 200), **TILED).read_bytes()
    cut = tmp_path / "b.tif"
    for keep in [8, 9, 50, 200, *range(300, len(whole), len(whole) // 40), len(whole) - 1]:
        cut.write_bytes(whole[:keep])
        with pytest.raises(TruncatedSlide) as caught:
            open_slide(cut)
        assert "missing" in str(caught.value) or "end" in str(caught.value)
    cut.write_bytes(whole[:-1])
    with pytest.raises(TruncatedSlide, match=r": 1 bytes are missing"):
        open_slide(cut)


def test_a_copy_of_reserved_size_is_not_complete(tmp_path):
    whole = write(tmp_path / "a.tif", image(600, 400), **TILED).read_bytes()
    part = tmp_path / "b.tif"
    for share in (0.2, 0.5, 0.8, 0.97):
        keep = int(len(whole) * share)
        part.write_bytes(whole[:keep] + bytes(len(whole) - keep))
        with pytest.raises(SlideError):
            probe(part)
    part.write_bytes(whole)
    assert probe(part).width == 600


def test_complete_means_that_the_tile_last_in_the_file_reads_too(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(image(600, 400), photometric="rgb", **TILED)
        tiff.write(image(300, 200), photometric="rgb", subfiletype=1, **TILED)
    assert len(probe(path).levels) == 2
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[1].dataoffsets[-1], tiff.pages[1].databytecounts[-1]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(count))
    with pytest.raises(UnreadableTile, match="level 1, x 256, y 192 "):
        probe(path)


def patched(path, tag, **change):
    """Overwrite count or value of a tag in the first directory of a little-endian classic TIFF."""
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].tags[tag].offset
    data = bytearray(path.read_bytes())
    if "count" in change:
        data[place + 4 : place + 8] = struct.pack("<I", change["count"])
    if "value" in change:
        data[place + 8 : place + 12] = struct.pack("<I", change["value"])
    path.write_bytes(data)
    return path


def test_declared_size_over_the_limit_is_refused_before_anything_is_allocated(tmp_path):
    path = write(tmp_path / "a.tif", image(100, 100), **TILED)
    for tag in (256, 257):
        # The TIFF now holds far too few tiles as well; the size is what is said.
        patched(path, tag, value=2**31 - 1)
    tracemalloc.start()
    with pytest.raises(TooLarge, match="2,147,483,647"):
        open_slide(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 2**20
    with pytest.raises(TooLarge, match=r"megapixels is 0\.001"):
        open_slide(write(path, image(100, 100), **TILED), max_megapixels=0.001)


def test_a_loop_of_directories_ends(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for _ in range(3):
            tiff.write(image(70, 70), photometric="rgb")
    with tifffile.TiffFile(path) as tiff:
        first, last = tiff.pages[0].offset, tiff.pages[2]
        link = last.offset + 2 + 12 * len(last.tags)
    data = bytearray(path.read_bytes())
    assert data[link : link + 4] == bytes(4)
    data[link : link + 4] = struct.pack("<I", first)
    path.write_bytes(data)
    with pytest.raises(NotASlide, match="loop"):
        open_slide(path)


@pytest.mark.parametrize(
    ("tag", "change", "error"),
    [
        (324, {"value": 2**32 - 8}, TruncatedSlide),
        (324, {"count": 2**32 - 1}, TruncatedSlide),
        (325, {"count": 1}, UnsupportedSlide),
        (322, {"value": 0}, UnsupportedSlide),
        (322, {"value": 2**31}, SlideError),
        (259, {"value": 52479}, UnsupportedSlide),
        (259, {"value": 4}, UnsupportedSlide),
        (277, {"value": 60000}, NotRGB),
        (256, {"value": 0}, NotASlide),
    ],
)
def test_impossible_tables_are_refused(tmp_path, tag, change, error):
    path = patched(write(tmp_path / "a.tif", image(300, 200), **TILED), tag, **change)
    with pytest.raises(error):
        open_slide(path)


def test_a_strip_too_large_to_decode_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", image(300, 200), compression="deflate", rowsperstrip=200)
    monkeypatch.setattr(tiff_directory, "MAX_SEGMENT_BYTES", 100_000)
    with pytest.raises(UnsupportedSlide, match="300 x 200"):
        open_slide(path)
    # Stored as it is, the same strip is read by rows.
    path = write(tmp_path / "a.tif", image(300, 200), rowsperstrip=200)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(7, 50, 90, 100), image(300, 200)[50:150, 7:97])


def damaged(path, tiles, fill=b"\0"):
    with tifffile.TiffFile(path) as tiff:
        places = [(tiff.pages[0].dataoffsets[tile], tiff.pages[0].databytecounts[tile]) for tile in tiles]
    with path.open("r+b") as file:
        for offset, count in places:
            file.seek(offset)
            file.write((fill * count)[:count])
    return path


@pytest.mark.parametrize("compression", ["deflate", "jpeg", "lzw", "zstd", "jpeg2000"])
def test_an_unreadable_tile_is_named_and_the_others_still_read(tmp_path, compression):
    pixels = image(300, 200)
    path = write(tmp_path / "a.tif", pixels, tile=(64, 64), compression=compression)
    with open_slide(path) as slide:
        expected = slide.read(0, 0, 300, 200)
    damaged(path, [7])  # row 1, column 2 of five columns
    with open_slide(path) as slide:
        with pytest.raises(UnreadableTile, match="level 0, x 128, y 64 "):
            slide.read(0, 0, 300, 200)
        np.testing.assert_array_equal(slide.read(0, 0, 300, 64), expected[:64])
        np.testing.assert_array_equal(slide.read(192, 64, 108, 136), expected[64:, 192:])


def test_a_jpeg_tile_that_was_cut_off_is_not_filled_up_in_silence(tmp_path, tissue_image):
    path = write(tmp_path / "a.tif", tissue_image, tile=(64, 64), compression="jpeg")
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    with path.open("r+b") as file:
        file.seek(offset + count // 2)
        file.write(bytes(count - count // 2))
    with open_slide(path) as slide, pytest.raises(UnreadableTile, match="ends too early"):
        slide.read(0, 0, 10, 10)


def test_a_tile_that_declares_a_huge_picture_is_not_decoded(tmp_path):
    path = write(tmp_path / "a.tif", image(128, 128), tile=(64, 64), compression="jpeg")
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    data = bytearray(path.read_bytes())
    frame = data.find(b"\xff\xc0", offset)
    assert offset < frame < offset + count
    assert declared_size(bytes(data[offset : offset + count]), "jpeg") == (64, 64)
    data[frame + 5 : frame + 9] = b"\xff\xdc\xff\xdc"
    path.write_bytes(data)
    with open_slide(path) as slide, pytest.raises(UnreadableTile, match="declares 65,500 x 65,500"):
        slide.read(0, 0, 10, 10)
    write(path, image(128, 128), tile=(64, 64), compression="jpeg2000")
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    assert declared_size(path.read_bytes()[offset : offset + count], "jpeg2000") == (64, 64)


def test_deflate_that_inflates_without_end_is_bounded(tmp_path):
    # Made in pieces, so that this process has not been as large itself.
    deflate = zlib.compressobj(9)
    bomb = b"".join([*(deflate.compress(bytes(1 << 20)) for _ in range(400)), deflate.flush()])
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, iter([bomb]), shape=(64, 64, 3), dtype=np.uint8, photometric="rgb", tile=(64, 64), compression="deflate"
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_slide(path) as slide, contextlib.suppress(UnreadableTile):
        assert (slide.read(0, 0, 64, 64) == 0).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.fixture(scope="module")
def specimens(tmp_path_factory):
    """Small files of several layouts, as bytes, to be damaged."""
    folder = tmp_path_factory.mktemp("specimens")
    made = []
    for index, options in enumerate(LAYOUTS.values()):
        made.append(write(folder / f"{index}.tif", image(150, 90), **options).read_bytes())
    made.append(write(folder / "j.tif", image(150, 90), tile=(64, 64), compression="jpeg").read_bytes())
    return made


def read_whole(path):
    with open_slide(path, max_megapixels=4) as slide:
        slide.thumbnail(50)
        slide.read(0, 0, slide.info.width, slide.info.height)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_anywhere_never_raises_anything_but_a_slide_error(tmp_path, specimens, data):
    content = bytearray(data.draw(st.sampled_from(specimens)))
    start = data.draw(st.one_of(st.integers(0, 400), st.integers(0, len(content) - 1)))
    start = min(start, len(content) - 1)
    garbage = data.draw(st.binary(min_size=1, max_size=40))
    content[start : start + len(garbage)] = garbage
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with contextlib.suppress(SlideError):
        read_whole(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([b"", b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"II*\0\x08\0\0\0", bytes(128) + b"DICM"]),
    st.binary(),
)
def test_random_bytes_never_raise_anything_but_a_slide_error(tmp_path, head, tail):
    path = tmp_path / "a.svs"
    path.write_bytes(head + tail)
    with pytest.raises(SlideError):
        read_whole(path)


# Handles


def test_open_slides_are_never_pickled(tmp_path):
    with open_slide(write(tmp_path / "a.tif", image(10, 10))) as slide, pytest.raises(TypeError, match="open_cached"):
        pickle.dumps(slide)
    assert pickle.loads(pickle.dumps(slide.info)) == slide.info


def test_cached_slides_are_reused_reopened_when_changed_and_forgotten_in_turn(tmp_path):
    path = write(tmp_path / "a.tif", image(100, 80), **TILED)
    first = open_cached(path)
    assert open_cached(str(path)) is first
    write(path, image(60, 50), **TILED)
    second = open_cached(path)
    assert second is not first
    assert second.info.width == 60
    others = [write(tmp_path / f"{index}.tif", image(50, 50), **TILED) for index in range(reader.CACHED_SLIDES)]
    for other in others:
        open_cached(other)
    assert open_cached(path) is not second
    path.unlink()
    with pytest.raises(SlideVanished):
        open_cached(path)


def test_evicted_slides_still_read_for_whoever_holds_them_and_then_close(tmp_path):
    def open_files():
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    paths = [write(tmp_path / f"{index}.tif", image(100, 80), **TILED) for index in range(12)]
    for path in paths[:5]:
        open_cached(path)
    before = open_files()
    held = open_cached(paths[0])
    for path in paths:
        open_cached(path)
    np.testing.assert_array_equal(held.read(0, 0, 100, 80), image(100, 80))
    del held
    assert open_files() <= before + 1


def test_decoded_tiles_are_kept_for_the_slide_that_is_worked_on_only(tmp_path):
    paths = [write(tmp_path / f"{index}.tif", image(900, 700), **TILED) for index in range(2)]
    first = open_cached(paths[0])
    first.read(0, 0, 900, 700)
    assert first._cached >= 900 * 700 * 3
    open_cached(paths[1])
    assert first._cached == 0
    np.testing.assert_array_equal(first.read(0, 0, 900, 700), image(900, 700))


def test_threads_share_a_slide(tmp_path):
    pixels = image(900, 700)
    path = write(tmp_path / "a.tif", pixels, **TILED)
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(15):
            x, y = int(rng.integers(0, 700)), int(rng.integers(0, 500))
            got = open_cached(path).read(x, y, 200, 200)
            if not np.array_equal(got, pixels[y : y + 200, x : x + 200]):
                wrong.append((x, y))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_after_a_fork_nothing_open_is_shared(tmp_path):
    code = """
import os, sys
from wsi_denoise.slide import reader
path = sys.argv[1]
mine = reader.open_cached(path)
child = os.fork()
if child == 0:
    fresh = reader.open_cached(path)
    os._exit(0 if fresh is not mine and fresh.read(0, 0, 5, 5).shape == (5, 5, 3) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    path = write(tmp_path / "a.tif", image(100, 80), **TILED)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(path)], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_importing_the_reader_is_cheap():
    heavy = ("tiatoolbox", "openslide", "tifffile", "torch", "PIL", "scipy", "cv2", "pydicom")
    code = (
        "import sys, wsi_denoise.slide.reader, wsi_denoise.slide.tissue\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# Metadata


@pytest.mark.parametrize(
    ("text", "week"),
    [
        ("12/29/09", "2009-W53"),
        ("2011/05/23", "2011-W21"),
        ("20200131", "2020-W05"),
        ("2012-03-31T10:18:35.0Z", "2012-W13"),
        ("31.12.2018 11:00", "2019-W01"),
        ("13/13/13", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_weeks_of_scan(text, week):
    assert metadata.scan_week(text) == week


def test_serials_are_hashed_and_short():
    assert metadata.serial_hash("CPAPERIOCS") == "298c8067a6bf"
    assert metadata.serial_hash(None) is None


@given(st.one_of(st.none(), st.floats()), st.one_of(st.none(), st.floats()))
def test_resolution_is_possible_or_none(x, y):
    mpp, notes = metadata.believed_mpp(x, y)
    assert (mpp is None) == bool(notes)
    assert mpp is None or all(0.01 <= value <= 50 for value in mpp)


def test_directories_are_read_as_tifffile_reads_them(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(image(300, 200), photometric="rgb", tile=(64, 64), subifds=2, compression="lzw")
        tiff.write(image(150, 100), photometric="rgb", tile=(64, 64), subfiletype=1)
        tiff.write(image(75, 50), photometric="rgb", tile=(64, 64), subfiletype=1)
        tiff.write(image(40, 40), photometric="rgb")
    facts = tiff_check.check_tiff(path, 100)
    assert [each.path for each in facts.directories] == [(0,), (0, 0), (0, 1), (1,)]
    with tifffile.TiffFile(path) as tiff:
        for each in facts.directories:
            page = tiff.pages[each.path[0]]
            page = page.pages[each.path[1]] if len(each.path) > 1 else page
            assert each.size == (page.imagewidth, page.imagelength)
            assert tuple(each.offsets) == page.dataoffsets
            assert tuple(each.counts) == page.databytecounts
