"""Tiles show the right pixels of the right file in the right colours."""

import io
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms

from dashboard.responses import NotFound
from dashboard.tiles import difference
from dashboard.tiles.deepzoom import DeepZoom
from dashboard.tiles.render import Tiles
from dashboard.tiles.slides import PicturePlane
from support.slides import write_tiff
from wsi_denoise.slide import overview
from wsi_denoise.slide.halving import halve


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


def test_the_difference_is_that_of_level_0_at_low_zoom_too(processed):
    case = processed(levels=0)
    # As a scanner may make it: a level of its own that is sharpened, and not the mean of level 0.
    sharp = np.clip(halve(case.before).astype(int) + 40 * (np.indices((450, 350)).sum(0) % 2)[..., None], 0, 255)
    write_tiff(Path(case.job.slide), [case.before, sharp.astype(np.uint8)])
    status = Path(case.job.slide).stat()
    job = replace(case.job, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
    shown = Tiles(case.settings, case.store.job)
    box = shown.geometry(job).box(9, 0, 0)
    seen = decoded(shown.tile(job, "difference", (9, 0, 0), "png", 8, "rms"))
    change = difference.area_differences(PicturePlane(case.before), PicturePlane(case.after), box, "rms")
    np.testing.assert_array_equal(seen, difference.to_pixels(change, 8, "rms"))


def test_a_large_slide_has_no_difference_at_low_zoom(tiles):
    case, shown = tiles()
    huge = replace(case.job, width=100_000, height=100_000)
    least = difference.least_level(shown.geometry(huge))
    with pytest.raises(NotFound, match=f"starts at level {least}"):
        shown.tile(huge, "difference", (least - 1, 0, 0), "png")


def swapped_profile():
    """A profile of a camera whose red is sRGB's green: an image shows whether it was used."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    for at in range(132, 132 + 12 * count, 12):
        name = bytes(profile[at : at + 4])
        if name in {b"rXYZ", b"gXYZ"}:
            profile[at : at + 4] = b"gXYZ" if name == b"rXYZ" else b"rXYZ"
    return bytes(profile)


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


def test_where_low_zoom_comes_from(tiles, monkeypatch):
    case, shown = tiles(levels=0)
    monkeypatch.setattr(overview, "SMALL", 400)
    last = DeepZoom(700, 900).last
    assert shown.before(case.job).low_zoom == "after"
    # From close by it is the original.
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
