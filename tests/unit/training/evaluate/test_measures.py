"""The table: right figures, the same pixels for every method, and honest intervals."""

import json
from pathlib import Path

import numpy as np
import pytest
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity

from training.evaluate import baselines, behaviour, conditions, measures, split, strengths, table
from wsi_denoise.network import weights

ROOT = Path(__file__).parents[4]
WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


@pytest.fixture
def tissue(tissue_image, monkeypatch) -> np.ndarray:
    clean = np.stack([tissue_image[top : top + 96, :96] for top in (0, 60, 120)])
    monkeypatch.setitem(split.SOURCES, "tissue", lambda _patches: clean)
    return clean


def noised(clean, sigma):
    return conditions.noisy_images(clean, "tissue", "fresh", sigma, 0)


def test_psnr_of_a_known_error():
    clean = np.full((2, 16, 16, 3), 100, np.uint8)
    found = clean.copy()
    found[0] += 10
    assert measures.psnr(found, clean) == pytest.approx([20 * np.log10(25.5), measures.PERFECT])


def test_ssim_is_scikit_images(tissue):
    other = noised(tissue, 20)
    expected = [
        structural_similarity(a, b, channel_axis=2, data_range=255, **WANG) for a, b in zip(other, tissue, strict=True)
    ]
    assert measures.ssim(other, tissue) == pytest.approx(expected, abs=1e-6)
    assert measures.ssim(tissue, tissue) == pytest.approx([1.0, 1.0, 1.0])
    pairs = [(rgb2gray(a), rgb2gray(b)) for a, b in zip(other, tissue, strict=True)]
    expected = [structural_similarity(*pair, data_range=1.0, **WANG) for pair in pairs]
    assert measures.ssim_grey(other, tissue) == pytest.approx(expected, abs=1e-6)


def test_the_papers_ssim_takes_columns_for_channels(tissue):
    other = noised(tissue, 20)
    expected = [
        structural_similarity(rgb2gray(a), rgb2gray(b), channel_axis=1, data_range=1.0, **WANG)
        for a, b in zip(other, tissue, strict=True)
    ]
    assert measures.ssim_columns(other, tissue) == pytest.approx(expected, abs=1e-6)
    assert np.abs(measures.ssim_columns(other, tissue) - measures.ssim_grey(other, tissue)).min() > 0.002


def test_interval_holds_the_mean_and_shrinks_with_more_images():
    values = np.random.default_rng(2).normal(30, 3, 400)
    low, high = measures.interval(values)
    few_low, few_high = measures.interval(values[:25])
    assert low < values.mean() < high
    assert high - low < 0.5 * (few_high - few_low)


def test_an_invented_structure_is_found_and_grain_is_not():
    rng = np.random.default_rng(3)
    grain = np.clip(200 + 2 * rng.standard_normal((192, 192, 3)), 0, 255).astype(np.uint8)
    assert measures.largest_structure(grain)[1] < 5
    grain[100:110, 50:58] -= 20
    deviation, size, own = measures.largest_structure(grain)
    assert size >= 80
    assert own >= size
    assert deviation == pytest.approx(2, abs=0.5)


def test_a_grey_level_in_a_white_channel_counts_by_that_channels_own_deviation_only():
    image = np.clip(200 + 2 * np.random.default_rng(3).standard_normal((192, 192, 3)), 0, 255).astype(np.uint8)
    image[..., 0] = 255
    image[100:110, 50:58, 0] = 253
    _, size, own = measures.largest_structure(image)
    assert size < 5
    assert own == 80


def test_every_method_sees_the_same_pixels_and_the_noisy_input_is_first(tissue, tmp_path):
    seen: dict[str, list[bytes]] = {"one": [], "two": []}

    def method(name):
        def run(noisy, sigma):
            seen[name].append(noisy.tobytes())
            return noisy

        return run

    rows = list(
        table.measured(
            {name: method(name) for name in seen}, tmp_path, sources=["tissue"], sigmas=[25.0, 50.0], seeds=2
        )
    )
    assert seen["one"] == seen["two"]
    assert len(set(seen["one"])) == 4, "two seeds at two sigmas are four draws"
    assert [row.method for row in rows[:3]] == ["noisy input", "one", "two"]
    assert rows[0].psnr == rows[1].psnr
    assert rows[0].psnr == pytest.approx(20.4, abs=0.6)


@pytest.mark.parametrize("name", ["correlated", "varying", "sensor"])
def test_other_noise_has_the_strength_asked_for(name):
    clean = np.full((2, 256, 256, 3), 128, np.uint8)
    noise = conditions.noisy_images(clean, "flat", name, 12.0, 0).astype(float) - 128
    assert np.sqrt(np.square(noise).mean()) == pytest.approx(12.0, rel=0.06)
    neighbours = np.corrcoef(noise[0, :, 1:, 0].ravel(), noise[0, :, :-1, 0].ravel())[0, 1]
    assert (neighbours > 0.1) == (name != "varying")
    ends = noise[:, :, -40:].std() / noise[:, :, :40].std()
    assert (ends > 3) == (name == "varying")


def test_jpeg_after_noise_is_another_thing_than_before(tissue):
    noisy = {
        name: conditions.noisy_images(tissue, "tissue", name, 25.0, 0)
        for name in ("noise, then JPEG 50", "JPEG 50, then noise", "fresh")
    }
    quality = {name: measures.psnr(images, tissue).mean() for name, images in noisy.items()}
    assert quality["JPEG 50, then noise"] < quality["fresh"] < quality["noise, then JPEG 50"]


