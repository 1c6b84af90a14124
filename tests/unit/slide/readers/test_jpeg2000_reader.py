"""JPEG 2000 files: JP2 and bare codestreams, made here with imagecodecs."""

import struct
from pathlib import Path

import glymur
import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wsi_denoise.errors import NotRGB, SlideError, TooLarge, TruncatedSlide, UnsupportedSlide
from wsi_denoise.slide.reader import open_slide, probe
from wsi_denoise.slide.readers import jpeg2000_reader

PIXELS = np.random.default_rng(0).integers(0, 255, (75, 90, 3), np.uint8)


def encoded(pixels: np.ndarray = PIXELS, **options) -> bytes:
    return imagecodecs.jpeg2k_encode(pixels, **{"level": 0, "codecformat": "jp2", **options})


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def with_header(data: bytes, *boxes: bytes) -> bytes:
    """Add boxes to the JP2 header of a file."""
    at = data.index(b"jp2h") - 4
    length = int.from_bytes(data[at : at + 4], "big")
    inside = data[at + 8 : at + length] + b"".join(boxes)
    return data[:at] + box(b"jp2h", inside) + data[at + length :]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("levels", [1, 2, 6])
@pytest.mark.parametrize("kind", ["jp2", "j2k"])
def test_rgb_is_read_exactly_whatever_its_levels(tmp_path, kind, levels):
    path = write(tmp_path / f"a.{kind}", encoded(codecformat=kind, resolutions=levels))
    with open_slide(path) as slide:
        assert (slide.info.width, slide.info.height, slide.info.compression) == (90, 75, "jpeg2000")
        np.testing.assert_array_equal(slide.read(0, 0, 90, 75), PIXELS)
        np.testing.assert_array_equal(slide.read(13, 7, 20, 30), PIXELS[7:37, 13:33])
        assert slide.thumbnail(20).shape == (17, 20, 3)
        slide.trim()
        np.testing.assert_array_equal(slide.read(0, 0, 90, 75), PIXELS)
    assert probe(path).width == 90


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (PIXELS[..., 0], "1 component, grey"),
        (PIXELS[..., :2], "2 components, grey with transparency"),
        (PIXELS.astype(np.uint16) * 200, "3 components of 16 bits"),
        (PIXELS[..., 0].astype(np.uint16) * 200, "1 component of 16 bits"),
        (PIXELS.astype(np.int8), "3 components of 8 signed bits"),
        (np.concatenate([PIXELS, PIXELS], axis=2), "6 components"),
    ],
)
@pytest.mark.parametrize("kind", ["jp2", "j2k"])
def test_what_is_not_8_bit_rgb_is_refused_with_what_it_is(tmp_path, pixels, words, kind):
    path = write(tmp_path / f"a.{kind}", encoded(np.ascontiguousarray(pixels), codecformat=kind))
    with pytest.raises(NotRGB) as raised:
        open_slide(path)
    assert words in raised.value.detail


@pytest.mark.parametrize(("number", "words"), [(12, "CMYK"), (14, "CIELab"), (99, "colour space 99")])
def test_other_colour_spaces_are_refused_by_name(tmp_path, number, words):
    data = encoded().replace(b"colr\x01\0\0" + struct.pack(">I", 16), b"colr\x01\0\0" + struct.pack(">I", number))
    with pytest.raises(NotRGB, match=words):
        open_slide(write(tmp_path / "a.jp2", data))


def test_a_palette_is_refused(tmp_path):
    palette = box(b"pclr", struct.pack(">HB3B", 2, 3, 7, 7, 7) + bytes(6))
    data = with_header(encoded(PIXELS[..., 0]), palette, box(b"cmap", struct.pack(">HBB", 0, 1, 0) * 3))
    with pytest.raises(NotRGB, match="palette"):
        open_slide(write(tmp_path / "a.jp2", data))


def test_ycbcr_is_converted_and_components_of_no_stated_model_are_noted(tmp_path, tissue_image):
    rgb = np.ascontiguousarray(tissue_image[:200, :200])
    ycbcr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    data = encoded(ycbcr, mct=False)
    data = data.replace(b"colr\x01\0\0" + struct.pack(">I", 16), b"colr\x01\0\0" + struct.pack(">I", 18))
    with open_slide(write(tmp_path / "a.jp2", data)) as slide:
        assert np.abs(slide.read(0, 0, 200, 200).astype(int) - rgb).max() <= 3
    with open_slide(write(tmp_path / "a.j2k", encoded(codecformat="j2k", mct=False))) as slide:
        assert any("colour model" in note for note in slide.info.notes)
    with open_slide(write(tmp_path / "b.j2k", encoded(codecformat="j2k"))) as slide:
        assert not any("colour model" in note for note in slide.info.notes)


def resolution(kind: bytes, per_metre: int, power: int = 0) -> bytes:
    return box(b"res ", box(kind, struct.pack(">HHHHbb", per_metre, 1, per_metre * 2, 1, power, power)))


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ((resolution(b"resc", 20000, 2),), (0.25, 0.5)),
        ((resolution(b"resd", 20000, 2),), (0.25, 0.5)),
        ((resolution(b"resd", 2835),), None),
        ((resolution(b"resc", 0),), None),
        ((), None),
    ],
)
def test_capture_resolution_is_read(tmp_path, boxes, expected):
    with open_slide(write(tmp_path / "a.jp2", with_header(encoded(), *boxes))) as slide:
        assert slide.info.mpp == (None if expected is None else pytest.approx(expected))
        assert bool(slide.info.notes) == (expected is None)


