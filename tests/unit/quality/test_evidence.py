from itertools import permutations

import numpy as np
import pytest

from wsi_denoise.quality import evidence, patch_map, structure
from wsi_denoise.quality.evidence import Evidence
from wsi_denoise.quality.verdict import judge


def noisy(image: np.ndarray, sigma: float) -> np.ndarray:
    values = image + np.random.default_rng(0).normal(0, sigma, image.shape)
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def everywhere(image: np.ndarray) -> np.ndarray:
    return np.ones(structure.patch_grid(*image.shape[:2]), bool)


@pytest.fixture
def pair(tissue_image) -> tuple[np.ndarray, np.ndarray]:
    clean = tissue_image[:672, :576]
    return noisy(clean, 10), clean


def in_blocks(before: np.ndarray, after: np.ndarray, tissue: np.ndarray, side: int = 288) -> list[Evidence]:
    parts = []
    for y in range(0, before.shape[0], side):
        for x in range(0, before.shape[1], side):
            box = (slice(y, y + side), slice(x, x + side))
            mask = tissue[y // 96 : (y + side) // 96, x // 96 : (x + side) // 96]
            parts.append(evidence.measure(before[box], after[box], mask, origin=(x, y)))
    return parts


def test_blocks_add_up_in_any_order(pair):
    parts = in_blocks(*pair, everywhere(pair[0]))[:3]

    def numbers(total: Evidence) -> dict[str, float]:
        return {name: value for name, value in total.summary().items() if value is not None}

    expected = numbers(Evidence.merge(parts))
    assert len(expected) > 25
    for order in permutations(parts):
        assert numbers(Evidence.merge(order)) == pytest.approx(expected, rel=1e-12)
        assert numbers(order[0] + order[1] + order[2]) == pytest.approx(expected, rel=1e-12)


def test_merging_leaves_its_parts_as_they_were(pair):
    one = evidence.measure(*pair, everywhere(pair[0]))
    before = one.summary()
    Evidence.merge([one, one])
    assert one.summary() == before
    assert Evidence().summary()["tissue_patches"] == 0


def test_blocks_give_the_whole_image_s_numbers(pair):
    whole = evidence.measure(*pair, everywhere(pair[0])).summary()
    summed = Evidence.merge(in_blocks(*pair, everywhere(pair[0]))).summary()
    for exact in ("psnr", "ssim", "residual_mean_r", "residual_rms", "sigma_before_wavelet", "tissue_patches"):
        assert summed[exact] == pytest.approx(whole[exact], rel=1e-5), exact
    for close in ("sharpness_fine", "sharpness_coarse", "hematoxylin_before", "sigma_before_flat"):
        assert summed[close] == pytest.approx(whole[close], rel=0.03), close


def test_numbers_of_a_denoised_image(pair):
    before, after = pair
    found = evidence.measure(before, after, everywhere(before)).with_codec(300.0, 300).summary()
    mse = np.mean((before.astype(float) - after) ** 2)
    assert found["psnr"] == pytest.approx(10 * np.log10(255**2 / mse), abs=0.05)
    assert found["residual_rms"] == pytest.approx(mse**0.5, rel=0.01)
    assert found["sigma_before_wavelet"] == pytest.approx(10, rel=0.1)
    assert found["sigma_before_flat"] == pytest.approx(10, rel=0.2)
    assert found["sigma_after_wavelet"] < 4
    assert found["residual_lag1_x"] == pytest.approx(0, abs=0.05)
    assert found["sharpness_fine"] == pytest.approx(1, abs=0.02)
    assert found["colour_shift"] < 0.5
    assert found["hematoxylin_after"] == pytest.approx(found["hematoxylin_before"], rel=0.02)
    assert found["structure_removed_patches"] == found["structure_added_patches"] == found["mismatched_patches"] == 0
    assert found["seam_patch"] == pytest.approx(1, abs=3 * found["seam_patch_error"])
    assert found["codec_psnr"] == pytest.approx(48.13, abs=0.01)


def test_only_tissue_is_measured_and_glass_apart(pair):
    before, after = pair
    tissue = everywhere(before)
    tissue[:, 3:] = False
    spoiled = after.copy()
    spoiled[:, 288:] = 0
    kept, other = (evidence.measure(before, image, tissue).summary() for image in (after, spoiled))
    for name in ("psnr", "ssim", "colour_shift", "structure_removed", "hematoxylin_after", "sigma_after_wavelet"):
        assert other[name] == pytest.approx(kept[name], rel=1e-6), name
    assert kept["glass_sigma_before_wavelet"] == pytest.approx(10, rel=0.1)
    assert other["glass_sigma_after_wavelet"] == 0


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (50, 50), (95, 97), (96, 3)])
def test_any_size_is_measured(tissue_image, size):
    height, width = size
    clean = tissue_image[:height, :width]
    found = evidence.measure(noisy(clean, 5), clean, everywhere(clean)).summary()
    assert found["patches"] == structure.patch_grid(height, width)[0] * structure.patch_grid(height, width)[1]
    assert (found["psnr"] is None) == (min(size) < 8)


