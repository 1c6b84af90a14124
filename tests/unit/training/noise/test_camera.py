"""The models of noise do what their formulas say, and ``camera`` combines them in the shares that it names."""

import numpy as np
import pytest
import torch

from support.noise import generator, grey
from training.data import textures
from training.noise import camera, codecs, defects, fields, mosaic, sensor
from training.noise.camera import Camera
from training.noise.corruption import corrupt

PLAIN = Camera(
    clean=0, white=1, correlated=0, sensor=0, varying=0, stripes=0, impulses=0, compressed=0, compressed_white=0
)
"""White noise and nothing else."""


def crops_of(image: np.ndarray, count: int, side: int = 64) -> torch.Tensor:
    rng = np.random.default_rng(40)
    tops, lefts = (rng.integers(0, length - side, count) for length in image.shape[:2])
    crops = [image[top : top + side, left : left + side] for top, left in zip(tops, lefts, strict=True)]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255


def test_mixing_matrices_have_unit_rows_and_reach_pure_luminance():
    matrices = fields.mixing_matrices(2000, generator(1))
    assert torch.allclose(matrices.norm(dim=2), torch.ones(2000, 3), atol=1e-5)
    between = (matrices[:, 0] * matrices[:, 1]).sum(dim=1)
    alike = (matrices - matrices[:, :1]).abs().amax(dim=(1, 2)) < 1e-6
    assert 0.2 < float(alike.float().mean()) < 0.3
    # Correlations of every size occur, from independence to one.
    counts = np.histogram(between[~alike].numpy(), bins=5, range=(0, 1))[0]
    assert counts.min() > 100


def test_mixed_noise_has_the_correlation_of_its_matrix():
    matrices = fields.mixing_matrices(6, generator(2))
    field = fields.mixed(torch.randn((6, 3, 128, 128), generator=generator(3)), matrices).flatten(2)
    measured = torch.stack([torch.corrcoef(channels) for channels in field])
    assert torch.allclose(measured, matrices @ matrices.transpose(1, 2), atol=0.04)
    assert float((field.std(dim=2) - 1).abs().max()) < 0.03


@pytest.mark.parametrize("spread", [0.3, 0.6, 1.0])
def test_softened_noise_has_unit_variance_and_a_gaussians_correlation(spread):
    reach = fields.REACH
    drawn = torch.randn((4, 3, 128 + 2 * reach, 128 + 2 * reach), generator=generator(4))
    field = fields.softened(drawn, torch.full((4,), spread))
    assert field.shape == (4, 3, 128, 128)
    assert float(field.std()) == pytest.approx(1, abs=0.02)
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * spread**2))
    expected = (taps[1:] * taps[:-1]).sum() / (taps**2).sum()
    for axis in (2, 3):
        length = field.shape[axis] - 1
        neighbours = (field.narrow(axis, 0, length) * field.narrow(axis, 1, length)).mean()
        assert float(neighbours) == pytest.approx(expected, abs=0.02)


def test_rescaled_noise_has_unit_strength_and_is_softer_when_enlarged():
    def neighbours(scale: float) -> float:
        field = torch.stack([fields.rescaled(96, 96, scale, generator(seed)) for seed in range(8)])
        assert float(field.square().mean()) == pytest.approx(1, abs=1e-3)
        return float((field[..., 1:] * field[..., :-1]).mean())

    assert neighbours(0.5) > 0.5 > neighbours(1.5)


def test_a_varying_strength_stays_in_its_range():
    level = torch.full((400,), 20.0)
    maps = fields.strength_maps(level, 32, 48, generator(6), varying=0.25)
    assert maps.shape == (400, 1, 32, 48)
    constant = maps.flatten(1).std(dim=1) == 0
    assert 0.68 < float(constant.float().mean()) < 0.82
    assert torch.equal(maps[constant], torch.full_like(maps[constant], 20.0))
    assert float(maps.min()) >= 0
    assert 25 < float(maps.max()) <= 30


def test_linear_light_and_back_is_the_same():
    values = torch.arange(256) / 255
    light = sensor.to_linear(values)
    assert float((sensor.to_srgb(light) - values).abs().max()) < 1e-5
    assert float(light[188]) == pytest.approx(0.503, abs=2e-3)


