"""A slide done by blocks and windows is the slide done at once, and what holds no tissue is not touched.

The network is the shipped one, in single precision on the CPU.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wsi_denoise import __version__
from wsi_denoise.network.denoiser import Denoiser
from wsi_denoise.network.plan import Plan
from wsi_denoise.processing.block import denoise_region, encode, read_mirrored, run_block
from wsi_denoise.processing.spool import Spool
from wsi_denoise.processing.values import SlideWork
from wsi_denoise.quality.evidence import Evidence
from wsi_denoise.slide.encoding import Encoding, Pixels
from wsi_denoise.slide.geometry import (
    BLOCK,
    PATCH,
    STRIDE,
    TILE,
    BlockIndex,
    Lattice,
    Region,
    Span,
    count,
    level_sizes,
    mirror,
    round_up,
)
from wsi_denoise.slide.halving import halve
from wsi_denoise.slide.windows import cover

HALO = 48
GLASS = (241, 240, 239)
TORCH = Plan("cpu", "torch", "fp32", 2, 2)


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return Denoiser("paper", TORCH, callers=1)


@pytest.fixture(scope="module")
def noisy(tissue_image) -> Pixels:
    """Real tissue of 1700 x 1600 px (mirrored at the right and below) with noise of sigma 15."""
    tissue = np.pad(tissue_image, ((0, 600), (0, 700), (0, 0)), mode="reflect")
    noise = np.random.default_rng(5).normal(0, 15, tissue.shape)
    return np.rint(np.clip(tissue + noise, 0, 255)).astype(np.uint8)


def work_of(pixels: Pixels, spool: Path, **changes) -> SlideWork:
    height, width = pixels.shape[:2]
    work = SlideWork(
        path=Path("none"),
        width=width,
        height=height,
        offset=(0, 0),
        preset="paper",
        plan=TORCH,
        halo=HALO,
        background="keep",
        glass=GLASS,
        encoding=Encoding("deflate"),
        spool=spool,
        max_megapixels=100,
        model_sha256="",
        version=__version__,
    )
    return replace(work, **changes)


def reader_of(pixels: Pixels):
    """Read as a slide does: inside only, and what is given must not be written to."""

    def read(x: int, y: int, width: int, height: int) -> Pixels:
        assert x >= 0
        assert y >= 0
        part = pixels[y : y + height, x : x + width]
        assert part.shape == (height, width, 3)
        part.flags.writeable = False
        return part

    return read


def at_once(pixels: Pixels, denoiser: Denoiser, halo: int = 112) -> Pixels:
    """The whole-image result: mirror-padded to a multiple of 16 plus halo, run once, cropped."""
    height, width = pixels.shape[:2]
    rows = mirror(-halo, round_up(height, STRIDE) + halo, height)
    columns = mirror(-halo, round_up(width, STRIDE) + halo, width)
    whole = denoiser.denoise(pixels[rows[:, None], columns[None, :]][None])[0]
    return whole[halo : halo + height, halo : halo + width]


def pixels_of(spool: Path, size: tuple[int, int], level: int) -> Pixels:
    """Level 0 or 1 of a slide of (width, height), or level 2 for 2, out of its spooled blocks."""
    lattice = Lattice(*size)
    rows = []
    for row in range(lattice.block_shape[0]):
        parts = []
        for column in range(lattice.block_shape[1]):
            block = BlockIndex(row, column)
            width, height = (-(-length // 2**level) for length in lattice.region(block).size)
            with Spool(spool).open(block) as file:
                if level == 2:
                    parts.append(file.reduced())
                    continue
                tiles = [
                    np.concatenate(
                        [Encoding("deflate").decode(file.tile(level, y, x)) for x in range(count(width, TILE))], axis=1
                    )
                    for y in range(count(height, TILE))
                ]
                parts.append(np.concatenate(tiles)[:height, :width])
        rows.append(np.concatenate(parts, axis=1))
    return np.concatenate(rows)


def all_blocks(work: SlideWork, pixels: Pixels, denoiser: Denoiser, tissue: np.ndarray | None = None) -> Pixels:
    lattice = work.lattice
    mask = np.ones(lattice.patch_shape, bool) if tissue is None else tissue
    reports = [
        run_block(work, block, mask[lattice.patches(block)], reader_of(pixels), denoiser) for block in lattice.blocks()
    ]
    assert sum(report.pixels for report in reports) == work.width * work.height
    return pixels_of(work.spool, (work.width, work.height), 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (16, 16), (97, 95), (96, 96), (193, 383)])
def test_small_slides_by_windows_are_the_slides_at_once(size, noisy, denoiser, tmp_path):
    pixels = np.ascontiguousarray(noisy[300 : 300 + size[1], 200 : 200 + size[0]])
    found = all_blocks(work_of(pixels, tmp_path), pixels, denoiser)
    meant = at_once(pixels, denoiser)
    assert found.shape == pixels.shape
    assert np.abs(found.astype(int) - meant).max() <= 1
    if min(size) < 95:
        # Of a few pixels, how many lie so near to between two grey levels that the halo tips them goes by the weights.
        found = all_blocks(work_of(pixels, tmp_path / "exact", halo=112), pixels, denoiser)
    assert (found == meant).mean() > 0.96


@pytest.mark.slow
def test_a_slide_of_four_blocks_is_the_slide_at_once(noisy, tmp_path):
    pytest.importorskip("openvino", reason="the cpu extra is not installed; torch takes ten times as long")
    plan = replace(TORCH, backend="openvino", window=4, batch=1)
    denoiser = Denoiser("paper", plan, callers=1)
    pixels = noisy[:1600, :1700]
    work = work_of(pixels, tmp_path, plan=plan)
    found = all_blocks(work, pixels, denoiser)
    meant = at_once(pixels, denoiser)
    difference = np.abs(found.astype(int) - meant)
    assert difference.max() <= 1
    # Next to the lines between blocks and windows few values are rounded the other way (6 % with a halo of 48 px).
    for line in (BLOCK, 384):
        assert difference[:, line - 2 : line + 2].mean() < 0.08
    np.testing.assert_array_equal(pixels_of(tmp_path, (1700, 1600), 1), halve(found))
    np.testing.assert_array_equal(pixels_of(tmp_path, (1700, 1600), 2), halve(halve(found)))
    assert level_sizes(1700, 1600)[2] == (425, 400)


def test_blocks_meet_without_a_seam(noisy, denoiser, tmp_path):
    """A narrow strip over the line between two blocks."""
    pixels = np.ascontiguousarray(noisy[100:196, :1700])
    found = all_blocks(work_of(pixels, tmp_path), pixels, denoiser)
    meant = at_once(pixels, denoiser)
    assert np.abs(found.astype(int) - meant).max() <= 1


@pytest.mark.parametrize(("window", "batch"), [(1, 1), (1, 5), (3, 2), (4, 1)])
def test_windows_and_batches_do_not_show(window, batch, noisy, denoiser, tmp_path):
    pixels = np.ascontiguousarray(noisy[:301, :390])
    work = work_of(pixels, tmp_path, plan=replace(TORCH, window=window, batch=batch))
    assert np.abs(all_blocks(work, pixels, denoiser).astype(int) - at_once(pixels, denoiser)).max() <= 1


def test_without_a_halo_the_windows_do_show(noisy, denoiser, tmp_path):
    """The comparison above can fail: this is what a stitching fault looks like to it."""
    pixels = np.ascontiguousarray(noisy[:288, :288])
    work = work_of(pixels, tmp_path, halo=0, plan=replace(TORCH, window=1))
    assert np.abs(all_blocks(work, pixels, denoiser).astype(int) - at_once(pixels, denoiser)).max() > 1


def test_openvino_agrees_with_torch(noisy, denoiser, tmp_path):
    pytest.importorskip("openvino", reason="the cpu extra is not installed")
    plan = replace(TORCH, backend="openvino")
    pixels = np.ascontiguousarray(noisy[:193, :301])
    other = Denoiser("paper", plan, callers=1)
    found = all_blocks(work_of(pixels, tmp_path, plan=plan), pixels, other)
    assert np.abs(found.astype(int) - at_once(pixels, denoiser)).max() <= 1


@pytest.fixture
def half_glass() -> np.ndarray:
    """(rows, columns) of a slide of 301 x 390 px (width 390): tissue here and there, the edges included."""
    tissue = np.zeros((4, 5), bool)
    tissue[0, 0] = tissue[1, 1:3] = tissue[2, 2] = tissue[3, 4] = True
    return tissue


def of_patches(tissue: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.repeat(np.repeat(tissue, PATCH, 0), PATCH, 1)[: shape[0], : shape[1]]


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("background", ["keep", "flatten", "denoise"])
def test_what_becomes_of_patches_without_tissue(background, window, half_glass, noisy, denoiser, tmp_path):
    pixels = np.ascontiguousarray(noisy[:301, :390])
    work = work_of(pixels, tmp_path, background=background, plan=replace(TORCH, window=window))
    found = all_blocks(work, pixels, denoiser, half_glass)
    inside = of_patches(half_glass, pixels.shape)
    meant = at_once(pixels, denoiser)
    assert np.abs(found[inside].astype(int) - meant[inside]).max() <= 1
    if background == "keep":
        np.testing.assert_array_equal(found[~inside], pixels[~inside])
    elif background == "flatten":
        assert (found[~inside] == GLASS).all()
    else:
        assert np.abs(found[~inside].astype(int) - meant[~inside]).max() <= 1


@pytest.mark.parametrize("background", ["keep", "flatten"])
def test_a_block_without_tissue_needs_no_network(background, noisy, denoiser, tmp_path):
    pixels = np.ascontiguousarray(noisy[:97, :200])
    work = work_of(pixels, tmp_path, background=background)
    none = np.zeros(work.lattice.patch_shape, bool)
    found = all_blocks(work, pixels, denoiser, none)
    meant = pixels if background == "keep" else np.broadcast_to(np.uint8(GLASS), pixels.shape)
    np.testing.assert_array_equal(found, meant)
    report = run_block(work, BlockIndex(0, 0), none, reader_of(pixels), denoiser)
    assert report.tissue_pixels == 0


def test_the_report_counts_pixels_of_partial_patches(half_glass, noisy, denoiser, tmp_path):
    pixels = np.ascontiguousarray(noisy[:301, :390])
    work = work_of(pixels, tmp_path)
    report = run_block(work, BlockIndex(0, 0), half_glass, reader_of(pixels), denoiser)
    assert report.pixels == 301 * 390
    assert report.tissue_pixels == int(of_patches(half_glass, pixels.shape).sum())
    assert set(report.seconds) == {"read", "network", "measure", "encode"}
    assert report.spooled == (tmp_path / f"{report.block}.block").stat().st_size


def test_what_is_measured_is_spooled(noisy, tissue_image, denoiser, tmp_path):
    pixels = np.ascontiguousarray(noisy[:384, :480])
    work = work_of(pixels, tmp_path)
    all_blocks(work, pixels, denoiser)
    with Spool(tmp_path).open(BlockIndex(0, 0)) as file:
        metrics = Evidence.from_arrays(file.arrays()).summary()
    assert metrics["tissue_patches"] == 20
    assert metrics["sigma_before_wavelet"] == pytest.approx(15, rel=0.2)
    assert metrics["sigma_after_wavelet"] < 5


def test_what_is_meant_over_the_slide_is_of_tissue_also_where_glass_is_denoised(half_glass, noisy, denoiser, tmp_path):
    pixels = np.ascontiguousarray(noisy[:301, :390])
    found = {}
    for background in ("keep", "denoise"):
        run_block(
            work_of(pixels, tmp_path / background, background=background),
            BlockIndex(0, 0), half_glass, reader_of(pixels), denoiser,
        )  # fmt: skip
        with Spool(tmp_path / background).open(BlockIndex(0, 0)) as file:
            evidence = Evidence.from_arrays(file.arrays())
        found[background] = evidence.summary()
        maps = evidence.patch_map(half_glass.shape).sigma_removed
        measured = np.ones_like(half_glass) if background == "denoise" else half_glass.copy()
        measured[:, 4] = False  # 6 px are less than a cell
        np.testing.assert_array_equal(np.isfinite(maps), measured)
    assert found["denoise"]["tissue_patches"] == half_glass.sum()
    for name in ("residual_rms", "ssim", "sigma_after_wavelet", "hematoxylin_after"):
        assert found["denoise"][name] == pytest.approx(found["keep"][name], rel=0.01), name


def test_noise_goes_and_tissue_stays(noisy, tissue_image, denoiser, tmp_path):
    pixels, clean = np.ascontiguousarray(noisy[:384, :384]), tissue_image[:384, :384].astype(float)
    found = all_blocks(work_of(pixels, tmp_path), pixels, denoiser)
    before, after = ((image - clean).var() for image in (pixels, found))
    assert 10 * np.log10(before / after) > 5


def test_a_region_of_a_slide_is_read_at_its_place(noisy, denoiser, tmp_path):
    pixels = np.ascontiguousarray(noisy[:400, :500])
    part = np.ascontiguousarray(pixels[50:150, 30:230])
    work = work_of(part, tmp_path, offset=(30, 50))
    run_block(work, BlockIndex(0, 0), np.ones((2, 3), bool), reader_of(pixels), denoiser)
    found = pixels_of(tmp_path, (200, 100), 0)
    assert np.abs(found.astype(int) - at_once(part, denoiser)).max() <= 1


@pytest.mark.parametrize(
    ("x", "y", "halo"), [(16, 0, 48), (0, 16, 48), (95, 0, 48), (0, 0, 40), (0, 0, 1), (PATCH, 8, 16)]
)
def test_what_is_off_the_lattice_is_refused(x, y, halo, denoiser):
    chosen = np.ones((1, 1), bool)
    covered = cover(Region(Span(y, y + PATCH), Span(x, x + PATCH)), chosen, (1,), halo)
    padded = np.zeros((PATCH + 2 * halo, PATCH + 2 * halo, 3), np.uint8)
    with pytest.raises(ValueError, match="off the lattice"):
        denoise_region(padded, covered, chosen, 1, denoiser)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (200, 100)])
@pytest.mark.parametrize(
    ("y", "x"),
    [
        ((0, 96), (0, 96)),
        ((-48, 240), (-48, 240)),
        ((-500, 700), (-1, 900)),
        ((-9, -1), (-8, 0)),
        ((300, 309), (400, 404)),
    ],
)
def test_reading_beyond_the_slide_mirrors_it(size, y, x, noisy, tmp_path):
    pixels = np.ascontiguousarray(noisy[: size[1], : size[0]])
    wanted = Region(Span(*y), Span(*x))
    found = read_mirrored(reader_of(pixels), wanted, work_of(pixels, tmp_path))
    rows, columns = mirror(*y, size[1]), mirror(*x, size[0])
    np.testing.assert_array_equal(found, pixels[rows[:, None], columns[None, :]])


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
@pytest.mark.parametrize("size", [(1, 1), (97, 95), (600, 300)])
def test_encoding_a_block(size, compression, tissue_image):
    pixels = np.ascontiguousarray(tissue_image[: size[1], : size[0]])
    encoding = Encoding(compression)
    tiles, reduced, sse, samples = encode(pixels, encoding)
    width, height = size
    for level, (wide, high) in enumerate(((width, height), ((width + 1) // 2, (height + 1) // 2))):
        places = {(row, column) for of_level, row, column in tiles if of_level == level}
        assert places == {(row, column) for row in range(count(high, TILE)) for column in range(count(wide, TILE))}
    np.testing.assert_array_equal(reduced, halve(halve(pixels)))
    if encoding.lossless:
        assert (sse, samples) == (0, 0)
        return
    # What the codec costs is measured over the slide's own pixels, not over what fills the last tiles.
    error, values = 0.0, 0
    for row in range(count(height, TILE)):
        for column in range(count(width, TILE)):
            if (row + 2 * column) % 4:
                continue
            part = pixels[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
            decoded = encoding.decode(tiles[0, row, column])[: part.shape[0], : part.shape[1]]
            error += float(((decoded.astype(float) - part) ** 2).sum())
            values += part.size
    assert samples == values > 0
    assert sse == pytest.approx(error)
