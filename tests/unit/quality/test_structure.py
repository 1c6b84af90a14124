import io

import cv2
import numpy as np
import pytest
from PIL import Image

from wsi_denoise.quality import fidelity, structure


def noisy(image: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    values = image + np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def layers(before: np.ndarray, after: np.ndarray, sigma: float = 10.0) -> structure.PatchLayers:
    cells = fidelity.cells(before, after)
    grid = structure.patch_grid(*before.shape[:2])
    chosen = np.ones(cells.before.shape[:2], bool)
    return structure.patch_layers(cells, structure.low_residual(cells, sigma), grid, chosen)


def test_stains_are_told_apart():
    vectors = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for amounts in ((0.6, 0.0), (0.0, 0.4), (0.5, 0.3)):
        pixel = 256 * 10 ** -(np.array(amounts) @ vectors) - 1
        assert structure.stain_density(pixel.astype(np.float32)) == pytest.approx(amounts, abs=2e-3)


def test_clipped_white_is_forgiven_and_a_true_shift_is_not():
    white = np.full((96, 96, 3), 246, np.uint8)
    before = noisy(white, 25)
    assert before.mean() < 242
    cells = fidelity.cells(before, white)
    assert abs(structure.low_residual(cells, 25.0).mean()) < 1
    cells = fidelity.cells(before, white - 20)
    assert structure.low_residual(cells, 25.0).mean() > 8


def test_a_dark_spot_that_is_new_or_gone_is_found_in_its_patch_with_its_sign(tissue_image):
    clean = cv2.GaussianBlur(tissue_image[:288, :288], (0, 0), 8)
    spot = clean.copy()
    cv2.circle(spot, (96 + 50, 192 + 40), 9, (90, 40, 110), -1)
    before = noisy(clean, 12)
    added = layers(before, spot)
    assert np.unravel_index(np.argmax(added.darker), (3, 3)) == (2, 1)
    assert added.darker[2, 1] > 40
    assert added.lighter.max() < 15
    removed = layers(noisy(spot, 12), clean)
    assert np.unravel_index(np.argmax(removed.lighter), (3, 3)) == (2, 1)
    assert removed.lighter[2, 1] > 40


def test_noise_alone_leaves_little_at_low_frequency(tissue_image):
    clean = tissue_image[:288, :288]
    found = layers(noisy(clean, 20), clean, 20.0)
    # The mean of three channels over 64 px: 20 / sqrt(192).
    assert found.low_sigma == pytest.approx(20 / 192**0.5, rel=0.35)
    assert (found.lighter / found.low_sigma).max() < 6
    assert found.removed_sigma == pytest.approx(20, rel=0.15)


def test_paler_stain_everywhere_is_not_missing_structure(tissue_image, monkeypatch):
    clean = tissue_image[:288, :288]
    pale = np.rint(256 * ((clean + 1.0) / 256) ** 0.85 - 1).astype(np.uint8)
    erased = clean.copy()
    cv2.circle(erased, (150, 150), 14, (235, 220, 235), -1)
    told = layers(clean, pale).lighter.max(), layers(clean, erased).lighter.max()
    monkeypatch.setattr(structure, "GAIN", 0.0)
    untold = layers(clean, pale).lighter.max(), layers(clean, erased).lighter.max()
    assert told[0] < 0.5 * untold[0]
    assert told[1] > 0.8 * untold[1]


def test_other_tissue_is_a_mismatch_and_missing_or_new_tissue_is_not(tissue_image):
    clean = tissue_image[:288, :288]
    other = tissue_image[480:768, 480:768]
    assert np.median(layers(noisy(clean, 10), other).mismatch) > 0.6
    blank = clean.copy()
    blank[100:150, 100:150] = (225, 190, 220)
    assert layers(noisy(clean, 10), blank).mismatch.max() < 0.4
    assert layers(noisy(blank, 10), clean).mismatch.max() < 0.4


def kept(before: np.ndarray, after: np.ndarray, scale: int) -> float:
    chosen = np.ones((before.shape[0] // 8, before.shape[1] // 8), bool)
    own, cross, _ = structure.gradients(structure.luma(before), structure.luma(after), chosen)[scale]
    return own / cross


@pytest.mark.parametrize("scale", [2, 4])
def test_sharpness_does_not_count_noise_as_edges(tissue_image, scale):
    clean = tissue_image[:480, :480]
    assert kept(noisy(clean, 25), clean, scale) == pytest.approx(1.0, abs=0.03)
    assert kept(noisy(clean, 25), cv2.GaussianBlur(clean, (0, 0), 2), scale) < 0.8


def test_seam_lines_inside_a_block(tissue_image):
    before = structure.luma(tissue_image[:768, :768])
    same = structure.lattice_lines(before, before)
    assert same.on_before == same.on_after
    assert same.off_before == same.off_after
    tiled = before.copy()
    tiled[:, 96 * 3 :] = np.minimum(tiled[:, 96 * 3 :].astype(int) + 12, 255)
    stepped = structure.lattice_lines(before, tiled)
    assert stepped.on_after / same.on_after > stepped.off_after / same.off_after * 1.02


def test_a_jpeg_grid_in_the_source_is_not_a_seam(tissue_image):
    buffer = io.BytesIO()
    Image.fromarray(tissue_image[:768, :768]).save(buffer, "JPEG", quality=25)
    image = np.asarray(Image.open(buffer))
    grey = structure.luma(image)
    lines = structure.lattice_lines(grey, cv2.GaussianBlur(grey, (0, 0), 0.7))
    score = (lines.on_after / lines.on_before) / (lines.off_after / lines.off_before)
    error = lines.scatter**0.5 / lines.off_after
    assert abs(score - 1) < 3 * error


def test_a_wrong_block_stands_out_on_its_borders(tissue_image):
    side = 192
    boxes = {
        (c, r): (slice(r * side, (r + 1) * side), slice(c * side, (c + 1) * side)) for c in range(3) for r in (0, 1)
    }
    clean = tissue_image[: 2 * side, : 3 * side]
    before = noisy(clean, 8)
    good = {at: structure.edges(before[box], clean[box]) for at, box in boxes.items()}
    wrong = {**good, (1, 0): structure.edges(before[boxes[1, 0]], tissue_image[600 : 600 + side, 700 : 700 + side])}
    assert structure.seam_lines(good).samples == 7 * side
    assert structure.seam_lines(good).worst < 2
    assert structure.seam_lines(wrong).worst > 10
    assert structure.seam_lines(good, where=[(0, 0)]).samples == 0
    assert structure.seam_lines(good, where=[(1, 1)]).samples == 2 * side


def test_the_line_between_blocks_is_the_one_that_they_share():
    first, second = np.zeros((6, 4, 3), np.uint8), np.full((6, 4, 3), 90, np.uint8)
    first[:, -1], first[-1] = 10, 20
    second[:, 0], second[0] = 40, 70
    one, two = structure.edges(first, first), structure.edges(first, second)
    beside, below = structure.block_seam(one, two), structure.block_seam(one, two, below=True)
    assert (beside.samples, below.samples) == (6, 4)
    assert beside.after == 4 * 30**2 + 60**2 + 20**2
    assert below.after == 4 * 50**2
    assert below.before == 3 * 20**2 + 10**2


def test_edges_survive_a_file(tmp_path, tissue_image):
    kept_edges = structure.edges(tissue_image[:50, :70], tissue_image[50:100, :70])
    np.savez(tmp_path / "spool.npz", **kept_edges.to_arrays())
    with np.load(tmp_path / "spool.npz", allow_pickle=False) as arrays:
        again = structure.Edges.from_arrays(arrays)
    for one, two in zip(kept_edges.before + kept_edges.after, again.before + again.after, strict=True):
        assert (one == two).all()
    assert again.before[1].shape == (50,)
    assert again.after[2].shape == (70,)


def test_patches_that_no_cell_reaches_are_not_measured(tissue_image):
    crop = tissue_image[:100, :100]  # the second patch row and column have 4 px
    found = layers(crop, crop)
    assert np.isfinite(found.removed_sigma).tolist() == [[True, False], [False, False]]
