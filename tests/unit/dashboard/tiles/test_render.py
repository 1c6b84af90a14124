"""Tiles: the geometry of Deep Zoom, and that each tile shows the right pixels in the right colours."""

import io
import threading
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from dashboard.responses import NotFound
from dashboard.tiles import difference
from dashboard.tiles.colour import ToSrgb, map_colours, painted
from dashboard.tiles.deepzoom import Box, DeepZoom
from dashboard.tiles.maps import load as load_maps
from dashboard.tiles.maps import rounded_up
from dashboard.tiles.render import TileCache, Tiles
from dashboard.tiles.slides import EMPTY, MOST_PIXELS, OpenSlides, PicturePlane, View
from wsi_denoise.errors import SlideError
from wsi_denoise.slide import overview
from wsi_denoise.slide.halving import halve

SIZES = st.integers(1, 70_000)


@settings(deadline=None)
@given(width=SIZES, height=SIZES, level=st.integers(0, 17))
def test_the_tiles_of_a_level_cover_it_once(width, height, level):
    picture = DeepZoom(width, height, tile=4096)
    level = min(level, picture.last)
    columns, rows = picture.shape(level)
    assert picture.size(picture.last) == (width, height)
    assert picture.size(0) == (1, 1)
    boxes = [[picture.box(level, column, row) for column in range(columns)] for row in range(rows)]
    assert sum(box.width for box in boxes[0]) == picture.size(level)[0]
    assert sum(row[0].height for row in boxes) == picture.size(level)[1]
    assert boxes[0][0].left == boxes[0][0].top == 0
    step = 1 << (picture.last - level)
    assert width <= boxes[-1][-1].right < width + step
    assert height <= boxes[-1][-1].bottom < height + step
    for one, other in zip(boxes[0], boxes[0][1:], strict=False):
        assert one.right == other.left
    assert picture.box(level, columns, 0) is None
    assert picture.box(level, 0, rows) is None
    assert picture.box(picture.last + 1, 0, 0) is None


@pytest.fixture
def tiles(processed):
    def make(**options):
        case = processed(**options)
        return case, Tiles(case.settings, case.store.job)

    return make


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_tile_is_the_slide_pixel_for_pixel(tiles):
    case, shown = tiles()
    last = DeepZoom(700, 900).last
    for which, pixels in (("before", case.before), ("after", case.after)):
        tile = decoded(shown.tile(case.job, which, (last, 1, 1), "png"))
        np.testing.assert_array_equal(tile, pixels[512:900, 512:700])
        smaller = decoded(shown.tile(case.job, which, (last - 1, 0, 0), "png"))
        np.testing.assert_array_equal(smaller, halve(pixels))
    seen = decoded(shown.tile(case.job, "after", (last, 0, 0), "jpeg")).astype(int)
    assert np.abs(seen - case.after[:512, :512]).mean() < 4
    with pytest.raises(NotFound):
        shown.tile(case.job, "after", (last, 2, 0), "jpeg")


def test_the_difference_lies_around_grey(tiles):
    case, shown = tiles()
    last = DeepZoom(700, 900).last
    tile = decoded(shown.tile(case.job, "difference", (last, 0, 0), "png", 3))
    change = case.before[:512, :512].astype(int) - case.after[:512, :512]
    np.testing.assert_array_equal(tile, np.clip(128 + 3 * change, 0, 255))
    extreme = np.array([[[255.0, -255.0, 0.0]]], np.float32)
    assert difference.painted(extreme, 64, "mean").tolist() == [[[255, 0, 128]]]
    assert difference.painted(np.abs(extreme), 64, "rms").tolist() == [[[255, 255, 0]]]


def truth(before, after, step, measure):
    """The difference over areas of `step` x `step`, in whole numbers."""

    def sums(values):
        down = np.add.reduceat(values, range(0, len(values), step), axis=0)
        return np.add.reduceat(down, range(0, values.shape[1], step), axis=1)

    change = before.astype(np.int64) - after
    means = sums(change if measure == "mean" else change**2) / sums(np.ones_like(change))
    return means if measure == "mean" else np.sqrt(means)


