"""What the program is for: noise added to real tissue is taken away again, and the record says so."""

import numpy as np
import openslide
import pytest

SIGMA = 25.0
GAIN = 5.0
"""dB by which a slide with noise of sigma 25 must come closer to the clean one."""


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2)))


def check(place, clean, noisy, *, name, compression, pixels_of) -> None:
    """Denoise a slide by a command, and compare the output with the clean pixels."""
    place.cli("run", place.inbox / name, "--set", f"output.compression={compression}", "--set", "output.overwrite=true")
    job = place.jobs()[-1]
    output = pixels_of(job.output)
    before, after = psnr(noisy, clean), psnr(output, clean)
    print(f"{name}, {compression}: {before:.2f} to {after:.2f} dB; verdict {job.verdict}: {'; '.join(job.reasons)}")  # noqa: T201 - seen with -s
    assert after - before >= GAIN, (before, after)
    for kind in ("wavelet", "flat"):
        assert job.metrics[f"sigma_before_{kind}"] == pytest.approx(SIGMA, rel=0.25)
        assert job.metrics[f"sigma_after_{kind}"] < SIGMA / 4
    assert job.verdict == "pass", job.reasons
    assert job.mpp == pytest.approx((0.499, 0.499), rel=2e-3)


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_noise_on_packaged_tissue_is_removed(workplace, save_slide, tiled_tissue, add_noise, pixels_of, compression):
    clean = tiled_tissue(1900, 1700)
    noisy = add_noise(clean, SIGMA, seed=11)
    place = workplace()
    save_slide(place.inbox / "tissue.tiff", noisy, mpp=0.499)
    check(place, clean, noisy, name="tissue.tiff", compression=compression, pixels_of=pixels_of)


@pytest.mark.shared
@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_noise_on_the_cmu_slide_is_removed(shared, workplace, save_slide, add_noise, pixels_of, compression):
    with openslide.OpenSlide(shared / "data" / "slides" / "CMU-1-Small-Region.svs") as slide:
        clean = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    noisy = add_noise(clean, SIGMA, seed=12)
    place = workplace()
    save_slide(place.inbox / "cmu-noise-25.tiff", noisy, mpp=0.499)
    check(place, clean, noisy, name="cmu-noise-25.tiff", compression=compression, pixels_of=pixels_of)
