"""What streams and stored samples say about their colour model, and how samples are converted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsi_denoise.slide.colours import Space, jpeg_statement, pixel_evidence, statement_of, ycbcr_to_rgb
from wsi_denoise.slide.streams import JpegHeader, declared_size, jpeg2000_header, jpeg_header


@pytest.fixture(scope="module")
def tissue(tissue_image) -> np.ndarray:
    return np.ascontiguousarray(tissue_image[200:456, 200:456])


def as_ycbcr(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert("YCbCr"))


def test_pixels_tell_both_models_apart(tissue, tissue_image):
    for pixels in (tissue, tissue_image, tissue_image[:64, :64], np.full((32, 32, 3), 240, np.uint8)):
        assert pixel_evidence(pixels) is Space.RGB
        assert pixel_evidence(as_ycbcr(pixels)) in (Space.YCBCR, None)
    assert pixel_evidence(as_ycbcr(tissue_image)) is Space.YCBCR
    assert pixel_evidence(np.full((8, 8, 3), 128, np.uint8)) is None
    assert pixel_evidence(np.zeros((0, 3), np.uint8)) is None


def test_conversion_is_that_of_jpeg(tissue):
    expected = np.asarray(Image.fromarray(as_ycbcr(tissue), "YCbCr").convert("RGB")).astype(int)
    assert np.abs(ycbcr_to_rgb(as_ycbcr(tissue)).astype(int) - expected).max() <= 1


def test_four_components_with_an_adobe_marker_are_no_rgb():
    header = JpegHeader(components=((1, 1, 1),) * 4, adobe=2)
    assert "YCCK" in jpeg_statement(header).conflict


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_headers_of_any_bytes_are_read_without_error(data):
    for start in (b"", b"\xff\xd8", b"\xff\xd8\xff\xc0", b"\xff\x4f\xff\x51"):
        jpeg_header(start + data)
        jpeg2000_header(start + data)
        for codec in ("jpeg", "jpeg2000"):
            statement_of(start + data, codec)
        for codec in ("jpeg", "jpeg2000", "png", "webp", "lerc", "jpeg xl", "jpeg xr"):
            declared_size(start + data, codec)