@pytest.mark.parametrize("method", mosaic.METHODS)
@pytest.mark.parametrize("phase", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_demosaicking_keeps_what_is_smooth_and_what_was_sampled(phase, method):
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    ramp = (rows + 2 * columns)[None].repeat(3, 1, 1) + torch.tensor([0.0, 40.0, 90.0])[:, None, None]
    found = mosaic.demosaicked(ramp[None], torch.tensor([phase]), method)[0]
    assert torch.allclose(found[:, 3:-3, 3:-3], ramp[:, 3:-3, 3:-3], atol=1e-3)
    noise = torch.randn(3, 24, 32, generator=generator(20))
    kept = (mosaic.demosaicked(noise[None], torch.tensor([phase]), method)[0] - noise).abs() < 1e-6
    # Each pixel keeps one channel: a quarter red, a half green, a quarter blue.
    assert kept.sum(dim=(1, 2)).tolist() == [192, 384, 192]
    assert int(kept.sum(dim=0).max()) == 1


def test_demosaicking_takes_each_crop_at_its_own_phase_and_the_methods_differ():
    images = torch.rand((4, 3, 32, 32), generator=generator(30))
    phases = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    for method in mosaic.METHODS:
        whole = mosaic.demosaicked(images, phases, method)
        single = [mosaic.demosaicked(images[n : n + 1], phases[n : n + 1], method)[0] for n in range(4)]
        assert torch.allclose(whole, torch.stack(single), atol=1e-6)
    first, second, third = (mosaic.demosaicked(images, phases, method) for method in mosaic.METHODS)
    assert min(float((a - b).abs().mean()) for a, b in ((first, second), (first, third), (second, third))) > 0.01


def test_shot_noise_grows_with_the_light_and_read_noise_does_not():
    clean = torch.cat([torch.full((1, 3, 128, 64), 40 / 255), torch.full((1, 3, 128, 64), 230 / 255)], dim=3)
    drawn = generator(23)
    ratios = []
    for _ in range(12):
        noisy = sensor.sensor(clean, torch.tensor([4.0]), torch.tensor([False]), drawn)
        light = sensor.to_linear(noisy) - sensor.to_linear(clean)
        ratios.append(float(light[..., 64:].std() / light[..., :64].std()))
    # Between read noise alone (1) and shot noise alone (the root of the ratio of the light, 5.9).
    assert min(ratios) > 0.9
    assert max(ratios) < 6.2
    assert max(ratios) > 2.0


def test_jpeg_has_its_grid_where_the_phase_puts_it(tissue_image):
    rng = np.random.default_rng(24)
    image = corrupt(tissue_image[:128, :128], 20, rng)

    def grid(found: np.ndarray) -> int:
        steps = np.abs(np.diff(found.astype(float), axis=1)).mean(axis=(0, 2))
        return int(np.argmax([steps[start::8].mean() for start in range(8)]))

    for left in range(8):
        found = codecs.jpeg(image, 30, "4:4:4", (0, left))
        assert found.shape == image.shape
        assert grid(found) == (7 - left) % 8


def test_jpeg_loses_more_at_lower_quality_and_with_less_chroma(tissue_image):
    def error(*given) -> float:
        return float(np.square(codecs.jpeg(tissue_image, *given).astype(float) - tissue_image).mean())

    assert error(95, "4:4:4") < error(70, "4:4:4") < error(30, "4:4:4")
    colours = np.random.default_rng(25).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    lost = [np.square(codecs.jpeg(colours, 90, s).astype(float) - colours).mean() for s in codecs.SAMPLINGS]
    assert lost[0] < lost[1] < lost[2]


def test_stripes_are_constant_along_a_row_or_a_column():
    found = defects.stripes(60, 48, 64, generator(31))
    rows, columns = found.std(dim=3).amax(dim=(1, 2)) < 1e-5, found.std(dim=2).amax(dim=(1, 2)) < 1e-5
    assert bool((rows ^ columns).all())
    assert 15 < int(rows.sum()) < 45
    assert torch.allclose(found.square().mean(dim=(1, 2, 3)), torch.ones(60), atol=1e-3)
    alike = (found - found[:, :1]).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert 15 < int(alike.sum()) < 45


def test_salt_and_pepper_changes_its_share_to_black_and_white():
    clean = grey(40, 96)
    share = torch.linspace(0, 0.02, 40)
    found = defects.salt_and_pepper(clean, share, generator(32))
    changed = found != clean
    assert set(found[changed].unique().tolist()) == {0.0, 1.0}
    assert not bool(changed[0].any())
    assert float(changed.float().mean()) == pytest.approx(0.01, abs=0.001)
    assert float((found == 0).float().mean()) == pytest.approx(0.005, abs=0.001)
    whole_pixels = (changed.all(dim=1) == changed.any(dim=1)).flatten(1).all(dim=1)
    assert 10 < int(whole_pixels.sum()) < 30


def test_hot_pixels_are_rare_and_bright():
    added = defects.hot_pixels((20, 3, 96, 96), torch.full((20,), 0.004), generator(33))
    assert float((added > 0).float().mean()) == pytest.approx(0.004, abs=0.0005)
    assert float(added[added > 0].mean()) == pytest.approx(0.4, abs=0.05)
    assert float(added.min()) == 0


def test_jpeg2000_has_the_quality_asked_for(tissue_image):
    image = np.ascontiguousarray(tissue_image[:96, :96])
    for phase in ((0, 0), (5, 11)):
        errors = []
        for level in (30.0, 40.0):
            found = codecs.jpeg2000(image, level, phase)
            assert found.shape == image.shape
            errors.append(10 * np.log10(255**2 / np.square(found.astype(float) - image).mean()))
        assert errors == pytest.approx([30, 40], abs=2.5)


@pytest.mark.training
def test_camera_leaves_fifteen_in_a_hundred_exactly_clean(tissue_image):
    clean = crops_of(tissue_image, 16)
    counts, changed_truths, drawn = [], 0, generator(34)
    for _ in range(100):
        noisy, truth, sigma = camera.camera(clean, drawn)
        untouched = sigma == 0
        counts.append(int(untouched.sum()))
        assert torch.equal(noisy[untouched], truth[untouched])
        assert torch.equal(truth[~untouched], clean[~untouched])
        changed_truths += int((truth != clean).flatten(1).any(1).sum())
    # A noisy crop with next to no noise may round to its truth: a few more than two or three are unchanged.
    assert min(counts) >= 2
    assert np.mean(counts) == pytest.approx(0.15 * 16, abs=0.25)
    # A truth is compressed in two of five clean crops, and in no other.
    assert 0.3 < changed_truths / sum(counts) < 0.5


def test_the_number_of_clean_crops_is_the_share_of_each_batch():
    clean = torch.rand((16, 3, 16, 16), generator=generator(35))
    drawn = generator(36)
    counts = [int(camera.clean_ones(clean, drawn, 0.15).sum()) for _ in range(400)]
    assert set(counts) == {2, 3}
    assert np.mean(counts) == pytest.approx(2.4, abs=0.08)
    assert int(camera.clean_ones(clean, drawn, 1.0).sum()) == 16
    assert int(camera.clean_ones(clean, drawn, 0.0).sum()) == 0


def test_at_least_half_of_the_clean_crops_are_of_fine_texture(tissue_image):
    rng = np.random.default_rng(37)
    fine = torch.stack([textures.weave(64, rng)[None].repeat(3, 1, 1) for _ in range(6)]) * 0.5
    clean = torch.cat([grey(12), fine])
    drawn = generator(38)
    chosen = torch.stack([camera.clean_ones(clean, drawn, 0.15) for _ in range(100)])
    assert float(chosen[:, 12:].sum() / chosen.sum()) > 0.5


def test_camera_is_in_steps_of_one_grey_level(tissue_image):
    clean = crops_of(tissue_image, 24)
    before = clean.clone()
    noisy, truth, sigma = camera.camera(clean, generator(39))
    assert torch.equal(clean, before)
    for values in (noisy, truth):
        assert float((values * 255 - (values * 255).round()).abs().max()) < 1e-4
        assert 0 <= float(values.min()) <= float(values.max()) <= 1
    assert torch.allclose(sigma, 255 * (noisy - truth).square().mean(dim=(1, 2, 3)).sqrt())


def test_camera_follows_its_generator_and_draws_each_crop_anew(tissue_image):
    clean = crops_of(tissue_image, 1).repeat(12, 1, 1, 1)
    first, same, other = (camera.camera(clean, generator(seed)) for seed in (41, 41, 42))
    assert torch.equal(first.noisy, same.noisy)
    assert torch.equal(first.sigma, same.sigma)
    assert not torch.equal(first.noisy, other.noisy)
    noise = camera.camera(grey(12, 96), generator(43), PLAIN).noisy - 128 / 255
    noise = noise[noise.flatten(1).std(dim=1) > 0.01].flatten(0, 1).flatten(1)
    assert float((torch.corrcoef(noise) - torch.eye(len(noise))).abs().max()) < 0.06


def test_white_noise_is_uniform_in_strength_and_the_rest_is_weaker():
    white = camera.camera(grey(600, 16), generator(45), PLAIN).sigma
    other = Camera(**{**vars(PLAIN), "white": 0, "correlated": 1})
    correlated = camera.camera(grey(600, 16), generator(46), other).sigma
    counts = np.histogram(white.numpy(), bins=5, range=(0, 51))[0]
    assert counts.min() > 80
    assert float(white.median()) == pytest.approx(25, abs=3)
    assert float(correlated.median()) == pytest.approx(50 * 0.5**1.5, abs=3)


def test_correlated_noise_is_not_white():
    field = camera.correlated_field((60, 3, 64, 64), generator(47))
    assert float(field.square().mean()) == pytest.approx(1, abs=0.03)
    channels = torch.stack([torch.corrcoef(each)[0, 1] for each in field.flatten(2)])
    neighbours = (field[..., 1:] * field[..., :-1]).mean(dim=(1, 2, 3)) / field.square().mean(dim=(1, 2, 3))
    either = (channels.abs() > 0.06) | (neighbours > 0.03)
    assert float(either.float().mean()) > 0.8
    assert float(channels.max()) > 0.99


def test_camera_compresses_three_in_five(tissue_image):
    clean = crops_of(tissue_image, 300, 32)
    usual = {**vars(Camera()), "clean": 0, "sensor": 0, "correlated": 0.6}
    without = camera.camera(clean, generator(48), Camera(**{**usual, "compressed": 0, "compressed_white": 0})).noisy
    found = camera.camera(clean, generator(48), Camera(**usual)).noisy
    changed = (found != without).flatten(1).any(1)
    assert 0.52 < float(changed.float().mean()) < 0.68


def test_a_sensor_with_a_mosaic_correlates_channels_or_neighbours():
    amount = Camera(**{**vars(PLAIN), "white": 0, "sensor": 1})
    noisy, _, sigma = camera.camera(grey(80, 48), generator(49), amount)
    noise = (noisy - noisy.mean(dim=(2, 3), keepdim=True))[sigma > 3]
    channels = torch.stack([torch.corrcoef(each)[0, 1] for each in noise.flatten(2)])
    neighbours = (noise[..., 1:] * noise[..., :-1]).mean(dim=(1, 2, 3)) / noise.square().mean(dim=(1, 2, 3))
    # Three chips, 30 %, are independent; a mosaic is not.
    assert 0.6 < float(((channels > 0.1) | (neighbours > 0.1)).float().mean()) < 0.8


def test_what_is_not_noise_of_a_kind_has_defects():
    amount = Camera(**{**vars(PLAIN), "white": 0})
    noisy, _, sigma = camera.camera(grey(40, 64), generator(50), amount)
    noise = (noisy - 128 / 255).abs()
    striped = (noisy.std(dim=3).amax(dim=(1, 2)) < 1e-4) | (noisy.std(dim=2).amax(dim=(1, 2)) < 1e-4)
    speckled = (noise > 0).float().mean(dim=(1, 2, 3)) <= 0.025
    assert bool((striped | speckled).all())
    assert int(striped.sum()) > 8
    assert int((speckled & (sigma > 0)).sum()) > 8


@pytest.mark.parametrize("pattern", textures.PATTERNS)
def test_textures_are_fine_and_in_range(pattern):
    rng = np.random.default_rng(51)
    for _ in range(4):
        field = pattern(64, rng)
        assert field.shape == (64, 64)
        assert bool(torch.isfinite(field).all())
        assert float(field.std()) > 0.01


def test_a_grating_is_periodic():
    rng = np.random.default_rng(52)
    for _ in range(6):
        power = torch.fft.rfft2(textures.grating(64, rng)).abs().square()
        power[0, 0] = 0
        top = power.flatten().sort(descending=True).values
        assert float(top[:60].sum() / top.sum()) > 0.8