def test_resolution_and_objective_of_a_description_are_read(tmp_path):
    text = b"<image><description>Omnyx |AppMag = 40|MPP = 250 nm|Left = 3</description></image>"
    data = encoded()
    at = data.index(b"jp2c") - 4
    with open_slide(write(tmp_path / "a.jp2", data[:at] + box(b"xml ", text) + data[at:])) as slide:
        assert (slide.info.mpp, slide.info.objective_power) == ((0.25, 0.25), 40)


def test_transparency_is_laid_on_the_background_and_another_fourth_component_is_left_out(tmp_path):
    alpha = np.full(PIXELS.shape[:2], 255, np.uint8)
    alpha[:20] = 0
    data = encoded(np.dstack([PIXELS, alpha]))
    at = data.index(b"jp2h") - 4
    header = data[at : at + int.from_bytes(data[at : at + 4], "big")]
    channels = struct.pack(">H", 4) + b"".join(
        struct.pack(">HHH", each, each == 3, (each + 1) % 4) for each in range(4)
    )
    stated = data if b"cdef" in header else with_header(data, box(b"cdef", channels))
    with open_slide(write(tmp_path / "a.jp2", stated)) as slide:
        assert (slide.read(0, 0, 90, 20) == slide.info.background).all()
        np.testing.assert_array_equal(slide.read(0, 20, 90, 55), PIXELS[20:])
    other = stated.replace(struct.pack(">HHH", 3, 1, 0), struct.pack(">HHH", 3, 0xFFFF, 0))
    with open_slide(write(tmp_path / "b.jp2", other)) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 90, 75), PIXELS)


@pytest.mark.parametrize("kind", ["jp2", "j2k"])
def test_every_truncation_and_reserved_copy_is_truncated(tmp_path, kind):
    data = encoded(codecformat=kind)
    start = data.index(b"\xff\x4f")
    for part in (*range(start + 5, start + 60, 7), start + 300, len(data) // 2, len(data) - 100, len(data) - 3):
        for reserved in (False, True):
            path = write(tmp_path / f"a.{kind}", data[:part] + bytes((len(data) - part) * reserved))
            with pytest.raises(TruncatedSlide):
                open_slide(path)


def test_a_missing_end_marker_is_no_truncation(tmp_path):
    data = encoded(codecformat="j2k")
    assert data.endswith(b"\xff\xd9")
    with open_slide(write(tmp_path / "a.j2k", data[:-2])) as slide:
        assert slide.info.width == 90


def test_limits_hold_before_anything_is_decoded(tmp_path):
    data = bytearray(encoded())
    at = data.index(b"\xff\x51") + 6
    data[at : at + 8] = struct.pack(">II", 2**31, 2**31)
    with pytest.raises(TooLarge):
        open_slide(write(tmp_path / "a.jp2", bytes(data)))


def test_a_large_picture_is_read_by_regions_where_the_system_has_openjpeg(tmp_path, monkeypatch):
    monkeypatch.setattr(jpeg2000_reader, "MAX_WHOLE", 100)
    path = write(tmp_path / "a.jp2", encoded())
    if glymur.version.openjpeg_version < "2.4":
        with pytest.raises(UnsupportedSlide, match="libopenjp2-7"):
            open_slide(path)
        return
    with open_slide(path) as slide:
        assert slide.info.reader == "glymur"
        np.testing.assert_array_equal(slide.read(13, 7, 20, 30), PIXELS[7:37, 13:33])
        np.testing.assert_array_equal(slide.read(89, 74, 1, 1), PIXELS[74:, 89:])


@given(st.data())
def test_damage_anywhere_is_an_error_of_the_slide(tmp_path_factory, data):
    whole = bytearray(encoded(PIXELS[:20, :20]))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, min(300, len(whole) - 1)))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("a") / "a.jp2"
    path.write_bytes(bytes(whole))
    try:
        with open_slide(path, max_megapixels=1) as slide:
            slide.read(0, 0, slide.info.width, slide.info.height)
    except SlideError:
        pass


@pytest.mark.shared
def test_the_cases_of_jpeg_2000_are_read_or_refused_with_what_they_are(shared):
    folder = shared / "cases" / "jp2-internal-error-and-false-reasons"
    for name, words in (("jp2_grey.jp2", "1 component, grey"), ("libvips_issue412.jp2", "palette")):
        with pytest.raises(NotRGB, match=words):
            open_slide(folder / name)
    with Image.open(shared / "cases" / "expected_pixels.png") as image:
        expected = np.asarray(image.convert("RGB"))
    for path in (folder / "j2k_raw.j2k", shared / "data" / "vendor-made" / "jp2_rgb.jp2"):
        with open_slide(path) as slide:
            np.testing.assert_array_equal(slide.read(0, 0, 700, 520), expected)
