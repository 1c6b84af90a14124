"""Blocks, patches and tiles cover a slide once; mirroring and halving are exact."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_denoise.slide.geometry import (
    BLOCK,
    BLOCK_PATCHES,
    PATCH,
    STRIDE,
    TILE,
    BlockIndex,
    Lattice,
    Region,
    Span,
    count,
    level_sizes,
    mirror,
    round_up,
    tile_shape,
)
from wsi_denoise.slide.halving import halve

ODD_SIZES = [(1, 1), (16, 16), (97, 95), (95, 97), (96, 96), (1536, 1536), (1537, 1535), (1, 4000), (4609, 1)]
sides = st.integers(1, 5000)


def coverage(size: tuple[int, int], regions: list[Region]) -> np.ndarray:
    """How often each pixel of a slide of (width, height) is covered."""
    width, height = size
    seen = np.zeros((height, width), np.uint8)
    for region in regions:
        seen[region.y.start : region.y.stop, region.x.start : region.x.stop] += 1
    return seen


def check_partition(width: int, height: int) -> None:
    lattice = Lattice(width, height)
    blocks = list(lattice.blocks())
    regions = [lattice.region(block) for block in blocks]
    assert len(blocks) == lattice.block_shape[0] * lattice.block_shape[1]
    assert blocks == sorted(set(blocks))
    assert sum(region.size[0] * region.size[1] for region in regions) == width * height
    assert (coverage((width, height), regions) == 1).all()
    patches = np.zeros(lattice.patch_shape, np.uint8)
    for block, region in zip(blocks, regions, strict=True):
        rows, columns = lattice.patches(block)
        patches[rows, columns] += 1
        assert (rows.stop - rows.start, columns.stop - columns.start) == (
            count(region.size[1], PATCH),
            count(region.size[0], PATCH),
        )
        assert region.origin == (columns.start * PATCH, rows.start * PATCH)
    assert (patches == 1).all()


@pytest.mark.parametrize("size", ODD_SIZES)
def test_blocks_and_patches_cover_odd_slides_once(size):
    check_partition(*size)


@given(sides, sides)
@settings(deadline=None, max_examples=40)
def test_blocks_and_patches_cover_every_slide_once(width, height):
    check_partition(width, height)


@given(st.integers(1, 20_000), st.integers(1, 10**4))
def test_a_length_is_rounded_up_to_whole_steps(length, step):
    assert count(length, step) == len(range(0, length, step))
    assert round_up(length, step) - step < length <= round_up(length, step)


@pytest.mark.parametrize("size", [(0, 1), (1, 0), (-3, 5)])
def test_a_slide_has_pixels(size):
    with pytest.raises(ValueError, match="no pixels"):
        Lattice(*size)


@given(sides, sides)
@settings(deadline=None)
def test_tiles_cover_each_level_once(width, height):
    for size in level_sizes(width, height):
        rows, columns = tile_shape(*size)
        assert (columns - 1) * TILE < size[0] <= columns * TILE
        assert (rows - 1) * TILE < size[1] <= rows * TILE


def test_tiles_line_up_with_blocks_at_level_0_and_1_and_patches_with_the_stride():
    assert BLOCK % TILE == 0
    assert BLOCK // 2 % TILE == 0
    assert PATCH % STRIDE == 0
    assert PATCH * BLOCK_PATCHES == BLOCK


@given(st.integers(1, 200_000), st.integers(1, 200_000))
@settings(deadline=None)
def test_levels_are_halves_rounded_up_until_one_tile(width, height):
    sizes = level_sizes(width, height)
    assert sizes[0] == (width, height)
    assert max(sizes[-1]) <= TILE
    assert all(max(size) > TILE for size in sizes[:-1])
    for larger, smaller in pairwise(sizes):
        assert smaller == ((larger[0] + 1) // 2, (larger[1] + 1) // 2)


def test_levels_of_known_slides():
    assert level_sizes(1, 1) == ((1, 1),)
    assert level_sizes(256, 256) == ((256, 256),)
    assert level_sizes(257, 1) == ((257, 1), (129, 1))
    assert level_sizes(1001, 1000) == ((1001, 1000), (501, 500), (251, 250))


@given(st.integers(2, 300), st.data())
@settings(deadline=None)
def test_mirroring_is_numpys_reflect(length, data):
    before, after = data.draw(st.integers(0, length - 1)), data.draw(st.integers(0, length - 1))
    row = np.arange(length)
    np.testing.assert_array_equal(
        row[mirror(-before, length + after, length)], np.pad(row, (before, after), mode="reflect")
    )


@given(st.integers(1, 50), st.integers(-10_000, 10_000), st.integers(0, 500))
@settings(deadline=None)
def test_mirroring_is_defined_at_any_distance(length, start, number):
    indices = mirror(start, start + number, length)
    assert len(indices) == number
    assert ((indices >= 0) & (indices < length)).all()
    steps = np.abs(np.diff(indices))
    # Each step is to the neighbour: nothing is skipped, and no edge pixel is repeated.
    assert (steps == (0 if length == 1 else 1)).all()
    inside = (np.arange(start, start + number) >= 0) & (np.arange(start, start + number) < length)
    np.testing.assert_array_equal(indices[inside], np.arange(start, start + number)[inside])


def test_nothing_cannot_be_mirrored():
    with pytest.raises(ValueError, match="nothing to mirror"):
        mirror(0, 5, 0)


def halved_slowly(pixels: np.ndarray) -> np.ndarray:
    """The definition, pixel by pixel."""
    height, width = pixels.shape[:2]
    result = np.zeros(((height + 1) // 2, (width + 1) // 2, 3), np.uint8)
    for y, x, channel in np.ndindex(result.shape):
        y_next, x_next = min(2 * y + 1, height - 1), min(2 * x + 1, width - 1)
        four = [int(pixels[row, column, channel]) for row in (2 * y, y_next) for column in (2 * x, x_next)]
        result[y, x, channel] = (sum(four) + 2) // 4
    return result


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_halving_is_exact(width, height, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    np.testing.assert_array_equal(halve(pixels), halved_slowly(pixels))


def test_halving_keeps_black_and_white_and_rounds_half_up():
    for value in (0, 255):
        np.testing.assert_array_equal(halve(np.full((5, 3, 3), value, np.uint8)), np.full((3, 2, 3), value, np.uint8))
    pair = np.array([[[1] * 3, [2] * 3]], np.uint8)
    assert halve(pair).tolist() == [[[2, 2, 2]]]


def test_halving_a_block_at_a_time_is_halving_the_slide():
    lattice = Lattice(BLOCK + 7, 11)
    pixels = np.random.default_rng(0).integers(0, 256, (11, BLOCK + 7, 3), np.uint8)
    for levels in (1, 2):
        parts, whole = [], pixels
        for block in lattice.blocks():
            part = pixels[:, lattice.region(block).x.start : lattice.region(block).x.stop]
            for _ in range(levels):
                part = halve(part)
            parts.append(part)
        for _ in range(levels):
            whole = halve(whole)
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@given(st.integers(-50, 50), st.integers(0, 50), st.integers(0, 50))
@settings(deadline=None)
def test_spans_grow_on_both_sides(start, length, margin):
    span = Span(start, start + length)
    assert len(span.grown(margin)) == length + 2 * margin


def test_a_region_says_width_first():
    region = Region(Span(10, 30), Span(5, 6))
    assert region.size == (1, 20)
    assert region.origin == (5, 10)
    assert region.grown(2) == Region(Span(8, 32), Span(3, 8))


def test_block_names_sort_as_blocks_do():
    blocks = [BlockIndex(row, column) for row in (0, 2, 10, 1234) for column in (0, 9, 10, 100)]
    assert [str(block) for block in blocks] == sorted(str(block) for block in blocks)
