"""Open slides, and one slide at any scale."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard.tiles.deepzoom import Box, DeepZoom
from dashboard.tiles.slides import EMPTY, MOST_PIXELS, OpenSlides, PicturePlane, View
from support.slides import write_tiff
from wsi_denoise.errors import SlideError
from wsi_denoise.slide.halving import halve


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


class Counting:
    """A plane that counts the pixels that are read of it."""

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
        # Empty, and not guessed.
        assert (pixels == EMPTY).all()


def test_a_coarser_plane_stands_in_where_nothing_finer_may_be_read():
    small = PicturePlane(np.full((100, 100, 3), 9, np.uint8))
    view = View(40_000, 40_000, [Counting((40_000, 40_000)), small])
    box = Box(0, 0, 40_000, 40_000, 512, 512)
    assert view.plane_for(box) is small
    assert view.read(box).shape == (512, 512, 3)


@pytest.fixture
def files(tmp_path, tissue_image):
    return [write_tiff(tmp_path / f"{name}.tiff", [tissue_image[:300, :300]]) for name in "abcd"]


def test_a_limited_number_of_slides_is_open_and_each_is_opened_once(files):
    slides = OpenSlides(1e4, limit=2)
    found = []
    threads = [threading.Thread(target=lambda: found.append(slides.get(files[0]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(slide) for slide in found}) == 1
    for file in files:
        slides.get(file)
    assert len(slides) == 2
    # Dropped, not closed: a thread that reads it continues.
    assert found[0].read(0, 0, 8, 8).shape == (8, 8, 3)


def test_a_slide_that_was_replaced_is_opened_again(files, tissue_image):
    slides = OpenSlides(1e4)
    first = slides.get(files[0])
    write_tiff(files[0], [tissue_image[:400, :300]])
    assert slides.get(files[0]).info.height == 400
    assert slides.get(files[0]) is not first
    assert len(slides) == 1


def test_a_slide_that_cannot_be_opened_is_not_kept(files, tmp_path):
    slides = OpenSlides(1e4, limit=1)
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"no slide")
    for file in files[:2]:
        assert slides.get(file) is slides.get(file)
        with pytest.raises(SlideError):
            slides.get(broken)
    assert len(slides) == 1
