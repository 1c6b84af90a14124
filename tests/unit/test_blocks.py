"""Which blocks are one task."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_denoise.processing.blocks import GLASS_BLOCKS, groups
from wsi_denoise.slide.lattice import BLOCK, Lattice


def plan_of(lattice: Lattice, tissue: np.ndarray, background: str = "keep") -> SimpleNamespace:
    return SimpleNamespace(work=SimpleNamespace(lattice=lattice, background=background), tissue=tissue)


@given(st.integers(1, 6), st.integers(1, 6), st.floats(0, 1), st.integers(0, 2**32 - 1), st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_every_block_is_in_one_task_and_tissue_is_alone(columns, rows, share, seed, workers):
    lattice = Lattice(columns * BLOCK - 7, rows * BLOCK - 700)
    holds = np.random.default_rng(seed).random((rows, columns)) < share
    tissue = np.zeros(lattice.patch_shape, bool)
    for block in lattice.blocks():
        tissue[lattice.patches(block)][0, 0] = holds[block.row, block.column]
    found = list(groups(plan_of(lattice, tissue), lattice.lanes(workers)))
    assert sorted(block for group in found for block in group) == list(lattice.blocks())
    for group in found:
        assert 1 <= len(group) <= GLASS_BLOCKS
        assert len(group) == 1 or not any(holds[block.row, block.column] for block in group)
    alone = sum(len(group) == 1 for group in found)
    assert alone <= holds.sum() + 1, "glass goes together"


def test_glass_that_is_denoised_is_work_like_tissue():
    lattice = Lattice(3 * BLOCK, BLOCK)
    nothing = np.zeros(lattice.patch_shape, bool)
    assert len(list(groups(plan_of(lattice, nothing, "denoise"), lattice.blocks()))) == 3
    assert len(list(groups(plan_of(lattice, nothing), lattice.blocks()))) == 1


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 9))
def test_lanes_hold_every_block_once_and_go_along_rows(columns, rows, workers):
    lattice = Lattice(columns * BLOCK, rows * BLOCK)
    order = list(lattice.lanes(workers))
    assert sorted(order) == list(lattice.blocks())
    if rows % workers == 0:
        for one, next_ in zip(order[:-workers], order[workers:], strict=True):
            assert next_.column == one.column + 1 or next_.row == one.row + workers
