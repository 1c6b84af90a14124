"""Fixtures of several modules: one cluster of one worker, and slides of real tissue for it."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from support.slide_case import Case, noisy, settings_in, write_slide
from support.started import Killer, marking
from wsi_denoise.processing.dask.cluster import Cluster, connect
from wsi_denoise.slide.geometry import BlockIndex


@pytest.fixture(scope="module")  # while it runs, Dask keeps the log of this process from the tests of other modules
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    settings = settings_in(tmp_path_factory.mktemp("cluster"))
    with marking(), connect(settings) as connected:
        yield connected


@pytest.fixture(scope="session")
def clean(tissue_image) -> np.ndarray:
    return np.pad(tissue_image, ((0, 600), (0, 700), (0, 0)), mode="reflect")[:1600, :1700]


@pytest.fixture
def strip(cluster, clean, tmp_path) -> Case:
    """A slide of two blocks, the second one narrow."""
    slide = write_slide(tmp_path / "a.tiff", noisy(clean[:200], 15))
    return Case(cluster, tmp_path, slide, settings_in(tmp_path))


@pytest.fixture
def killer() -> Iterator[Callable[[BlockIndex, int], Killer]]:
    made: list[Killer] = []

    def make(block: BlockIndex, times: int) -> Killer:
        made.append(Killer(block, times))
        return made[-1]

    yield make
    for one in made:
        one.stop()
