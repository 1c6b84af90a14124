"""The windows of a block hold what is needed, once, and compute little else."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_denoise.slide.geometry import BLOCK, BLOCK_PATCHES, PATCH, STRIDE, BlockIndex, Lattice, Region, Span, round_up
from wsi_denoise.slide.windows import PREPARED, cover

MOST = 1_000_000
sides = st.integers(1, 5000)


def computed(windows: Sequence[Region], halo: int) -> int:
    return sum((window.size[0] + 2 * halo) * (window.size[1] + 2 * halo) for window in windows)


@given(
    sides,
    sides,
    st.sampled_from([(1,), (3,), (6, 3), (4, 2), (8, 4, 2), (16,), (16, 8, 4, 2), (16, 8, 4, 2, 1)]),
    st.sampled_from([0, 16, 48]),
    st.floats(0, 1),
    st.integers(0, 9),
)
@settings(deadline=None, max_examples=80)
def test_windows_hold_every_needed_patch_once(width, height, window_sides, halo, share, seed):
    lattice = Lattice(width, height)
    index = BlockIndex(*(number - 1 for number in lattice.block_shape))
    region = lattice.region(index)
    rows, columns = lattice.patches(index)
    needed = np.random.default_rng(seed).random((rows.stop - rows.start, columns.stop - columns.start)) < share
    covered = cover(region, needed, window_sides, halo)
    assert not covered.fitted
    held = np.zeros((16 + 16, 16 + 16), np.uint8)
    for window in covered.windows:
        side = window.size[0] // PATCH
        assert window.size == (side * PATCH, side * PATCH)
        assert side in window_sides
        row, column = (window.y.start - region.y.start) / PATCH, (window.x.start - region.x.start) / PATCH
        # Windows of a side lie on the lattice of that side: a patch has the same neighbours wherever it is needed.
        assert row % side == column % side == 0
        square = (slice(int(row), int(row) + side), slice(int(column), int(column) + side))
        assert needed[square].any()
        held[square] += 1
    assert held.max() <= 1
    assert (held[: needed.shape[0], : needed.shape[1]][needed] == 1).all()
    of_side = [cover(region, needed, (side,), halo).windows for side in window_sides]
    assert computed(covered.windows, halo) <= min(computed(windows, halo) for windows in of_side)
    assert [window.size for window in covered.windows] == sorted((w.size for w in covered.windows), reverse=True)
    # All that is read is needed by a window, or is the block.
    inside = [region, *(window.grown(halo) for window in covered.windows)]
    for part in inside:
        assert covered.area.y.start <= part.y.start < part.y.stop <= covered.area.y.stop
        assert covered.area.x.start <= part.x.start < part.x.stop <= covered.area.x.stop
    assert covered.windows or covered.area == region


def test_a_whole_block_is_one_window_and_an_island_a_small_one():
    region = Lattice(BLOCK, BLOCK).region(BlockIndex(0, 0))
    needed = np.ones((BLOCK_PATCHES, BLOCK_PATCHES), np.bool_)
    assert cover(region, needed, (16, 8, 4, 2), 48).windows == (region,)
    needed[:] = False
    needed[5, 9] = True
    assert cover(region, needed, (16, 8, 4, 2), 48).windows == (Region(Span(384, 576), Span(768, 960)),)
    needed[8:] = True
    # The lower half in two windows, the island in one.
    assert [window.size[0] // PATCH for window in cover(region, needed, (16, 8, 4, 2), 48).windows] == [8, 8, 2]


@given(
    sides,
    sides,
    st.sampled_from([(1,), (3,), (6, 3), (8, 4, 2), (16, 8, 4, 2)]),
    st.sampled_from([0, 16, 48]),
    st.floats(0, 1),
    st.integers(0, 99),
    st.sampled_from([60_000, 300_000, MOST]),
)
@settings(deadline=None, max_examples=150)
def test_windows_that_end_with_the_slide_hold_every_needed_patch_once(
    width, height, window_sides, halo, share, seed, most
):
    lattice = Lattice(width, height)
    index = BlockIndex(*(number - 1 for number in lattice.block_shape))
    region = lattice.region(index)
    rows, columns = lattice.patches(index)
    needed = np.random.default_rng(seed).random((rows.stop - rows.start, columns.stop - columns.start)) < share
    covered = cover(region, needed, window_sides, halo, most)
    held = np.zeros((2 * BLOCK, 2 * BLOCK), np.uint8)
    for window in covered.windows:
        assert (window.x.start - region.x.start) % PATCH == (window.y.start - region.y.start) % PATCH == 0
        assert all(length > 0 and length % STRIDE == 0 for length in window.size)
        held[
            window.y.start - region.y.start : window.y.stop - region.y.start,
            window.x.start - region.x.start : window.x.stop - region.x.start,
        ] += 1
    assert {window.size for window in covered.whole} <= {(side * PATCH,) * 2 for side in window_sides[:PREPARED]}
    for window in covered.fitted:
        ends = window.y.stop <= round_up(region.y.stop, STRIDE) and window.x.stop <= round_up(region.x.stop, STRIDE)
        side = window.size[0] // PATCH
        if ends and side not in window_sides:
            assert computed([window], halo) <= most
        # Where it would be too large, it is a square like any other.
        assert ends or (side in window_sides and window.size == (side * PATCH,) * 2)
    assert held.max(initial=0) <= 1
    each = np.kron(needed, np.ones((PATCH, PATCH), np.bool_))[: region.size[1], : region.size[0]]
    assert (held[: each.shape[0], : each.shape[1]][each] == 1).all()
    squares = cover(region, needed, window_sides, halo)
    assert computed(covered.windows, halo) <= computed(squares.windows, halo)


def test_a_window_ends_where_the_slide_does():
    lattice = Lattice(BLOCK + 390, 2 * BLOCK)
    strip = cover(lattice.region(BlockIndex(0, 1)), np.ones((16, 5), np.bool_), (16, 8, 4, 2), 48, MOST)
    assert strip.fitted == (Region(Span(0, BLOCK), Span(BLOCK, BLOCK + 400)),)
    region = lattice.region(BlockIndex(0, 0))
    needed = np.ones((BLOCK_PATCHES, BLOCK_PATCHES), np.bool_)
    assert cover(region, needed, (16, 8, 4, 2), 48, MOST).whole == (region,)
    # Of a wide strip that would take too much memory its quarters.
    wide = Lattice(900, BLOCK)
    found = cover(wide.region(BlockIndex(0, 0)), np.ones((16, 10), np.bool_), (16, 8, 4, 2), 48, MOST)
    assert found.whole == tuple(Region(Span(y, y + 768), Span(0, 768)) for y in (0, 768))
    assert found.fitted == tuple(Region(Span(y, y + 768), Span(768, 912)) for y in (0, 768))


@pytest.mark.parametrize("window", [1, 2])
def test_windows_as_in_the_paper_stay_single(window):
    region = Lattice(BLOCK, BLOCK).region(BlockIndex(0, 0))
    needed = np.ones((BLOCK_PATCHES, BLOCK_PATCHES), np.bool_)
    covered = cover(region, needed, (window,), 0, MOST)
    assert len(covered.whole) == (BLOCK_PATCHES // window) ** 2
    assert not covered.fitted
