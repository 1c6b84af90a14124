"""Tests of the training code run with one thread of torch: threads of several programs wait for each other."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
