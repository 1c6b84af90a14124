"""Images for measurements: each has a use, and crops have the sizes that networks and codecs take."""

import numpy as np
import pytest

from training.evaluate import split


def test_choices_are_made_on_validation_images_only():
    assert split.tissues("choice") == (
        "pcam-kaggle/val",
        "kather-crc-20x, even positions",
        "pcam-kaggle/val, recoloured",
        "textures, made up",
    )
    assert not set(split.tissues("choice", "threshold", "training")) & set(split.tissues("held out"))
    assert all(name.startswith("other-stains") for name in split.tissues("threshold"))


def test_tiles_lie_side_by_side_and_halves_are_means():
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(1, 5, 7, 3)
    found = split.tiles(image, 2)
    assert found.shape == (6, 2, 2, 3)
    assert np.array_equal(found[4], image[0, 2:4, 2:4])
    flat = np.zeros((1, 4, 4, 3), np.uint8)
    flat[:, :2, 0] = 100
    assert np.array_equal(split.halved(flat)[0, :, :, 0], [[50, 0], [0, 0]])


@pytest.mark.training
@pytest.mark.shared
@pytest.mark.parametrize("name", [name for name in split.TISSUES if not name.startswith("pcam")])
def test_every_source_has_whole_patches(shared, name):
    found = split.TISSUES[name].load(shared / "data" / "patches")
    assert found.dtype == np.uint8
    assert found.shape[1] % 16 == found.shape[2] % 16 == 0
