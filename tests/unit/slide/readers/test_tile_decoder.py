"""Codecs, planes and bit orders of TIFF: read exactly, or refused for the true reason."""

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from wsi_denoise.errors import NotRGB, UnreadableTile, UnsupportedSlide
from wsi_denoise.slide.reader import open_slide, probe
from wsi_denoise.slide.readers import streams
from wsi_denoise.slide.readers.tile_decoder import coded_fault, jpeg_pixels

TILE = 64


@pytest.fixture(scope="module")
def tissue(tissue_image) -> np.ndarray:
    return np.ascontiguousarray(tissue_image[100:270, 100:300])


def read(path) -> np.ndarray:
    with open_slide(path) as slide:
        pixels = slide.read(0, 0, slide.info.width, slide.info.height)
        y, x = slide.info.height // 3, slide.info.width // 3
        np.testing.assert_array_equal(slide.read(x, y, 71, 53), pixels[y : y + 53, x : x + 71])
        return pixels


LOSSLESS = {
    "webp": {"compression": "webp", "compressionargs": {"lossless": True}},
    "jpeg xl": {"compression": "jpegxl", "compressionargs": {"lossless": True}},
    "lerc": {"compression": "lerc"},
    "lerc and deflate": {"compression": "lerc", "compressionargs": {"compression": "deflate"}},
    "lzma": {"compression": "lzma"},
    "lzma and predictor": {"compression": "lzma", "predictor": True},
    "png": {"compression": "png"},
    "zstd and predictor": {"compression": "zstd", "predictor": True},
    "packbits": {"compression": "packbits"},
    "jpeg 2000": {"compression": "jpeg2000"},
    "33003": {"compression": 33003},
    "33004": {"compression": 33004},
}


@pytest.mark.parametrize("layout", [{"tile": (TILE, TILE)}, {"rowsperstrip": 32}], ids=["tiles", "strips"])
@pytest.mark.parametrize("codec", LOSSLESS)
@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_lossless_codecs_are_read_exactly(tmp_path, tissue, codec, layout, name):
    tifffile.imwrite(tmp_path / name, tissue, photometric="rgb", **LOSSLESS[codec], **layout)
    np.testing.assert_array_equal(read(tmp_path / name), tissue)
    assert probe(tmp_path / name).compression


@pytest.mark.parametrize("codec", ["webp", "jpegxl", "jpegxr"])
def test_lossy_codecs_are_read_as_close_as_they_are_stored(tmp_path, tissue, codec):
    level = {"webp": 90, "jpegxl": 90, "jpegxr": 90}[codec]
    tifffile.imwrite(
        tmp_path / "a.tif", tissue, photometric="rgb", tile=(TILE, TILE), compression=codec,
        compressionargs={"level": level},
    )  # fmt: skip
    assert np.abs(read(tmp_path / "a.tif").astype(int) - tissue).mean() < 6


