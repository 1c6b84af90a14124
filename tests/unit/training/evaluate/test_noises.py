"""The kinds of noise have the strength and correlation of their names, and fresh draws."""

import numpy as np
import pytest

from training.evaluate import noises
from training.evaluate.noises import KINDS, Kind

FLAT = np.full((128, 128, 3), 128, np.uint8)
NAMED = {kind.name: kind for kind in KINDS}


def noise_of(kind: Kind, seed: int = 1) -> np.ndarray:
    return kind.make(FLAT, kind.sigma, np.random.default_rng(seed)).astype(float) - 128


def neighbours(noise: np.ndarray) -> float:
    return float(np.corrcoef(noise[:, 1:, 1].ravel(), noise[:, :-1, 1].ravel())[0, 1])


def channels(noise: np.ndarray) -> float:
    return float(np.corrcoef(noise[..., 0].ravel(), noise[..., 2].ravel())[0, 1])


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if "JPEG" not in kind.name and kind.sigma], ids=lambda k: k.name
)
def test_noise_is_drawn_anew_and_follows_its_seed(kind):
    first, same, other = (noise_of(kind, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.25


@pytest.mark.parametrize(
    "name",
    [
        "white 10",
        "luminance grain 15",
        "channel correlation 0.4, 15",
        "white 15 blurred 0.8 px",
        "white 15 enlarged by 1.6",
    ],
)
def test_noise_has_its_strength(name):
    kind = NAMED[name]
    assert noise_of(kind).std() == pytest.approx(kind.sigma, rel=0.05)


def test_noise_has_its_correlation():
    assert abs(channels(noise_of(NAMED["white 25"]))) < 0.03
    assert abs(neighbours(noise_of(NAMED["white 25"]))) < 0.03
    assert channels(noise_of(NAMED["luminance grain 15"])) > 0.999
    for correlation in (0.4, 0.8):
        assert channels(noise_of(NAMED[f"channel correlation {correlation}, 15"])) == pytest.approx(
            correlation, abs=0.03
        )
    soft = [neighbours(noise_of(NAMED[f"white 15 blurred {spread} px"])) for spread in (0.4, 0.6, 0.8)]
    assert soft == sorted(soft)
    assert soft[0] > 0.05


def test_a_mosaic_keeps_a_flat_field_and_correlates_noise():
    colour = np.full((64, 64, 3), (200, 120, 60), np.uint8)
    for seed in range(24):
        assert np.array_equal(noises.mosaic(colour, 0, np.random.default_rng(seed)), colour)
    assert np.mean([neighbours(noise_of(NAMED["colour mosaic 10"], seed)) for seed in range(6)]) > 0.2


def test_defects_are_what_they_are_called():
    impulses = noise_of(NAMED["salt and pepper 2 %"])
    changed = (impulses != 0).any(axis=2)
    assert changed.mean() == pytest.approx(0.02, abs=0.003)
    assert set(np.unique(impulses)) == {-128, 0, 127}
    stripes = noise_of(NAMED["column stripes 8"])
    assert np.ptp(stripes, axis=0).max() == 0
    assert stripes.std() == pytest.approx(8, rel=0.2)
    rows = noise_of(NAMED["row stripes 5 per channel"])
    assert np.ptp(rows, axis=1).max() == 0
    assert abs(channels(rows)) < 0.3
    hot = noise_of(NAMED["hot pixels 0.5 %"])
    assert hot.min() == 0
    assert (hot > 0).any(axis=2).mean() == pytest.approx(0.005, abs=0.002)
    assert ((hot > 0).sum(axis=2) <= 1).all()


def test_a_ramp_runs_from_nothing_to_twice_its_strength():
    noise = noise_of(NAMED["white 0 to 30 across the image"])
    assert np.ptp(noise[:, 0]) == 0
    assert noise[:, -8:].std() == pytest.approx(29, rel=0.1)
