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
