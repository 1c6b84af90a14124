"""Zeiss CZI: made up here after the format's own tables, as no real one is at hand."""

import struct
from pathlib import Path

import numpy as np
import pytest

from wsi_denoise.errors import NotASlide, TruncatedSlide, UnsupportedSlide
from wsi_denoise.slide.reader import open_slide, probe

PIXELS = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
XML = b"""<ImageDocument><Metadata>
<Information><Image><SizeX>128</SizeX><SizeY>96</SizeY><SizeS>1</SizeS></Image></Information>
<Scaling><Items><Distance Id="X"><Value>2.5e-07</Value></Distance><Distance Id="Y"><Value>2.5e-07</Value></Distance>
</Items></Scaling></Metadata></ImageDocument>"""


def segment(name: bytes, body: bytes) -> bytes:
    padded = body + bytes(-len(body) % 32)
    return struct.pack("<16sqq", name, len(padded), len(body)) + padded


def czi(path: Path, compression: int = 0, *, attachments: bool = True, directory: bool = True) -> Path:
    """Write a slide of one tile; compression 1 says JPEG and 4 JPEG XR. Without a table its position is 0."""
    start = 32 + 512
    sizes = ((b"X", 128), (b"Y", 96), (b"C", 1), (b"S", 1), (b"M", 1))
    entry = struct.pack("<2siqiibb4si", b"DV", 3, start, 0, compression, 0, 0, b"", len(sizes))
    entry += b"".join(struct.pack("<4siifi", name, 0, size, 0.0, size) for name, size in sizes)
    raw = PIXELS[..., ::-1].tobytes()
    tile = segment(b"ZISRAWSUBBLOCK", (struct.pack("<iiq", 0, 0, len(raw)) + entry).ljust(256, b"\0") + raw)
    table = segment(b"ZISRAWDIRECTORY", struct.pack("<i124x", 1) + entry)
    text = segment(b"ZISRAWMETADATA", struct.pack("<ii248x", len(XML), 0) + XML)
    attached = segment(b"ZISRAWATTDIR", struct.pack("<i252x", 0)) if attachments else b""
    at = [start + len(tile), start + len(tile) + len(table), start + len(tile) + len(table) + len(text)]
    at = [at[0] * directory, at[1], at[2] * attachments]
    head = struct.pack("<iiii16s16siqqiq", 1, 0, 0, 0, b"g" * 16, b"g" * 16, 0, at[0], at[1], 0, at[2])
    path.write_bytes(segment(b"ZISRAWFILE", head.ljust(512, b"\0")) + tile + table + text + attached)
    return path


def test_an_uncompressed_czi_is_read_exactly(tmp_path):
    path = czi(tmp_path / "a.czi")
    assert probe(path).mpp == pytest.approx((0.25, 0.25))
    with open_slide(path) as slide:
        assert (slide.info.reader, slide.info.vendor) == ("openslide", "zeiss")
        np.testing.assert_array_equal(slide.read(0, 0, 128, 96), PIXELS)


@pytest.mark.parametrize(("compression", "name"), [(1, "JPEG"), (4, "JPEG XR")])
def test_a_czi_whose_codec_the_library_lacks_is_refused_with_its_name(tmp_path, compression, name):
    with pytest.raises(UnsupportedSlide, match=f"{name} compression is not supported"):
        probe(czi(tmp_path / "a.czi", compression))


@pytest.mark.parametrize("reserved", [True, False])
def test_a_czi_that_was_not_copied_to_its_end_is_perhaps_still_being_copied(tmp_path, reserved):
    path = czi(tmp_path / "a.czi")
    data = path.read_bytes()
    for part in (600, len(data) // 2, len(data) - 700, len(data) - 1500):
        path.write_bytes(data[:part] + bytes(len(data) - part if reserved else 0))
        with pytest.raises(TruncatedSlide):
            probe(path)


def test_a_whole_czi_without_attachments_is_not_called_truncated(tmp_path):
    path = czi(tmp_path / "a.czi", attachments=False)
    with pytest.raises(UnsupportedSlide, match=r"CZI without attachments.*OpenSlide says: No magic string") as raised:
        probe(path)
    assert "copy" not in str(raised.value)


@pytest.mark.parametrize("reserved", [True, False])
@pytest.mark.parametrize("part", [100, 600, 37_000, -100, -700])
def test_a_czi_without_attachments_that_was_not_copied_to_its_end_is_truncated(tmp_path, part, reserved):
    path = czi(tmp_path / "a.czi", attachments=False)
    data = path.read_bytes()
    start = data[:part]
    path.write_bytes(start + bytes(len(data) - len(start) if reserved else 0))
    with pytest.raises(TruncatedSlide):
        probe(path)


def test_a_czi_whose_writer_did_not_finish_is_truncated_and_one_with_other_content_is_not_a_slide(tmp_path):
    with pytest.raises(TruncatedSlide, match="does not say where its directory of image tiles is"):
        probe(czi(tmp_path / "a.czi", directory=False))
    path = czi(tmp_path / "b.czi")
    path.write_bytes(path.read_bytes().replace(b"ZISRAWMETADATA", b"ZISRAWSOMETHIN"))
    with pytest.raises(NotASlide, match="its metadata is not at byte"):
        probe(path)


@pytest.mark.shared
def test_the_case_of_a_czi_without_attachments_is_not_called_truncated(shared):
    with pytest.raises(UnsupportedSlide, match="without attachments"):
        probe(shared / "cases" / "czi-no-attachments-truncated" / "czi_unc.czi")