def test_no_tissue_is_no_crash(pair):
    found = evidence.measure(*pair, np.zeros_like(everywhere(pair[0]))).summary()
    assert found["tissue_patches"] == 0
    assert found["psnr"] is None
    assert found["structure_added"] is None
    assert found["glass_sigma_before_wavelet"] == pytest.approx(10, rel=0.1)


def test_evidence_survives_a_file_without_pickle(tmp_path, pair):
    part = evidence.measure(*pair, everywhere(pair[0]), origin=(1536, 3072))
    strips = structure.edges(*pair)
    part = part.with_seam(structure.block_seam(strips, strips)).with_codec(1.5, 3)
    np.savez(tmp_path / "block.npz", **part.to_arrays(), **strips.to_arrays())
    with np.load(tmp_path / "block.npz", allow_pickle=False) as arrays:
        again = Evidence.from_arrays(arrays)
    assert again.summary() == part.summary()
    assert list(again.maps) == [(16, 32)]


def test_wrong_shapes_are_refused(pair):
    before, after = pair
    with pytest.raises(ValueError, match="must both be"):
        evidence.measure(before, after[:-1], everywhere(before))
    with pytest.raises(ValueError, match="patches"):
        evidence.measure(before, after, np.ones((2, 2), bool))
    with pytest.raises(ValueError, match="lattice"):
        evidence.measure(before, after, everywhere(before), origin=(95, 0))


def test_the_map_of_patches_is_put_together_and_kept(tmp_path, pair):
    before, after = pair
    after = after.copy()
    after[400:430, 300:330] = (60, 20, 90)
    tissue = everywhere(before)
    tissue[0, 0] = False
    found = Evidence.merge(in_blocks(before, after, tissue)).patch_map((7, 6))
    assert found.sigma_removed.shape == found.structure.shape == (7, 6)
    assert np.isnan(found.sigma_removed[0, 0])
    assert np.nanmedian(found.sigma_removed) == pytest.approx(10, rel=0.1)
    assert np.unravel_index(np.nanargmax(found.structure), (7, 6)) == (4, 3)
    patch_map.save(tmp_path / "map.npz", found)
    again = patch_map.load(tmp_path / "map.npz")
    assert np.array_equal(again.structure, found.structure, equal_nan=True)
    assert again.sigma_removed.dtype == np.float32
    assert list(tmp_path.iterdir()) == [tmp_path / "map.npz"]


def test_two_that_write_one_map_do_not_meet(tmp_path, monkeypatch):
    """A daemon that lost its lease may still be at it."""
    file = tmp_path / "map.npz"
    ours, theirs = (patch_map.PatchMap(*(np.full((7, 6), value, np.float32),) * 2) for value in (1, 2))
    write = np.savez_compressed

    def slowly(opened, **arrays):
        monkeypatch.setattr(np, "savez_compressed", write)
        patch_map.save(file, theirs)
        assert patch_map.load(file).structure.max() == 2
        write(opened, **arrays)

    monkeypatch.setattr(np, "savez_compressed", slowly)
    patch_map.save(file, ours)
    assert patch_map.load(file).structure.max() == 1
    assert list(tmp_path.iterdir()) == [file]