def test_rows_of_two_programs_stand_side_by_side_only_if_of_the_same_pixels(tissue, tmp_path):
    mine = list(table.measured({"mine": lambda x, _: x}, tmp_path, sources=["tissue"], sigmas=[25.0], seeds=2))
    same = list(table.measured({"other": lambda x, _: x}, tmp_path, sources=["tissue"], sigmas=[25.0, 50.0], seeds=2))
    fewer = list(table.measured({"third": lambda x, _: x}, tmp_path, sources=["tissue"], sigmas=[25.0], seeds=1))
    rows = table.joined(mine, [*same, *fewer])
    assert [row.method for row in rows] == ["noisy input", "mine", "other"]
    table.save(tmp_path / "rows.json", rows, {"sha256": ""})
    assert table.read(tmp_path / "rows.json") == rows


def test_tables_name_images_seeds_and_protocol(tissue, tmp_path):
    rows = list(table.measured({}, tmp_path, sources=["tissue"], sigmas=[0.0, 25.0], seeds=2))
    assert "**tissue**: 3 images, 2 noise seeds, `fresh`" in table.markdown(rows)
    assert "| noisy input | unchanged |" in table.markdown(rows)
    assert "| tissue (3 x 2) | fresh | 80.00 | 20." in table.compact(rows, [table.NOISY])
    assert "the paper's way" in table.likeness(rows)


@pytest.mark.training
@pytest.mark.parametrize("name", ["non-local means", "total variation", "wavelet BayesShrink"])
def test_classical_methods_remove_noise(tissue, name):
    if name.startswith("wavelet"):
        pytest.importorskip("pywt", reason="PyWavelets is not installed")
    noisy = noised(tissue, 25.0)
    found = baselines.classical(name, {"total variation": 0.6}.get(name, 0.8))(noisy, 25.0)
    assert (measures.psnr(found, tissue) > measures.psnr(noisy, tissue) + 2).all()


@pytest.mark.training
def test_tuning_chooses_the_better_number(tissue, monkeypatch):
    monkeypatch.setitem(baselines.GRIDS, "total variation", (0.6, 30.0))
    method = baselines.tuned(
        "total variation", tissue, lambda x, s: conditions.noisy_images(x, "t", "fresh", s, 0), [25.0]
    )
    noisy = noised(tissue, 25.0)
    assert np.array_equal(method(noisy, 25.0), baselines.classical("total variation", 0.6)(noisy, 25.0))


def test_only_the_methods_asked_for_are_measured(tmp_path):
    given = strengths.parser().parse_args(["--preset", "paper", "--anchors", "--shared", str(tmp_path)])
    assert list(strengths.methods_of(given, [25.0])) == ["paper"]


def test_tiles_with_context_are_the_whole_image_and_without_are_not():
    image = np.random.default_rng(4).integers(0, 256, (1, 150, 200, 3), dtype=np.uint8)

    def blur(batch, _sigma):
        # A mean of three rows, with nothing known beyond the batch's own border.
        rows = np.pad(batch, ((0, 0), (1, 1), (0, 0), (0, 0)), mode="symmetric").astype(float)
        return np.rint((rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 3).astype(np.uint8)

    whole = blur(image, 0)
    assert np.array_equal(behaviour.tiled(blur, image, 0, side=64, halo=16), whole)
    differs = (behaviour.tiled(blur, image, 0, side=64, halo=0) != whole).any(axis=(0, 2, 3))
    assert set(np.flatnonzero(differs)) <= {63, 64, 127, 128}
    assert differs.any()


@pytest.mark.training
def test_a_method_that_invents_on_flat_fields_is_seen():
    def method(noisy, _sigma):
        out = np.broadcast_to(np.rint(noisy.mean(axis=(1, 2), keepdims=True)), noisy.shape).astype(np.uint8).copy()
        out[:, 20:30, 20:30] = 255 - out[:, 20:30, 20:30]
        return out

    still = next(iter(behaviour.flat(lambda noisy, _: np.full_like(noisy, 128), sigmas=(50.0,))))
    made = next(iter(behaviour.flat(method, sigmas=(50.0,))))
    assert (still["deviation_most"], still["structure_most"], still["colours_under_3"]) == (0.0, 0, still["colours"])
    assert made["structure_most"] >= 100


@pytest.mark.parametrize("preset", [card.name for card in weights.presets() if not card.not_for_slides])
def test_a_shipped_cards_table_is_of_the_shipped_weights(preset):
    card = weights.card(preset)
    tables = [json.loads(file.read_text()) for file in (ROOT / "training" / "tables").glob(f"{preset}*.json")]
    assert tables
    assert all(table["sha256"] == card.sha256 for table in tables)
    assert {row.source for row in card.measured} <= set(split.SOURCES)
    assert {row.sigma for row in card.measured} >= {10.0, 25.0, 50.0}


@pytest.mark.training
@pytest.mark.parametrize("quality", [50, 70, 90])
def test_scanner_is_a_decibel_above_paper_on_compressed_noise(tissue_image, quality):
    clean = np.stack([tissue_image[:192, :192], tissue_image[-192:, -192:]])
    noisy = conditions.noisy_images(clean, "tissue", f"noise, then JPEG {quality}", 25.0, 0)
    found = {name: baselines.network(weights.load(name))(noisy, 25.0) for name in ("paper", "scanner")}
    gain = measures.psnr(found["scanner"], clean) - measures.psnr(found["paper"], clean)
    assert gain.min() > 1.0
