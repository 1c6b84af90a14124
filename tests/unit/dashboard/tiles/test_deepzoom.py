"""Geometry of Deep Zoom: the tiles of each level cover the slide once."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard.tiles.deepzoom import DeepZoom

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
