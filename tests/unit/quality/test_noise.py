import cv2
import numpy as np
import pytest

from wsi_denoise.quality import noise


def smooth_image(size: int = 480) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size] / size
    waves = np.stack([np.sin(4 * x + 3 * y), np.cos(5 * y), np.sin(3 * x)], axis=2)
    return 140 + 40 * waves


def with_noise(clean: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(clean + values, 0, 255)).astype(np.uint8)


def estimates(image: np.ndarray, rough: float = 0.0) -> tuple[float, float]:
    channels = noise.wavelet_sigma(noise.wavelet_histogram(noise.diagonal(image)))
    everywhere = np.ones((image.shape[0] // 8, image.shape[1] // 8), bool)
    flat = noise.flat_sigma(noise.flat_histogram(image, everywhere, rough))
    assert channels is not None
    assert flat is not None
    return sum(channels) / 3, flat


@pytest.mark.parametrize("sigma", [2, 5, 12, 25])
def test_both_estimates_find_white_noise(sigma):
    values = np.random.default_rng(sigma).normal(0, sigma, (480, 480, 3))
    assert estimates(with_noise(smooth_image(), values)) == pytest.approx((sigma, sigma), rel=0.06)


def test_a_smooth_image_has_no_noise():
    wavelet, flat = estimates(with_noise(smooth_image(), np.zeros(())))
    assert wavelet < 0.5
    assert flat < 0.5


def test_correlated_noise_escapes_the_wavelet_more_than_the_flat_estimate():
    white = np.random.default_rng(1).normal(0, 20, (480, 480, 3))
    correlated = cv2.GaussianBlur(white, (0, 0), 0.6)
    wavelet, flat = estimates(with_noise(smooth_image(), correlated))
    true = correlated.std()
    assert wavelet < 0.6 * true
    assert 0.75 * true < flat < 1.1 * true


def test_fine_texture_fools_the_wavelet_and_not_the_flat_estimate():
    rng = np.random.default_rng(2)
    texture = rng.normal(0, 15, (480, 480, 3))
    texture[:, :96] = 0  # a fifth is smooth
    wavelet, flat = estimates(with_noise(smooth_image(), texture))
    assert wavelet > 8
    assert flat < 1


def test_cells_near_white_do_not_pass_for_flat():
    image = smooth_image()
    image[:, :240] = 252.0
    values = np.random.default_rng(3).normal(0, 20, image.shape)
    _, fooled = estimates(with_noise(image, values), rough=0.0)
    _, told = estimates(with_noise(image, values), rough=20.0)
    assert fooled < 15
    assert told == pytest.approx(20, rel=0.1)


def test_real_tissue_with_noise_added(tissue_image):
    crop = tissue_image[:768, :768]
    noisy = with_noise(crop.astype(float), np.random.default_rng(4).normal(0, 15, crop.shape))
    wavelet, flat = estimates(noisy, 15)
    assert wavelet == pytest.approx(15, rel=0.1)
    assert flat == pytest.approx(15, rel=0.15)


@pytest.mark.parametrize("sigma", [3.0, 25.0])
def test_clip_bias_is_what_clipping_does(sigma):
    rng = np.random.default_rng(5)
    for level in (2.0, 60.0, 245.0, 255.0):
        drawn = np.clip(level + rng.normal(0, sigma, 400_000), 0, 255).mean() - level
        said = noise.clip_bias(np.array([level], np.float32), sigma)[0]
        assert said == pytest.approx(drawn, abs=0.15)


def test_histograms_of_halves_add_up_to_the_whole():
    image = with_noise(smooth_image(), np.random.default_rng(6).normal(0, 9, (480, 480, 3)))
    upper, lower = image[:240], image[240:]
    assert (
        noise.wavelet_histogram(noise.diagonal(upper)) + noise.wavelet_histogram(noise.diagonal(lower))
        == noise.wavelet_histogram(noise.diagonal(image))
    ).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (7, 9), (16, 16)])
def test_small_images_do_not_fail(shape):
    image = np.full((*shape, 3), 90, np.uint8)
    assert noise.diagonal(image).shape[2] == 3
    mask = np.ones((shape[0] // 8, shape[1] // 8), bool)
    histogram = noise.flat_histogram(image, mask, 0.0)
    assert noise.flat_sigma(histogram) == (0.0 if shape == (16, 16) else None)
