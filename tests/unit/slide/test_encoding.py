"""Tiles decode to what was encoded, by our own decoder and by one that knows nothing of us."""

import io

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsi_denoise.slide.encoding import Encoding, cut
from wsi_denoise.slide.geometry import TILE, count

LOSSLESS = ["deflate", "zstd"]
SUBSAMPLINGS = ["4:4:4", "4:2:2", "4:2:0"]


@pytest.fixture
def tile(tissue_image) -> np.ndarray:
    return np.ascontiguousarray(tissue_image[300:556, 200:456])


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


@pytest.mark.parametrize("compression", LOSSLESS)
def test_lossless_codecs_lose_nothing(compression, tile):
    encoding = Encoding(compression)
    assert encoding.lossless
    for pixels in (tile, np.zeros_like(tile), np.full_like(tile, 255), 255 - tile):
        decoded = encoding.decode(encoding.encode(pixels))
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, pixels)


@given(st.sampled_from(LOSSLESS), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=10)
def test_lossless_codecs_lose_nothing_of_noise(compression, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (TILE, TILE, 3), np.uint8)
    encoding = Encoding(compression)
    np.testing.assert_array_equal(encoding.decode(encoding.encode(pixels)), pixels)


@pytest.mark.parametrize("compression", LOSSLESS)
def test_differences_make_tissue_smaller(compression, tile):
    encoded = Encoding(compression).encode(tile)
    plain = {"deflate": imagecodecs.zlib_encode, "zstd": imagecodecs.zstd_encode}[compression](tile)
    assert len(encoded) < len(plain)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_jpeg_is_near(subsampling, tile):
    encoding = Encoding("jpeg", 95, subsampling)
    assert not encoding.lossless
    # 4:2:0 costs stained tissue its colour edges, which is why it is not the default.
    assert psnr(encoding.decode(encoding.encode(tile)), tile) > {"4:4:4": 38, "4:2:2": 33, "4:2:0": 30}[subsampling]


def test_jpeg_tiles_are_jfif_ycbcr_for_any_decoder(tile):
    for subsampling, factors in (("4:4:4", (1, 1)), ("4:2:2", (2, 1)), ("4:2:0", (2, 2))):
        data = Encoding("jpeg", 90, subsampling).encode(tile)
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "JPEG"
            assert image.size == (TILE, TILE)
            horizontal, vertical = image.layer[0][1:3]
            assert (horizontal, vertical) == factors
            # Pillow takes colours from the file's own marks: RGB JPEG would come out wrong by tens of grey levels.
            assert psnr(np.asarray(image.convert("RGB")), tile) > 28


def test_quality_is_heeded(tile):
    sizes = [len(Encoding("jpeg", quality).encode(tile)) for quality in (50, 75, 90, 100)]
    assert sizes == sorted(set(sizes))
    best = Encoding("jpeg", 100)
    assert psnr(best.decode(best.encode(tile)), tile) > 45


@pytest.mark.parametrize(
    ("encoding", "photometric", "extra"),
    [
        (Encoding("jpeg", 90, "4:4:4"), "ycbcr", {"subsampling": (1, 1)}),
        (Encoding("jpeg", 90, "4:2:2"), "ycbcr", {"subsampling": (2, 1)}),
        (Encoding("jpeg", 90, "4:2:0"), "ycbcr", {"subsampling": (2, 2)}),
        (Encoding("deflate"), "rgb", {"predictor": 2}),
        (Encoding("zstd"), "rgb", {"predictor": 2}),
    ],
)
def test_tags_say_what_the_tiles_are(encoding, photometric, extra):
    tags = encoding.tags()
    assert tags["photometric"] == photometric
    assert extra.items() <= tags.items()


@given(st.integers(1, 600), st.integers(1, 600))
@settings(deadline=None, max_examples=30)
def test_tiles_put_together_are_the_image(width, height):
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), np.uint8)
    rows = [
        np.concatenate([cut(pixels, row, column) for column in range(count(width, TILE))], axis=1)
        for row in range(count(height, TILE))
    ]
    whole = np.concatenate(rows)
    np.testing.assert_array_equal(whole[:height, :width], pixels)
    # Beyond the image the last row and column are repeated: a hard edge would ring.
    np.testing.assert_array_equal(whole[height:, :width], np.broadcast_to(pixels[-1:], whole[height:, :width].shape))
    np.testing.assert_array_equal(
        whole[:, width:], np.broadcast_to(whole[:, width - 1 : width], whole[:, width:].shape)
    )


def test_tiles_are_contiguous(tissue_image):
    assert cut(tissue_image, 1, 1).flags.c_contiguous
    assert cut(tissue_image, 1, 1).shape == cut(tissue_image, 3, 3).shape == (TILE, TILE, 3)
