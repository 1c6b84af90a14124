"""The table of noise kinds: noise of the strength and correlation named, fresh draws, and figures that are right."""

import json

import numpy as np
import pytest

from training.evaluate import kinds, measures
from training.evaluate.kinds import CLEAN, KINDS, Kind, Row
from wsi_denoise.network import weights

FLAT = np.full((128, 128, 3), 128, np.uint8)
NAMED = {kind.name: kind for kind in KINDS}


@pytest.fixture
def tissue(tissue_image, monkeypatch) -> np.ndarray:
    clean = np.stack([tissue_image[top : top + 96, :96] for top in (0, 60, 120)])
    monkeypatch.setattr(kinds, "SOURCES", {"tissue": lambda _patches: clean})
    return clean


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
    "name", ["white 10", "luminance grain 15", "channel correlation 0.4, 15", "white 15 blurred 0.8 px"]
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
        assert np.array_equal(kinds.mosaic(colour, 0, np.random.default_rng(seed)), colour)
    assert np.mean([neighbours(noise_of(NAMED["colour mosaic 10"], seed)) for seed in range(6)]) > 0.2


def test_defects_are_what_they_are_called():
    impulses = noise_of(NAMED["salt and pepper 2 %"])
    changed = (impulses != 0).any(axis=2)
    assert changed.mean() == pytest.approx(0.02, abs=0.003)
    assert set(np.unique(impulses)) == {-128, 0, 127}
    stripes = noise_of(NAMED["column stripes 8"])
    assert np.ptp(stripes, axis=0).max() == 0
    assert stripes.std() == pytest.approx(8, rel=0.2)


def test_a_row_is_the_gain_over_the_noisy_input(tissue, tmp_path):
    chosen = (NAMED[CLEAN], NAMED["white 10"])
    methods = {"nothing": lambda noisy, _: noisy, "truth": lambda _noisy, _sigma: tissue}
    rows = list(kinds.measured(methods, tmp_path, sources=["tissue"], kinds=chosen, seeds=2))
    found = {(row.method, row.kind): row for row in rows}
    nothing, truth = found["nothing", "white 10"], found["truth", "white 10"]
    assert (nothing.gain, nothing.worst, nothing.losing, nothing.images, nothing.seeds) == (0, 0, 0, 3, 2)
    noisy = [kinds.noisy_images(tissue, "tissue", chosen[1], seed) for seed in range(2)]
    before = np.mean([measures.psnr(images, tissue) for images in noisy])
    assert truth.gain == pytest.approx(measures.PERFECT - before, abs=1e-3)
    assert truth.gain_low <= truth.gain <= truth.gain_high
    assert (found["nothing", CLEAN].psnr, found["nothing", CLEAN].losing) == (measures.PERFECT, 0)


def test_an_image_that_loses_is_counted_at_each_seed(tissue, tmp_path):
    def harmful(noisy, _sigma):
        worse = noisy.copy()
        worse[0] = 255 - worse[0]
        return worse

    rows = list(kinds.measured({"harmful": harmful}, tmp_path, sources=["tissue"], kinds=KINDS[:3], seeds=2))
    assert [row.losing for row in rows] == [1, 2, 2]
    assert all(row.worst < -3 for row in rows[1:])


def test_methods_and_noise_stand_in_the_table():
    rows = [
        Row("s", "a", CLEAN, 4, 1, 60.0, 0, 0, 0, 55.0, 0),
        Row("s", "a", "white 10", 4, 3, 33.0, 5.0, 4.5, 5.5, 4.0, 0),
        Row("s", "b", "white 10", 4, 3, 32.0, 4.0, 3.5, 4.5, -0.5, 1),
    ]
    text = kinds.markdown(rows)
    assert "`s`, 4 images, 3 noise seeds" in text
    assert "| clean | 60.0, least 55.0 |  |" in text
    assert "| white 10 | +5.00 [+4.50, +5.50], worst +4.00 | +4.00 [+3.50, +4.50], worst -0.50 |" in text
    assert kinds.markdown([]) == ""


@pytest.mark.training
@pytest.mark.shared
def test_the_program_writes_a_table_of_a_presets_weights(shared, tmp_path):
    out = tmp_path / "kinds.json"
    source = "kather-crc-20x, even positions"
    given = ["--preset", "paper", "--shared", str(shared), "--source", source, "--count", "1", "--seeds", "1"]
    kinds.main([*given, "--out", str(out)])
    found = json.loads(out.read_text())
    assert found["sha256"] == weights.card("paper").sha256
    assert [row["kind"] for row in found["rows"]] == [kind.name for kind in KINDS]
    assert next(row["gain"] for row in found["rows"] if row["kind"] == "white 25") > 5


@pytest.mark.shared
def test_sources_are_validation_images_only(shared):
    patches = shared / "data" / "patches"
    for name, images in kinds.SOURCES.items():
        assert name.startswith(("pcam-kaggle/val", "kather-crc-20x, even"))
        found = images(patches)
        assert found.shape[1] % 16 == 0
        assert found.dtype == np.uint8
