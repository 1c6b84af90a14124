import cv2
import numpy as np
import pytest

from wsi_denoise.quality import fidelity


@pytest.fixture
def pair(tissue_image) -> tuple[np.ndarray, np.ndarray]:
    clean = tissue_image[:200, :312]
    noisy = clean + np.random.default_rng(0).normal(0, 8, clean.shape)
    return np.rint(np.clip(noisy, 0, 255)).astype(np.uint8), clean


def test_psnr_of_known_error():
    assert fidelity.psnr(25.0 * 300, 300) == pytest.approx(10 * np.log10(255**2 / 25))
    assert fidelity.psnr(0.0, 300) == 100.0
    assert fidelity.psnr(0.0, 0) is None


def test_squared_error_does_not_wrap_around():
    first, second = np.zeros((4, 5, 3), np.uint8), np.full((4, 5, 3), 255, np.uint8)
    assert fidelity.squared_error(first, second) == (60 * 255.0**2, 60)


def test_cells_are_moments_of_eight_by_eight(pair):
    before, after = pair
    cells = fidelity.cells(before, after)
    assert cells.before.shape == (25, 39, 3)
    block = before[8:16, 16:24].astype(float)
    other = after[8:16, 16:24].astype(float)
    assert cells.before[1, 2] == pytest.approx(block.mean(axis=(0, 1)), abs=1e-3)
    assert cells.before_variance[1, 2] == pytest.approx(block.var(axis=(0, 1)), abs=0.05)
    assert cells.after_variance[1, 2] == pytest.approx(other.var(axis=(0, 1)), abs=0.05)
    assert cells.residual_square[1, 2] == pytest.approx(((block - other) ** 2).mean(axis=(0, 1)), rel=1e-4)


def test_ssim_is_one_for_the_same_and_less_for_more_noise(pair):
    before, after = pair
    assert fidelity.cells(after, after).ssim().min() == pytest.approx(1.0, abs=1e-4)
    little = fidelity.cells(before, after).ssim().mean()
    blurred = cv2.GaussianBlur(after, (0, 0), 4)
    assert fidelity.cells(before, blurred).ssim().mean() < little < 0.999


def test_ssim_agrees_with_its_definition(pair):
    before, after = (image[:8, :8].astype(float) for image in pair)
    values = []
    for channel in range(3):
        x, y = before[..., channel], after[..., channel]
        c1, c2 = 2.55**2, 7.65**2
        covariance = ((x - x.mean()) * (y - y.mean())).mean()
        top = (2 * x.mean() * y.mean() + c1) * (2 * covariance + c2)
        values.append(top / ((x.mean() ** 2 + y.mean() ** 2 + c1) * (x.var() + y.var() + c2)))
    assert fidelity.cells(*pair).ssim()[0, 0] == pytest.approx(np.mean(values), abs=1e-3)


def lags(residual: np.ndarray, chosen: np.ndarray) -> tuple[float, float, float, float]:
    """Of a residual, (height, width), in green alone."""
    after = np.full((*residual.shape, 3), 128, np.uint8)
    before = after.copy()
    before[..., 1] = np.clip(np.rint(128 + residual), 0, 255)
    return fidelity.lag_one(before, after, chosen)


def test_lag_one_tells_white_from_correlated_along_its_axis():
    rng = np.random.default_rng(1)
    white = rng.normal(0, 20, (480, 480))
    along_x = cv2.blur(white, (3, 1))

    def relative(values: np.ndarray) -> tuple[float, float]:
        x, y, square, _ = lags(values, np.ones((60, 60), bool))
        return x / square, y / square

    assert relative(white) == pytest.approx((0, 0), abs=0.02)
    assert relative(along_x) == pytest.approx((2 / 3, 0), abs=0.03)
    assert relative(along_x.T) == pytest.approx((0, 2 / 3), abs=0.03)


def test_lag_one_looks_only_where_told():
    residual = np.zeros((96, 96))
    residual[:, :48] = 10
    left = np.zeros((12, 12), bool)
    left[:, :6] = True
    assert lags(residual, ~left)[2] == 0
    assert lags(residual, left)[2] > 0
    assert lags(residual, np.zeros((12, 12), bool)) == (0.0, 0.0, 0.0, 0.0)
