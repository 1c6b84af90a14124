"""Which blocks are one task."""

from types import SimpleNamespace

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wsi_denoise.processing.dask.batching import LEAST, SHARES, TASK_SECONDS, TaskBatcher, costs
from wsi_denoise.slide.geometry import BLOCK, Lattice


def plan_of(lattice: Lattice, tissue: np.ndarray, background: str = "keep") -> SimpleNamespace:
    return SimpleNamespace(work=SimpleNamespace(lattice=lattice, background=background), tissue=tissue)


def cost_of(columns: int, rows: int, share: float, seed: int = 0) -> tuple[Lattice, dict]:
    lattice = Lattice(columns * BLOCK, rows * BLOCK - 3)
    holds = np.random.default_rng(seed).random((rows, columns)) < share
    tissue = np.zeros(lattice.patch_shape, bool)
    for block in lattice.blocks():
        tissue[lattice.patches(block)] = holds[block.row, block.column]
    return lattice, costs(plan_of(lattice, tissue))


def tasks(batcher: TaskBatcher, slots: int, pace: float | None) -> list[tuple]:
    found = []
    while batcher:
        found.append(batcher.take(slots, pace))
    return found


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.none() | st.floats(1e-6, 10),
)
@example(1, 3, 0.5, 1, 3, None)  # blocks of glass that are one task, though there are threads enough
@settings(deadline=None, max_examples=50)
def test_every_block_is_in_one_task_in_its_order(columns, rows, share, seed, slots, pace):
    lattice, cost = cost_of(columns, rows, share, seed)
    order = list(lattice.column_order(slots))
    found = tasks(TaskBatcher(cost, order), slots, pace)
    assert [block for group in found for block in group] == order
    most = max(LEAST, TASK_SECONDS / pace if pace else 0)
    waiting = sum(cost.values())
    for group in found:
        assert group
        total = sum(cost[block] for block in group)
        # The last ones are small, so that no thread waits for another's.
        limit = min(most, waiting / (SHARES * slots))
        assert len(group) == 1 or total <= limit + cost[group[-1]] / 2 + 1e-6
        waiting -= total
    assert len(found) >= min(sum(cost[block] >= LEAST for block in order), slots)


def test_glass_goes_together_and_tissue_does_when_it_is_quick():
    lattice, glass = cost_of(20, 20, 0)
    assert len(tasks(TaskBatcher(glass, lattice.blocks()), 2, None)) < 400 / 6
    lattice, tissue = cost_of(20, 20, 1)
    second = 1 / max(tissue.values())
    assert len(tasks(TaskBatcher(tissue, lattice.blocks()), 2, None)) == 400
    assert len(tasks(TaskBatcher(tissue, lattice.blocks()), 2, 5 * second)) == 400
    assert 200 < len(tasks(TaskBatcher(tissue, lattice.blocks()), 2, second)) < 210
    # A GPU: five milliseconds a block.
    assert len(tasks(TaskBatcher(tissue, lattice.blocks()), 16, 0.005 * second)) < 200


def test_glass_that_is_denoised_is_work_like_tissue():
    lattice = Lattice(3 * BLOCK, BLOCK)
    nothing = np.zeros(lattice.patch_shape, bool)
    everything = np.ones(lattice.patch_shape, bool)
    assert costs(plan_of(lattice, nothing, "denoise")) == costs(plan_of(lattice, everything))
    assert max(costs(plan_of(lattice, nothing)).values()) < 0.1 * max(costs(plan_of(lattice, everything)).values())


def test_blocks_of_a_lost_task_are_next():
    lattice, cost = cost_of(4, 4, 0.5)
    batcher = TaskBatcher(cost, lattice.blocks())
    first = batcher.take(1)
    second = batcher.take(1)
    batcher.put_back(second)
    batcher.put_back(first)
    again = tasks(batcher, 1, None)
    assert [block for group in again for block in group] == list(lattice.blocks())


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 9))
def test_column_order_holds_every_block_once_and_runs_along_rows(columns, rows, workers):
    lattice = Lattice(columns * BLOCK, rows * BLOCK)
    order = list(lattice.column_order(workers))
    assert sorted(order) == list(lattice.blocks())
    if rows % workers == 0:
        for one, next_ in zip(order[:-workers], order[workers:], strict=True):
            assert next_.column == one.column + 1 or next_.row == one.row + workers