def test_a_map_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_args, **_named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", refuse)
    nothing = np.zeros((1, 1), np.float32)
    with pytest.raises(OSError, match="No space"):
        patch_map.save(tmp_path / "map.npz", patch_map.PatchMap(nothing, nothing))
    assert list(tmp_path.iterdir()) == []


def test_denoised_glass_does_not_hide_what_happened_to_tissue(pair):
    """Of noisy glass, which goes through the network too, a slide may have ten times as much."""
    before, after = pair
    glass = np.full_like(before, 240)
    noisy_glass = noisy(glass, 10)
    tissue, none = everywhere(before), np.zeros_like(everywhere(before))
    all_glass = [
        evidence.measure(noisy_glass, glass, none, denoised=tissue, origin=(0, 1536 * n)) for n in range(1, 16)
    ]
    left = evidence.measure(before, before, tissue, origin=(0, 0))
    done = evidence.measure(before, after, tissue, origin=(0, 0))
    assert judge(Evidence.merge([done, *all_glass]).summary()).verdict == "pass"
    whole = Evidence.merge([left, *all_glass]).summary()
    assert judge(whole).reasons[0].startswith("noise_left")
    alone = left.summary()
    for name in ("tissue_patches", "sigma_after_wavelet", "residual_rms", "colour_shift", "sharpness_fine", "ssim"):
        assert whole[name] == pytest.approx(alone[name]), name
    assert whole["glass_sigma_before_wavelet"] > 5 > whole["glass_sigma_after_wavelet"]
    # Structure on glass is searched where the network was applied.
    drawn = glass.copy()
    drawn[200:220, 300:320] = 120
    spoiled = evidence.measure(noisy_glass, drawn, none, denoised=tissue, origin=(0, 1536))
    assert judge((done + spoiled).summary()).reasons[0].startswith("structure_added")


@pytest.mark.parametrize("damage", ["channels", "grey", "green", "darker", "black"])
def test_one_patch_in_wrong_colours_is_seen_whatever_the_slide(pair, damage):
    before, after = pair
    wrong = after.copy()
    part = wrong[96:192, 96:192]
    if damage == "channels":
        part[...] = part[..., [1, 0, 2]]
    elif damage == "grey":
        part[...] = part.mean(axis=2, keepdims=True).round().astype(np.uint8)
    elif damage == "green":
        part[..., 1] = np.maximum(part[..., 1].astype(int) - 40, 0)
    elif damage == "darker":
        part[...] = np.maximum(part.astype(int) - 40, 0)
    else:
        part[...] = 0
    parts = in_blocks(before, wrong, everywhere(before))
    good = [evidence.measure(before, after, everywhere(before), origin=(0, 1536 * n)) for n in range(1, 20)]
    assert judge(Evidence.merge([*good, *in_blocks(before, after, everywhere(before))]).summary()).verdict == "pass"
    reasons = judge(Evidence.merge([*good, *parts]).summary()).reasons
    assert any(reason.startswith("colour_shifted") for reason in reasons)


def test_maps_of_another_version_are_refused(pair):
    arrays = evidence.measure(*pair, everywhere(pair[0])).to_arrays()
    name = next(name for name in arrays if name.startswith("evidence_map_"))
    arrays[name] = arrays[name][:-1]
    with pytest.raises(ValueError, match="layers"):
        Evidence.from_arrays(arrays)


@pytest.mark.parametrize(("side", "measured"), [(16, False), (28, False), (34, True), (96, True)])
def test_noise_is_not_estimated_from_too_few_pixels(pair, side, measured):
    before, after = (image[200 : 200 + side, 200 : 200 + side] for image in pair)
    metrics = evidence.measure(before, after, everywhere(before)).summary()
    assert (metrics["sigma_before_wavelet"] is not None) is measured
    assert measured or metrics["sigma_before_flat"] is None
    assert (judge(metrics).reasons[0].partition(":")[0] == "not_measured") is not measured
