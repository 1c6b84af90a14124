"""Tissue on the lattice: found on real tissue, not lost when pale or noisy, not invented on glass."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsi_denoise.errors import NotBrightfield
from wsi_denoise.slide.background import find_glass
from wsi_denoise.slide.tissue import _on_lattice, is_dark, thumbnail_side, tissue_patches, tissue_pixels

GLASS = (243, 241, 244)


def lattice(width: int, height: int) -> tuple[int, int]:
    return -(-height // 96), -(-width // 96)


def shrunk(slide: np.ndarray) -> np.ndarray:
    """What Slide.thumbnail gives for a slide held in memory."""
    height, width = slide.shape[:2]
    scale = thumbnail_side(lattice(width, height)) / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(slide).resize(size, Image.Resampling.BOX))


def mask_of(slide: np.ndarray, **options):
    height, width = slide.shape[:2]
    return tissue_patches(shrunk(slide), lattice(width, height), (width, height), **options)


def noisy(slide: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(7).normal(0, sigma, slide.shape)
    return np.clip(np.rint(slide + noise), 0, 255).astype(np.uint8)


def pale(slide: np.ndarray, share: float) -> np.ndarray:
    """Keep only a share of the stain, by Beer and Lambert."""
    return np.rint(np.array(GLASS) * (np.maximum(slide, 1) / GLASS) ** share).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def piece(tissue_image) -> tuple[np.ndarray, np.ndarray]:
    """A slide of 1920 x 1536 px, glass with a piece of real tissue on it, and where it is, (rows, columns)."""
    slide = np.empty((1536, 1920, 3), np.uint8)
    slide[...] = GLASS
    tissue = np.tile(tissue_image, (3, 3, 1))[:576, :768]
    slide[480:1056, 576:1344] = tissue
    truth = np.zeros((16, 20), bool)
    truth[5:11, 6:14] = True
    return slide, truth


def test_real_tissue_is_found_and_glass_is_not(piece):
    slide, truth = piece
    found = mask_of(slide, dilate=0)
    assert found.found
    assert (found.patches == truth).mean() > 0.99
    assert found.patches[truth].all()


@pytest.mark.parametrize("sigma", [10, 25, 50])
def test_noise_neither_hides_tissue_nor_turns_glass_into_it(piece, sigma):
    slide, truth = piece
    found = mask_of(noisy(slide, sigma), dilate=0)
    assert found.patches[truth].mean() > 0.99
    assert found.patches[~truth].mean() < 0.05


@pytest.mark.parametrize("share", [0.5, 0.25])
@pytest.mark.parametrize("sigma", [0, 25])
def test_pale_tissue_is_not_lost(piece, share, sigma):
    slide, truth = piece
    found = mask_of(noisy(pale(slide, share), sigma), dilate=0)
    assert found.patches[truth].mean() > 0.97
    assert found.patches[~truth].mean() < 0.05


def test_otsu_alone_would_lose_it(piece):
    """Why the masker's threshold is not all there is: stroma beside dark epithelium counts as glass to Otsu."""
    from wsi_denoise.slide.readers.toolbox_reader import otsu_masker  # noqa: PLC0415

    slide, truth = piece
    mixed = slide.copy()
    mixed[480:1056, 960:1344] = pale(slide, 0.2)[480:1056, 960:1344]
    small = shrunk(mixed)
    otsu = _on_lattice(otsu_masker().fit_transform(small[None])[0], truth.shape, (1920, 1536))
    ours = mask_of(mixed, dilate=0).patches
    assert ours[truth].mean() > 0.97
    assert ours[truth].sum() > otsu[truth].sum()


@pytest.mark.parametrize("sigma", [0, 2, 25])
def test_an_empty_slide_has_no_tissue_and_says_so(sigma):
    found = mask_of(noisy(np.full((1536, 1920, 3), GLASS, np.uint8), sigma))
    assert not found.found
    assert not found.patches.any()
    assert found.note == "no tissue was found"


def test_a_slide_without_glass_is_tissue_all_over(tissue_image):
    slide = np.tile(tissue_image, (5, 5, 1))[:1200, :1200]
    slide = np.minimum(slide, 185)
    found = mask_of(slide)
    assert found.patches.all()
    assert "no empty glass" in found.note


def test_white_filling_beside_glass_does_not_make_tissue_of_the_glass(piece):
    slide, truth = piece
    filled = slide.copy()
    filled[:, :480] = 255
    found = mask_of(filled, dilate=0)
    assert (found.patches == truth).mean() > 0.99


def test_one_cell_on_a_large_slide_is_found():
    slide = np.empty((3072, 3072, 3), np.uint8)
    slide[...] = GLASS
    slide[1500:1530, 700:730] = (140, 90, 160)
    found = mask_of(slide, dilate=0)
    rows, columns = np.nonzero(found.patches)
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {(15, 7)}


