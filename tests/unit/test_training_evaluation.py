"""The table: right figures, the same pixels for every method, and honest intervals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from training import baselines, evaluate
from wsi_denoise.network import weights

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tissue(tissue_image, monkeypatch) -> np.ndarray:
    clean = np.stack([tissue_image[top : top + 96, :96] for top in (0, 60, 120)])
    monkeypatch.setitem(evaluate.SOURCES, "tissue", lambda _patches: clean)
    return clean


def test_psnr_of_a_known_error():
    clean = np.full((2, 16, 16, 3), 100, np.uint8)
    found = clean.copy()
    found[0] += 10
    assert evaluate.psnr(found, clean) == pytest.approx([20 * np.log10(25.5), evaluate.PERFECT])


def test_ssim_is_one_for_the_same_image_and_less_for_another(tissue):
    other = np.clip(tissue + np.random.default_rng(1).normal(0, 20, tissue.shape), 0, 255).astype(np.uint8)
    assert evaluate.ssim(tissue, tissue) == pytest.approx([1.0, 1.0, 1.0])
    assert evaluate.ssim(other, tissue).max() < 0.95


def test_interval_holds_the_mean_and_shrinks_with_more_images():
    values = np.random.default_rng(2).normal(30, 3, 400)
    low, high = evaluate.interval(values)
    few_low, few_high = evaluate.interval(values[:25])
    assert low < values.mean() < high
    assert high - low < 0.5 * (few_high - few_low)


def test_every_method_sees_the_same_pixels_and_the_noisy_input_is_first(tissue, tmp_path):
    seen: dict[str, list[bytes]] = {"one": [], "two": []}

    def method(name):
        def run(noisy, sigma):
            seen[name].append(noisy.tobytes())
            return noisy

        return run

    rows = evaluate.evaluate(
        {name: method(name) for name in seen}, tmp_path, sources=["tissue"], sigmas=[25.0, 50.0], seeds=2
    )
    assert seen["one"] == seen["two"]
    assert len(set(seen["one"])) == 4, "two seeds at two sigmas are four draws"
    assert [row.method for row in rows[:3]] == ["noisy input", "one", "two"]
    assert rows[0].psnr == rows[1].psnr
    assert rows[0].psnr == pytest.approx(20.4, abs=0.6)


def test_fixed_map_has_one_draw(tissue):
    first, second = (evaluate.noisy_images(tissue, "tissue", "fixed-map", 25.0, seed) for seed in (0, 1))
    assert np.array_equal(first, second)
    fresh, other = (evaluate.noisy_images(tissue, "tissue", "fresh", 25.0, seed) for seed in (0, 1))
    assert not np.array_equal(fresh, other)


def test_tables_name_images_seeds_and_protocol(tissue, tmp_path):
    rows = evaluate.evaluate({}, tmp_path, sources=["tissue"], sigmas=[0.0, 25.0], seeds=2)
    table = evaluate.markdown(rows)
    assert "**tissue**: 3 images, 2 noise seeds, `fresh`" in table
    assert "| noisy input | unchanged |" in table


@pytest.mark.parametrize("name", ["non-local means", "total variation", "wavelet BayesShrink"])
def test_classical_methods_remove_noise(tissue, name):
    if name.startswith("wavelet"):
        pytest.importorskip("pywt", reason="PyWavelets is not installed")
    noisy = evaluate.noisy_images(tissue, "tissue", "fresh", 25.0, 0)
    found = baselines.classical(name, {"total variation": 0.6}.get(name, 0.8))(noisy, 25.0)
    assert (evaluate.psnr(found, tissue) > evaluate.psnr(noisy, tissue) + 2).all()


def test_tuning_chooses_the_better_number(tissue, monkeypatch):
    monkeypatch.setitem(baselines.GRIDS, "total variation", (0.6, 30.0))
    method = baselines.tuned(
        "total variation", tissue, lambda x, s: evaluate.noisy_images(x, "t", "fresh", s, 0), [25.0]
    )
    noisy = evaluate.noisy_images(tissue, "tissue", "fresh", 25.0, 0)
    assert np.array_equal(method(noisy, 25.0), baselines.classical("total variation", 0.6)(noisy, 25.0))


def test_an_anchor_that_is_told_sigma_keeps_an_odd_size():
    layers = []
    for wide, deep in ((8, 13), (12, 8)):
        layers += [np.zeros((wide, deep, 3, 3), np.float32), np.zeros(wide, np.float32)]
    method = baselines._ffdnet([torch.from_numpy(layer) for layer in layers])
    assert method(np.zeros((1, 17, 33, 3), np.uint8), 25.0).shape == (1, 17, 33, 3)


@pytest.mark.parametrize("table", sorted((ROOT / "training" / "tables").glob("*.md")), ids=lambda path: path.name)
def test_the_docs_tables_are_those_that_the_evaluation_wrote(table):
    assert table.read_text().strip() in (ROOT / "docs" / "training.md").read_text()


def test_the_shipped_cards_table_is_of_the_shipped_weights():
    card = weights.card("paper")
    tables = [json.loads(file.read_text()) for file in (ROOT / "training" / "tables").glob("paper*.json")]
    assert tables
    assert all(table["sha256"] == card.sha256 for table in tables)
    assert {row.source for row in card.measured} <= set(evaluate.SOURCES)
    assert {row.sigma for row in card.measured} >= {10.0, 25.0, 50.0}