@pytest.mark.parametrize("codec", ["webp", "jpegxl", "jpegxr", "png", "lerc", "lzma"])
@pytest.mark.parametrize("damage", ["cut", "zeros", "other size"])
def test_damaged_tiles_of_any_codec_are_named(tmp_path, tissue, codec, damage):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, tissue, photometric="rgb", tile=(TILE, TILE), compression=codec)
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[1], file.pages[0].databytecounts[1]
    with path.open("r+b") as file:
        if damage == "other size":
            encode = getattr(imagecodecs, f"{codec}_encode")
            data = encode(np.zeros((8, 8, 3), np.uint8))
            file.seek(offset)
            file.write(data[:count].ljust(count, b"\0"))
        else:
            file.seek(offset + (count // 2 if damage == "cut" else 0))
            file.write(bytes(count - count // 2 if damage == "cut" else count))
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 8, 8).shape, (8, 8, 3))
        with pytest.raises(UnreadableTile, match="x 64, y 0"):
            slide.read(0, 0, 2 * TILE, TILE)


ENCODERS = {
    "jpeg": imagecodecs.jpeg8_encode,
    "jpeg2000": imagecodecs.jpeg2k_encode,
    "png": imagecodecs.png_encode,
    "webp": lambda pixels: imagecodecs.webp_encode(pixels, lossless=True),
    "jpeg xl": imagecodecs.jpegxl_encode,
    "jpeg xr": imagecodecs.jpegxr_encode,
    "lerc": imagecodecs.lerc_encode,
}


@pytest.mark.parametrize("size", [(256, 256), (300, 200), (190, 97)])
@pytest.mark.parametrize("codec", ENCODERS)
def test_the_size_that_a_tile_declares_is_checked_before_it_is_decoded(codec, size):
    pixels = np.kron(np.random.default_rng(0).integers(0, 255, (100, 100, 3)), np.ones((4, 4, 1)))
    data = ENCODERS[codec](pixels[: size[1], : size[0]].astype(np.uint8))
    assert streams.declared_size(data, codec) == size
    assert coded_fault(data, codec, size) == ""
    assert "declares" in coded_fault(data, codec, (8, 8))


PLANAR = {
    "strips, raw": {},
    "strips, raw, several": {"rowsperstrip": 7},
    "strips, lzw": {"rowsperstrip": 10, "compression": "lzw", "predictor": True},
    "tiles, deflate": {"tile": (TILE, TILE), "compression": "deflate"},
    "tiles, raw": {"tile": (TILE, TILE)},
    "tiles, jpeg 2000": {"tile": (TILE, TILE), "compression": "jpeg2000"},
}


@pytest.mark.parametrize("layout", PLANAR)
@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_planes_stored_apart_are_read_exactly(tmp_path, tissue, layout, name):
    planes = np.ascontiguousarray(np.moveaxis(tissue, -1, 0))
    tifffile.imwrite(tmp_path / name, planes, photometric="rgb", planarconfig="separate", **PLANAR[layout])
    np.testing.assert_array_equal(read(tmp_path / name), tissue)
    probe(tmp_path / name)


def test_planes_of_jpeg_are_read(tmp_path, tissue):
    planes = np.ascontiguousarray(np.moveaxis(tissue, -1, 0))
    tifffile.imwrite(
        tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", tile=(TILE, TILE), compression="jpeg"
    )
    assert np.abs(read(tmp_path / "a.tif").astype(int) - tissue).mean() < 3


BIT_ORDERS = {
    "strips, raw": {},
    "strips, raw, several": {"rowsperstrip": 7},
    "tiles, raw": {"tile": (TILE, TILE)},
    "tiles, deflate and predictor": {"tile": (TILE, TILE), "compression": "deflate", "predictor": True},
    "planes": {"planarconfig": "separate"},
}


def test_bits_stored_lowest_first_are_reversed(tmp_path, tissue):
    for name, layout in BIT_ORDERS.items():
        path = tmp_path / "a.tif"
        stored = np.ascontiguousarray(np.moveaxis(tissue, -1, 0)) if name == "planes" else tissue
        tifffile.imwrite(path, stored, photometric="rgb", extratags=[(264, 3, 1, 2, True)], **layout)
        # tifffile writes no FillOrder: another tag takes its place.
        path.write_bytes(
            path.read_bytes().replace(
                b"\x08\x01\x03\x00\x01\x00\x00\x00\x02", b"\x0a\x01\x03\x00\x01\x00\x00\x00\x02", 1
            )
        )
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
            assert page.fillorder == 2
        data = bytearray(path.read_bytes())
        for offset, count in places:
            data[offset : offset + count] = imagecodecs.bitorder_encode(bytes(data[offset : offset + count]))
        path.write_bytes(data)
        np.testing.assert_array_equal(read(path), tissue, err_msg=name)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((80, 80, 3), np.int8), "signed integers, 8 bits per sample"),
        (np.zeros((80, 80, 3), np.int16), "signed integers, 16 bits per sample"),
        (np.zeros((80, 80, 3), np.float32), "floating point, 32 bits per sample"),
        (np.zeros((80, 80, 3), np.uint16), "RGB: 16 bits per sample"),
    ],
)
def test_samples_that_are_no_8_bit_unsigned_integers_are_named(tmp_path, pixels, words):
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    with pytest.raises(NotRGB, match=words):
        open_slide(tmp_path / "a.tif")


