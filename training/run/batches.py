"""Noisy and clean batches of a training run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.data.bank import Bank
from training.noise import corruption
from training.run.configuration import Configuration

Batch = tuple[Tensor, Tensor, Tensor]
"""Noisy and clean crops, (batch, 3, side, side) in [0, 1], and sigma, (batch,) in grey levels."""


class Batches(Dataset[Batch]):
    """Noisy and clean batches by step, prefetched: one by a thread, or several by processes.

    Parameters
    ----------
    workers : int
        Number of processes that make batches; 0 for a thread, which suffices on a CPU.
    """

    def __init__(self, bank: Bank, configuration: Configuration, workers: int = 0) -> None:
        self._bank = bank
        self._configuration = configuration
        self._workers = workers
        self._next = -1
        self._ahead: Iterator[Batch] = iter(())

    def __getitem__(self, step: int) -> Batch:
        """Return the result of :meth:`make`."""
        return self.make(step)

    def at(self, step: int) -> Batch:
        """Return the batch of a step, and prefetch the next ones."""
        if self._next != step:
            self._next, self._ahead = step, self._from(step)
        self._next += 1
        return next(self._ahead)

    def _from(self, step: int) -> Iterator[Batch]:
        if self._workers:
            yield from DataLoader(
                self,
                batch_size=None,
                sampler=itertools.count(step),
                num_workers=self._workers,
                prefetch_factor=4,
                pin_memory=torch.cuda.is_available(),
            )
            return
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
            ahead = thread.submit(self.make, step)
            while True:
                step += 1
                batch, ahead = ahead.result(), thread.submit(self.make, step)
                yield batch

    def make(self, step: int) -> Batch:
        """Make the batch of a step, which depends only on the seed and the step, except for rounding.

        With another number of torch threads some values may differ by one grey level. A worker process has one thread.
        """
        rng = np.random.default_rng([self._configuration.seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        fixed = self._configuration.protocol == "fixed-map"
        side = corruption.FIXED_SIDE if fixed else int(rng.choice([64, 96, 128], p=[0.5, 0.35, 0.15]))
        count = max(1, self._configuration.pixels * 1024 // side**2)
        clean = self._bank.draw(count, side, rng)
        pairs = corruption.CORRUPT[self._configuration.protocol](clean, generator)
        return pairs.noisy, pairs.truth, pairs.sigma

    def close(self) -> None:
        """Stop the prefetching."""
        self._next, self._ahead = -1, iter(())
