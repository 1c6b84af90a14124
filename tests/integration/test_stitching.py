"""Exact stitching: block by block is the whole image, on real tissue, and no line of the lattice shows."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from wsi_denoise.network.denoiser import Denoiser
from wsi_denoise.network.plan import Plan
from wsi_denoise.quality import evidence
from wsi_denoise.quality.structure import edges, seam_lines
from wsi_denoise.settings import ComputeSettings
from wsi_denoise.slide.geometry import BLOCK, PATCH, count

HALO = ComputeSettings().halo


def bench() -> ModuleType:
    """The program of the table in docs/evidence/stitching.md: the test and the table use the same code."""
    file = Path(__file__).parents[1] / "bench" / "stitching.py"
    spec = importlib.util.spec_from_file_location("stitching", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


stitching = bench()


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return Denoiser("paper", Plan("cpu", "openvino", "fp32", 8, 1), callers=1)


def seam_scores(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Energy on patch and on block lines, output relative to input, and relative to the same elsewhere."""
    strips = {}
    for row in range(count(before.shape[0], BLOCK)):
        for column in range(count(before.shape[1], BLOCK)):
            part = (slice(row * BLOCK, (row + 1) * BLOCK), slice(column * BLOCK, (column + 1) * BLOCK))
            strips[column, row] = edges(before[part], after[part])
    everything = np.ones((count(before.shape[0], PATCH), count(before.shape[1], PATCH)), np.bool_)
    measured = evidence.measure(before, after, everything).with_seam(seam_lines(strips)).summary()
    patch, block = measured["seam_patch"], measured["seam_block"]
    assert patch is not None
    assert block is not None
    return patch, block


@pytest.mark.slow
def test_blocks_of_an_image_of_3_x_2_blocks_are_the_whole_image(denoiser: Denoiser) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is an extra (cpu); torch takes minutes here")
    image = stitching.tissue(3400, 2000)
    whole = stitching.whole(image, denoiser)
    after = stitching.blockwise(image, denoiser, HALO, 8)
    error = np.abs(after.astype(np.int16) - whole)
    assert np.abs(whole.astype(np.int16) - image).mean() > 5, "nothing was denoised, so that agreeing means nothing"
    assert error.max() <= 1
    # Where noise was removed, the score at a few lines depends on the content there: the whole image has no seams.
    assert seam_scores(image, after) == pytest.approx(seam_scores(image, whole), abs=0.005)


@pytest.mark.slow
def test_no_line_shows_in_real_tissue_as_it_is(denoiser: Denoiser) -> None:
    image = stitching.tissue(3400, 2000, sigma=0)
    patch, block = seam_scores(image, stitching.blockwise(image, denoiser, HALO, 8))
    assert patch == pytest.approx(1, abs=0.02)
    assert block == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (16, 16), (97, 95), (769, 1537), (1600, 31)])
def test_odd_sizes(denoiser: Denoiser, width: int, height: int) -> None:
    image = stitching.tissue(width, height)
    whole = stitching.whole(image, denoiser)
    after = stitching.blockwise(image, denoiser, HALO, 8)
    assert after.shape == (height, width, 3)
    assert np.abs(after.astype(np.int16) - whole).max() <= 1


def test_without_halo_the_lattice_shows(denoiser: Denoiser) -> None:
    image = stitching.tissue(960, 960)
    everything = np.ones((10, 10), np.bool_)
    bare = evidence.measure(image, stitching.blockwise(image, denoiser, 0, 1), everything).summary()["seam_patch"]
    kept = evidence.measure(image, stitching.blockwise(image, denoiser, HALO, 1), everything).summary()["seam_patch"]
    assert bare is not None
    assert kept is not None
    assert bare > 1.5
    assert kept < 1.1