@pytest.mark.parametrize("measure", difference.MEASURES)
@pytest.mark.parametrize("smaller", range(11))
def test_the_difference_at_low_zoom_is_that_of_level_0(processed, smaller, measure):
    case = processed(levels=0)
    # As a scanner may make it: a level of its own that is sharpened, and not what level 0 shows on average.
    sharp = np.clip(halve(case.before).astype(int) + 40 * (np.indices((450, 350)).sum(0) % 2)[..., None], 0, 255)
    with tifffile.TiffWriter(case.job.slide) as tiff:
        for number, pixels in enumerate((case.before, sharp.astype(np.uint8))):
            tiff.write(pixels, tile=(256, 256), photometric="rgb", subfiletype=number, metadata=None)
    status = Path(case.job.slide).stat()
    job = replace(case.job, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
    shown = Tiles(case.settings, case.store.job)
    geometry = shown.geometry(job)
    level, step = geometry.last - smaller, 1 << smaller
    wanted = truth(case.before, case.after, step, measure)
    columns, rows = geometry.shape(level)
    seen = np.vstack([
        np.hstack([
            decoded(shown.tile(job, "difference", (level, column, row), "png", 8, measure)) for column in range(columns)
        ])
        for row in range(rows)
    ])  # fmt: skip
    painted = np.clip(8 * wanted + (128 if measure == "mean" else 0), 0, 255)
    assert seen.shape == wanted.shape
    assert np.abs(seen - painted).max() <= 0.5001


def test_of_a_large_slide_the_difference_is_offered_from_an_eighth_on(tiles):
    case, shown = tiles()
    huge = replace(case.job, width=100_000, height=100_000)
    geometry = shown.geometry(huge)
    least = difference.least_level(geometry)
    assert (geometry.last - least, difference.least_zoom(geometry)) == (2, 0.125)
    # A tile at the smallest level that is offered reads 2048 x 2048 px.
    box = geometry.box(least, 0, 0)
    assert (box.right - box.left) * (box.bottom - box.top) <= MOST_PIXELS / 5
    with pytest.raises(NotFound, match=f"starts at level {least}"):
        shown.tile(huge, "difference", (least - 1, 0, 0), "png")
    assert difference.least_level(DeepZoom(700, 900)) == 0
    assert difference.least_zoom(DeepZoom(700, 900)) == 0


def swapped_profile():
    """A profile of a camera whose red is sRGB's green: its use is obvious."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    for at in range(132, 132 + 12 * count, 12):
        name = bytes(profile[at : at + 4])
        if name in {b"rXYZ", b"gXYZ"}:
            profile[at : at + 4] = b"gXYZ" if name == b"rXYZ" else b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("size", [(2220, 2967), (1037, 1029), (513, 2049)])
@pytest.mark.parametrize("rounded", ["up", "down"])
def test_before_and_after_lie_on_each_other_at_every_zoom(tissue_image, size, rounded):
    width, height = size
    pixels = np.pad(tissue_image, ((0, 2000), (0, 1300), (0, 0)), mode="reflect")[:height, :width]
    planes = [PicturePlane(pixels)]
    for _ in range(3):
        last = planes[-1].pixels
        if rounded == "down":
            last = last[: len(last) // 2 * 2, : last.shape[1] // 2 * 2]
        planes.append(PicturePlane(halve(last)))
    one_level, levels = View(width, height, planes[:1]), View(width, height, planes)
    picture = DeepZoom(width, height)
    for level in range(picture.last - 4, picture.last + 1):
        columns, rows = picture.shape(level)
        for column in range(columns):
            for row in range(rows):
                box = picture.box(level, column, row)
                one, other = one_level.read(box), levels.read(box)
                assert one.shape == other.shape == (box.height, box.width, 3)
                # The rounding of means; at the very edge a level that was rounded down knows less.
                assert np.abs(one[:-1, :-1].astype(int) - other[:-1, :-1]).max(initial=0) <= 2


def test_colours_are_managed_to_srgb(tiles):
    case, shown = tiles(icc=swapped_profile())
    last = DeepZoom(700, 900).last
    for which, pixels in (("before", case.before), ("after", case.after)):
        tile = decoded(shown.tile(case.job, which, (last, 0, 0), "png")).astype(int)
        assert np.abs(tile - pixels[:512, :512][..., [1, 0, 2]]).mean() < 2
    assert "sRGB" in shown.colours(case.job)
    # The difference is of what is stored.
    tile = decoded(shown.tile(case.job, "difference", (last, 0, 0), "png"))
    change = case.before[:512, :512].astype(int) - case.after[:512, :512]
    np.testing.assert_array_equal(tile, np.clip(128 + change, 0, 255))


def test_a_profile_that_is_damaged_changes_nothing():
    managed = ToSrgb(b"not a profile at all")
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    np.testing.assert_array_equal(managed(pixels), pixels)
    assert "cannot be used" in managed.note


def test_an_original_that_changed_is_not_shown_as_the_one_that_was_processed(tiles):
    case, shown = tiles()
    source = case.folder / "inbox" / "slide.tiff"
    source.write_bytes(source.read_bytes() + b"\0")
    with pytest.raises(NotFound, match="changed"):
        shown.before(case.job)
    assert shown.after(case.job)
    (case.folder / "denoised" / "slide.tiff.denoised.tiff").unlink()
    with pytest.raises(NotFound, match="any more"):
        shown.after(case.job)


class Counting:
    """A plane that counts what is read of it."""

    def __init__(self, size):
        self.size, self.most = size, 0

    def read(self, x, y, width, height):
        assert 0 <= x < x + width <= self.size[0]
        assert 0 <= y < y + height <= self.size[1]
        self.most = max(self.most, width * height)
        return np.full((height, width, 3), 7, np.uint8)


@settings(deadline=None, max_examples=25)
@given(level=st.integers(0, 16), column=st.integers(0, 80), row=st.integers(0, 80), with_overview=st.booleans())
def test_low_zoom_never_reads_level_0_whole(level, column, row, with_overview):
    size = (40_000, 39_001)
    picture = DeepZoom(*size)
    box = picture.box(min(level, picture.last), column, row)
    if box is None:
        return
    full, quarter, tiny = Counting(size), Counting((10_000, 9_751)), Counting((250, 244))
    view = View(*size, [full, *([quarter, tiny] if with_overview else [])])
    pixels = view.read(box)
    assert pixels.shape == (box.height, box.width, 3)
    assert max(full.most, quarter.most) <= 1.01 * MOST_PIXELS
    if with_overview:
        assert (pixels == 7).all()
        assert full.most <= 1.01 * (4 * 512) ** 2
    elif not full.most:
        # Said to be empty, and not guessed.
        assert (pixels == EMPTY).all()


def test_what_is_coarser_stands_in_where_nothing_finer_may_be_read():
    small = PicturePlane(np.full((100, 100, 3), 9, np.uint8))
    view = View(40_000, 40_000, [Counting((40_000, 40_000)), small])
    assert view.plane_for(Box(0, 0, 40_000, 40_000, 512, 512)) is small
    assert view.read(Box(0, 0, 40_000, 40_000, 512, 512)).shape == (512, 512, 3)


def test_where_low_zoom_comes_from(tiles, monkeypatch):
    case, shown = tiles(levels=0)
    monkeypatch.setattr(overview, "SMALL", 400)
    last = DeepZoom(700, 900).last
    assert shown.before(case.job).low_zoom == "after"
    # From close by it is the original anyway.
    np.testing.assert_array_equal(decoded(shown.tile(case.job, "before", (last, 0, 0), "png")), case.before[:512, :512])
    overview.write(
        case.settings.jobs.state / "overviews" / f"{case.job.id}.tiff", (700, 900), [halve(halve(case.before))]
    )
    assert shown.before(case.job).low_zoom == "overview"
    seen = shown.pixels(case.job, "before", DeepZoom(700, 900).box(last - 2, 0, 0))
    assert np.abs(seen.astype(int) - halve(halve(case.before))).mean() < 4


def test_the_thumbnail_of_a_running_slide_needs_no_slide(tiles, tissue_image):
    case, shown = tiles()
    running = replace(case.job, state=type(case.job.state).RUNNING, output=None)
    spool = case.settings.jobs.state / "spool" / f"{case.job.fingerprint[:20]}-0123"
    spool.mkdir(parents=True)
    (spool / "thumbnail.jpeg").write_bytes(imagecodecs.jpeg8_encode(tissue_image[:450, :350], level=95))
    (case.folder / "inbox" / "slide.tiff").unlink()
    thumbnail = decoded(shown.thumbnail(running, 90))
    assert thumbnail.shape == (90, 70, 3)


def test_the_cache_keeps_to_its_bytes():
    cache = TileCache(limit=1000)
    for number in range(50):
        cache.put(str(number), bytes(90))
        cache.put(str(number), bytes(100))
        assert cache.bytes <= 1000
    assert cache.get("49") == bytes(100)
    assert cache.get("0") is None
    cache.put("large", bytes(2000))
    assert cache.bytes == 0


def test_only_so_many_slides_are_open_and_each_is_opened_once(processed, monkeypatch):
    cases = [processed(f"{name}.tiff") for name in "abcd"]
    paths = [case.folder / "inbox" / f"{name}.tiff" for case, name in zip(cases, "abcd", strict=True)]
    slides = OpenSlides(1e4, limit=2)
    found = []
    threads = [threading.Thread(target=lambda: found.append(slides.get(paths[0]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(slide) for slide in found}) == 1
    for path in paths:
        slides.get(path)
    assert len(slides) == 2
    # Dropped, not closed: a read in progress continues.
    assert found[0].read(0, 0, 8, 8).shape == (8, 8, 3)


def test_nothing_is_kept_of_slides_that_cannot_be_opened_or_are_not_open_any_more(processed, tmp_path):
    slides = OpenSlides(1e4, limit=1)
    for name in "ab":
        path = processed(f"{name}.tiff").folder / "inbox" / f"{name}.tiff"
        assert slides.get(path) is slides.get(path)
        broken = tmp_path / f"{name}.svs"
        broken.write_bytes(b"no slide")
        with pytest.raises(SlideError):
            slides.get(broken)
    assert len(slides) == 1
    assert not slides._opening


def test_maps_are_painted_with_what_was_not_measured_left_out(processed):
    case = processed()
    found = load_maps(case.job)
    picture = imagecodecs.png_decode(found.picture("structure"))
    assert picture.shape == (10, 8, 4)
    assert picture[0, 0, 3] == 0
    assert picture[2, 3, 3] == 255
    assert found.worst() == [{"x": 336.0, "y": 240.0, "value": -9.5}, {"x": 144.0, "y": 816.0, "value": 4.0}]
    # One wild patch does not make the others dark; a slide without structure is dark.
    assert found.high("structure") == 8.0
    lightness = map_colours("noise") @ np.array([0.2126, 0.7152, 0.0722])
    assert np.diff(lightness).min() > -0.5  # rounding
    assert painted(np.array([[np.nan, 99.0]], np.float32), "noise", 2.0)[0, 1].tolist() == [
        *map_colours("noise")[-1],
        255,
    ]


@settings(deadline=None)
@given(st.floats(1e-6, 1e6))
def test_the_end_of_a_scale_is_round(value):
    high = rounded_up(value)
    assert value * (1 - 1e-6) <= high <= value * 1.67 + 1e-12
