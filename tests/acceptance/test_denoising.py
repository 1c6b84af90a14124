"""Noise added to real tissue is removed, and the metrics show it."""

from pathlib import Path

import numpy as np
import openslide
import pytest

from support.slides import add_noise, pixels_of, tiled_tissue, write_slide
from wsi_denoise.quality import patch_map

SIGMA = 25.0
GAIN = 5.0
"""dB by which a slide with noise of sigma 25 must come closer to the clean one."""


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2)))


def denoised(place, name, **settings):
    """Denoise a slide by a command, and return its job."""
    chosen = [part for key, value in settings.items() for part in ("--set", f"{key.replace('__', '.')}={value}")]
    place.cli("run", place.inbox / name, *chosen)
    (job,) = place.jobs()
    for kind in ("wavelet", "flat"):
        assert job.metrics[f"sigma_before_{kind}"] == pytest.approx(SIGMA, rel=0.25)
        assert job.metrics[f"sigma_after_{kind}"] < SIGMA / 4
    assert job.verdict == "pass", job.reasons
    assert job.mpp == pytest.approx((0.499, 0.499), rel=2e-3)
    return job


def gain(clean: np.ndarray, noisy: np.ndarray, output: np.ndarray) -> float:
    """Return by how many dB an output is closer to the clean slide than what went in."""
    return psnr(output, clean) - psnr(noisy, clean)


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_noise_on_packaged_tissue_is_removed(workplace, compression):
    clean = tiled_tissue(1700, 1100)
    noisy = add_noise(clean, SIGMA, seed=11)
    place = workplace()
    write_slide(place.inbox / "tissue.tiff", noisy, mpp=0.499)
    job = denoised(place, "tissue.tiff", output__compression=compression)
    assert gain(clean, noisy, pixels_of(job.output)) >= GAIN


@pytest.fixture(scope="module")
def cmu(shared) -> np.ndarray:
    with openslide.OpenSlide(shared / "data" / "slides" / "CMU-1-Small-Region.svs") as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


@pytest.mark.shared
@pytest.mark.slow
def test_noise_on_the_cmu_slide_is_removed(cmu, workplace):
    """The whole slide, by default: its glass, a third of it, has the same noise and is denoised too."""
    noisy = add_noise(cmu, SIGMA, seed=12)
    place = workplace()
    write_slide(place.inbox / "cmu.tiff", noisy, mpp=0.499)
    job = denoised(place, "cmu.tiff", output__compression="jpeg")
    assert job.provenance["background"] == "denoise"
    assert gain(cmu, noisy, pixels_of(job.output)) >= GAIN


@pytest.mark.shared
@pytest.mark.slow
def test_noise_on_the_tissue_of_the_cmu_slide_is_removed(cmu, workplace):
    """Glass is kept as it is, noise included, so the slide as a whole gains less than its tissue."""
    noisy = add_noise(cmu, SIGMA, seed=12)
    place = workplace()
    write_slide(place.inbox / "cmu.tiff", noisy, mpp=0.499)
    job = denoised(place, "cmu.tiff", output__compression="deflate", tissue__background="keep")
    output = pixels_of(job.output)
    patches = ~np.isnan(patch_map.load(Path(job.maps)).sigma_removed)
    tissue = np.kron(patches, np.ones((96, 96), np.bool_))[: cmu.shape[0], : cmu.shape[1]]
    assert 0.6 < tissue.mean() < 0.9
    assert gain(cmu[tissue], noisy[tissue], output[tissue]) >= GAIN
    assert (output[~tissue] == noisy[~tissue]).all()
    assert gain(cmu, noisy, output) >= 3