@pytest.mark.parametrize("dilate", [0, 1, 3])
def test_dilation_widens_by_whole_patches_in_all_directions(dilate):
    slide = np.empty((1920, 1920, 3), np.uint8)
    slide[...] = GLASS
    slide[970:1050, 970:1050] = (140, 90, 160)
    patches = mask_of(slide, dilate=dilate).patches
    expected = np.zeros((20, 20), bool)
    expected[10 - dilate : 11 + dilate, 10 - dilate : 11 + dilate] = True
    np.testing.assert_array_equal(patches, expected)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (97, 95), (671, 768)])
def test_below_8_by_8_patches_everything_is_tissue(size):
    slide = np.full((size[1], size[0], 3), GLASS, np.uint8)
    found = mask_of(slide)
    assert found.found
    assert found.patches.all()
    assert found.patches.shape == lattice(*size)


def test_a_dark_background_is_refused_unless_everything_is_wanted():
    slide = np.zeros((1000, 1000, 3), np.uint8)
    slide[200:300, 200:900, 2] = 240
    with pytest.raises(NotBrightfield, match="median brightness is 0"):
        mask_of(slide)
    assert mask_of(slide, mode="all").patches.all()
    # A small crop of it too: its size does not make it brightfield.
    with pytest.raises(NotBrightfield):
        mask_of(slide[:300, :300])


def test_dark_tissue_and_black_filling_are_brightfield(tissue_image):
    assert not is_dark(np.rint(tissue_image * 0.6).astype(np.uint8))
    filled = np.zeros((400, 400, 3), np.uint8)
    filled[300:] = GLASS
    assert not is_dark(filled)


def test_mode_all_asks_nothing_of_the_thumbnail():
    found = tissue_patches(np.zeros((1, 1, 3), np.uint8), (40, 30), (2880, 3840), mode="all")
    assert found.found
    assert found.patches.shape == (40, 30)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 90), st.integers(1, 90),
    st.floats(0, 0.999), st.floats(0, 0.999),
)  # fmt: skip
def test_a_pixel_of_the_mask_marks_the_patches_that_it_covers(width, height, small_w, small_h, at_x, at_y):
    mask = np.zeros((small_h, small_w), bool)
    row, column = int(at_y * small_h), int(at_x * small_w)
    mask[row, column] = True
    patches = _on_lattice(mask, lattice(width, height), (width, height))
    # The middle of the pixel lies in a patch that is marked; a patch wholly outside the pixel is not.
    middle = (
        min(int((row + 0.5) * height / small_h), height - 1),
        min(int((column + 0.5) * width / small_w), width - 1),
    )
    assert patches[middle[0] // 96, middle[1] // 96]
    for y, x in np.argwhere(patches):
        assert y * 96 <= (row + 1) * height / small_h + 1
        assert (y + 1) * 96 >= row * height / small_h - 1
        assert x * 96 <= (column + 1) * width / small_w + 1
        assert (x + 1) * 96 >= column * width / small_w - 1


def test_any_thumbnail_will_do(piece):
    slide, truth = piece
    for size in ((1920, 1536), (333, 266), (40, 32)):
        small = np.asarray(Image.fromarray(slide).resize(size, Image.Resampling.BOX))
        patches = tissue_patches(small, truth.shape, (1920, 1536), dilate=0).patches
        assert patches[truth].all()
        assert patches[~truth].mean() < 0.15


def test_glass_is_told_from_stroma_and_filling():
    stroma = np.full((50, 50, 3), (212, 205, 228), np.uint8)
    assert find_glass(stroma) is None
    assert find_glass(np.full((50, 50, 3), 255, np.uint8)).colour == (255, 255, 255)
    mixed = np.concatenate([stroma, np.full((5, 50, 3), GLASS, np.uint8), np.full((50, 50, 3), 255, np.uint8)])
    assert find_glass(mixed).colour == GLASS
    assert find_glass(mixed).sigma == 0


def test_the_masker_comes_without_a_word():
    code = """
import logging, warnings
import numpy as np
from wsi_denoise.slide.tissue import tissue_pixels
handlers, level, shown = list(logging.getLogger().handlers), logging.getLogger().level, warnings.showwarning
tissue_pixels(np.full((50, 50, 3), 240, np.uint8))
assert logging.getLogger().handlers == handlers and logging.getLogger().level == level
assert warnings.showwarning is shown
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_warnings_that_went_to_the_log_still_do():
    logging.captureWarnings(capture=False)  # which an earlier test's log may have turned on
    logging.captureWarnings(capture=True)
    try:
        from wsi_denoise.slide.readers.toolbox_reader import quiet_import  # noqa: PLC0415

        with quiet_import():
            logging.captureWarnings(capture=True)
        import warnings  # noqa: PLC0415

        assert warnings.showwarning is logging._showwarning
    finally:
        logging.captureWarnings(capture=False)


def test_pixels_that_differ_from_glass_in_one_channel_only_count(piece):
    slide, _ = piece
    eosin = slide.copy()
    eosin[480:1056, 576:1344] = (243, 229, 244)
    assert tissue_pixels(shrunk(eosin)).mean() == pytest.approx(0.15, abs=0.02)