@pytest.mark.parametrize(("pages", "words"), [(3, "uncertain"), (5, "multiplex or fluorescence")])
@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_grey_pages_are_refused_for_the_true_reason(tmp_path, pages, words, name):
    tifffile.imwrite(tmp_path / name, np.zeros((pages, 80, 80), np.uint8), photometric="minisblack")
    with pytest.raises(NotRGB, match=f"{pages} images of one grey channel each.*{words}"):
        open_slide(tmp_path / name)


def test_luma_and_chroma_stored_apart_are_refused(tmp_path, tissue):
    path = tmp_path / "a.tif"
    planes = np.ascontiguousarray(np.moveaxis(tissue, -1, 0))
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", compression="deflate")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["PhotometricInterpretation"].overwrite(6)
    with pytest.raises(UnsupportedSlide, match="luma and chroma"):
        open_slide(path)


def without_end(path, tissue, **options):
    """Write a TIFF of JPEG tiles, cut the end marker off each, and return the pixels with it."""
    tifffile.imwrite(path, tissue, photometric="rgb", tile=(TILE, TILE), compression="jpeg", **options)
    whole = tifffile.imread(path)
    with tifffile.TiffFile(path, mode="r+b") as file:
        page = file.pages[0]
        counts = [count - 2 for count in page.databytecounts]
        for offset, count in zip(page.dataoffsets, counts, strict=True):
            file.filehandle.seek(offset + count)
            assert file.filehandle.read(2) == b"\xff\xd9"
        page.tags["TileByteCounts"].overwrite(counts)
    return whole


def test_jpeg_tiles_without_end_marker_are_read_with_a_note_where_all_pixels_are_there(tmp_path, tissue):
    whole = without_end(tmp_path / "a.tif", tissue)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), whole)
    with open_slide(tmp_path / "a.tif") as slide:
        assert any("without end marker" in note for note in slide.info.notes)


def test_every_cut_through_a_jpeg_is_found(tissue):
    """A scan that lacks one byte is incomplete, whatever follows it."""
    whole = imagecodecs.jpeg8_encode(np.ascontiguousarray(tissue[:32, :32]), level=80)
    expected = imagecodecs.jpeg8_decode(whole)
    header = streams.jpeg_header(whole)
    end = len(whole) - 2
    np.testing.assert_array_equal(jpeg_pixels(whole[:end], None, "YCBCR", "RGB"), expected)
    for filling in (b"", b"\0" * 40, b"\xff" * 40):
        for cut in range(header.scan, end - 1):
            if whole[cut - 1] == 0xFF:
                continue
            try:
                pixels = jpeg_pixels(whole[:cut] + filling, None, "YCBCR", "RGB")
            except Exception:  # noqa: BLE001 - what is refused is right
                continue
            # The last byte can hold nothing but padding.
            np.testing.assert_array_equal(pixels, expected, err_msg=f"{cut} of {end}, filled with {filling[:1]!r}")


def test_a_progressive_jpeg_without_end_marker_is_refused_with_its_name(tmp_path, tissue):
    from io import BytesIO  # noqa: PLC0415

    made = BytesIO()
    Image.fromarray(tissue[:TILE, :TILE]).save(made, "JPEG", progressive=True)
    assert "end marker of its progressive JPEG" in coded_fault(made.getvalue()[:-2], "jpeg", (TILE, TILE))


CASES = {
    "fillorder2-garbage/fillorder2.tif": 0,
    "jpeg-no-eoi/jpeg_noEOI.tif": 2,
    "codecs-decodable-refused/codec_jpegxl.tif": 0,
    "codecs-decodable-refused/codec_lerc.tif": 0,
    "codecs-decodable-refused/codec_webp.tif": 0,
    "codecs-decodable-refused/raw2ometiff_33003.ome.tif": 0,
    "mpp-lost/planar_ome.ome.tif": 0,
}


@pytest.mark.parametrize("name", CASES)
def test_cases_seen_in_use(shared, name):
    if not (shared / "cases").is_dir():
        pytest.skip(f"the cases are not at {shared}")
    with Image.open(shared / "cases" / "expected_pixels.png") as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.abs(read(shared / "cases" / name).astype(int) - expected).mean() <= CASES[name]


def test_case_of_signed_samples(shared):
    if not (shared / "cases").is_dir():
        pytest.skip(f"the cases are not at {shared}")
    with pytest.raises(NotRGB, match="signed"):
        open_slide(shared / "cases" / "int8-false-reason" / "int8.tif")
