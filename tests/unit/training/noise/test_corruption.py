"""Noise is what its protocol says: fresh is independent and of the strength asked for, the fixed map is one pattern."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from support.noise import generator, grey, noise_of
from training.noise import corruption
from training.noise.corruption import Fresh


@pytest.mark.parametrize("sigma", [5, 25, 50])
def test_corrupt_adds_noise_of_that_sigma_and_no_bias(sigma):
    clean = np.full((256, 256, 3), 128, np.uint8)
    noise = corruption.corrupt(clean, sigma, np.random.default_rng(1)).astype(float) - 128
    assert abs(noise.std() / np.hypot(sigma, 12**-0.5) - 1) < 0.02
    assert abs(noise.mean()) < 4 * sigma / np.sqrt(noise.size)


def test_corrupt_is_clipped_and_not_wrapped():
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    assert corruption.corrupt(black, 20, np.random.default_rng(1)).max() < 120
    assert corruption.corrupt(white, 20, np.random.default_rng(1)).min() > 135


def test_corrupt_rounds_to_the_nearest():
    clean = np.full((512, 512, 3), 100, np.uint8)
    noise = corruption.corrupt(clean, 0.2, np.random.default_rng(1)).astype(int) - 100
    # Rounded, |n| > 0.5 is 2.5 sigma, on both sides alike; cut off, half of all would be 99.
    assert np.mean(noise == 0) > 0.98
    assert abs(np.mean(noise == 1) - np.mean(noise == -1)) < 0.002


def test_corrupt_with_sigma_zero_changes_nothing(tissue_image):
    assert np.array_equal(corruption.corrupt(tissue_image, 0, np.random.default_rng(1)), tissue_image)


def test_fresh_is_independent_between_images_channels_and_calls():
    drawn = generator()
    first, _ = corruption.fresh(grey(2), drawn, Fresh(clean=0, varying=0))
    second, _ = corruption.fresh(grey(2), drawn, Fresh(clean=0, varying=0))
    fields = np.concatenate([noise_of(first), noise_of(second)]).reshape(12, -1)
    correlation = np.corrcoef(fields) - np.eye(12)
    assert np.abs(correlation).max() < 0.07
    field = noise_of(first)
    assert abs(np.corrcoef(field[:, :, 1:].ravel(), field[:, :, :-1].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(field[..., 1:].ravel(), field[..., :-1].ravel())[0, 1]) < 0.03


def test_fresh_has_the_sigma_it_reports():
    noisy, sigma = corruption.fresh(grey(64), generator(3), Fresh(clean=0, varying=0, highest=30))
    measured = noise_of(noisy).std(axis=(1, 2, 3))
    expected = np.hypot(sigma.numpy(), 12**-0.5)
    assert np.abs(measured[sigma > 1] / expected[sigma > 1] - 1).max() < 0.04


def test_fresh_reports_the_mean_power_of_a_varying_sigma():
    noisy, sigma = corruption.fresh(grey(64, 96), generator(4), Fresh(clean=0, varying=1, highest=30))
    measured = noise_of(noisy).std(axis=(1, 2, 3))
    assert np.abs(measured[sigma > 2] / sigma.numpy()[sigma > 2] - 1).max() < 0.1


def test_fresh_sigma_is_uniform_over_the_range():
    _, sigma = corruption.fresh(grey(4000, 2), generator(5), Fresh(clean=0, varying=0))
    counts = np.histogram(sigma.numpy(), bins=5, range=(0, 50))[0]
    assert counts.min() > 700
    assert counts.max() < 900


def test_fresh_leaves_a_share_exactly_clean():
    clean = torch.rand(2000, 3, 2, 2)
    noisy, sigma = corruption.fresh(clean, generator(6), Fresh(clean=0.1))
    untouched = sigma == 0
    assert 140 < int(untouched.sum()) < 260
    assert torch.equal(noisy[untouched], clean[untouched])


def test_fresh_is_clipped_and_in_steps_of_one_grey_level():
    clean = torch.cat([torch.zeros(8, 3, 32, 32), torch.ones(8, 3, 32, 32)])
    noisy, _ = corruption.fresh(clean, generator(7), Fresh(clean=0))
    assert float(noisy.min()) == 0.0
    assert float(noisy.max()) == 1.0
    assert float((noisy * 255 - (noisy * 255).round()).abs().max()) < 1e-4


def test_fixed_map_is_one_pattern_scaled():
    clean = np.full((96, 96, 3), 128, np.uint8)
    weak, strong = (corruption.corrupt_fixed(clean, sigma).astype(float).ravel() - 128 for sigma in (10, 20))
    assert np.corrcoef(weak, strong)[0, 1] > 0.999
    assert np.array_equal(corruption.corrupt_fixed(clean, 10), corruption.corrupt_fixed(clean, 10))
    with pytest.raises(ValueError, match="read-only"):
        corruption.fixed_pattern()[0] = 0


def test_fixed_map_batches_are_the_same_pattern_as_its_images(tissue_image):
    patch = tissue_image[:96, :96]
    clean = torch.from_numpy(np.ascontiguousarray(patch.transpose(2, 0, 1))).float()[None].repeat(20, 1, 1, 1) / 255
    noisy, sigma = corruption.fixed_map(clean, generator(11))
    assert len(set(sigma.tolist())) > 5
    for image, strength in zip(noisy, sigma.tolist(), strict=True):
        found = (image * 255).round().permute(1, 2, 0).numpy()
        differ = np.abs(found - corruption.corrupt_fixed(patch, strength))
        # float32 and float64 may fall on different sides of a whole number, rarely.
        assert differ.max() <= 1
        assert np.mean(differ > 0) < 3e-3


def test_fixed_map_refuses_other_sizes():
    with pytest.raises(ValueError, match="96 x 96"):
        corruption.corrupt_fixed(np.zeros((64, 96, 3), np.uint8), 10)


@pytest.mark.shared
@pytest.mark.parametrize("sigma", [10, 25, 50])
def test_fixed_map_is_the_authors(shared: Path, sigma):
    folder = shared / "data" / "patches" / "irunet-author-pairs" / f"noise{sigma}"
    clean_files = sorted(folder.glob("*_clean.tif"))
    assert clean_files
    for file in clean_files:
        with Image.open(file) as clean, Image.open(file.with_name(file.name.replace("clean", "noise"))) as noisy:
            differ = corruption.corrupt_fixed(np.asarray(clean), sigma).astype(int) - np.asarray(noisy)
        # Theirs was added in float32: values that miss a whole number by a millionth are rounded onto it there.
        assert np.abs(differ).max() <= 1, file.name
        assert np.count_nonzero(differ) <= 5, file.name


def test_scanner_leaves_clean_ones_clean_and_compresses_its_share(tissue_image):
    patch = torch.from_numpy(np.ascontiguousarray(tissue_image[:64, :64].transpose(2, 0, 1))).float() / 255
    clean = patch[None].repeat(100, 1, 1, 1)
    amount = corruption.Scanner(corruption.Fresh(clean=0.1), white=0.0)
    noisy, sigma = corruption.scanner(clean, generator(26), amount)
    untouched = sigma == 0
    assert 2 < int(untouched.sum()) < 22
    assert torch.equal(noisy[untouched], clean[untouched])
    assert float((noisy * 255 - (noisy * 255).round()).abs().max()) < 1e-4
    without, _ = corruption.scanner(clean, generator(26), corruption.Scanner(amount.fresh, white=0.0, compressed=0.0))
    changed = (noisy != without).flatten(1).any(1)
    assert 0.65 < float(changed[~untouched].float().mean()) < 0.95
