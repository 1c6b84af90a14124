"""Denoisers by name."""

import numpy as np
import pytest

from training.evaluate import methods
from wsi_denoise.errors import NoSuchPreset

NOISY = np.full((2, 16, 16, 3), 100, np.uint8)


def test_a_function_is_found_by_its_address():
    found = methods.named([], functions=["numpy:subtract"])["numpy:subtract"]
    assert np.array_equal(found(NOISY, 10), NOISY - 10)


def test_a_preset_is_a_method_and_an_unknown_one_is_an_error():
    assert methods.named(["paper"])["paper"](NOISY, 0.0).shape == NOISY.shape
    with pytest.raises(NoSuchPreset):
        methods.named(["no-such-preset"])


def test_auto_keeps_a_clean_image_and_denoises_a_noisy_one():
    clean = np.full((1, 96, 192, 3), (220, 150, 190), np.uint8)
    noisy = np.clip(clean + np.random.default_rng(1).normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
    auto = methods.of_preset("auto")
    assert np.array_equal(auto(clean, 0.0), clean)
    assert np.abs(auto(noisy, 20.0) - clean.astype(float)).mean() < 4
