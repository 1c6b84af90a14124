"""Colour models: tags that contradict their tiles are decoded as the tiles state, or refused, and never ignored."""

import os
import shutil

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from wsi_denoise.errors import ContradictoryColours, DecodersDisagree, SlideChanged, UnreadableTile
from wsi_denoise.slide.reader import open_slide
from wsi_denoise.slide.readers import tiff_colours, tiff_opening, tiff_reader
from wsi_denoise.slide.readers.colours import Sample, Space, settle, statement_of
from wsi_denoise.slide.readers.streams import jpeg_header

TILE = 128
SIDE = 2 * TILE
JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


def adobe(transform: int) -> bytes:
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])


def as_ycbcr(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert("YCbCr"))


def jpeg(
    pixels: np.ndarray, stored: Space, markers: bytes = b"", ids: bytes = b"\1\2\3", sampling: str = "444"
) -> bytes:
    """Encode RGB pixels, stored as the given model, with exactly these markers and component identifiers."""
    if sampling != "444":
        assert stored is Space.YCBCR
        data = imagecodecs.jpeg8_encode(pixels, level=95, subsampling=sampling)
    else:
        samples = as_ycbcr(pixels) if stored is Space.YCBCR else pixels
        data = imagecodecs.jpeg8_encode(samples, level=95, colorspace="RGB", outcolorspace="RGB", subsampling="444")
    found, at = bytearray(b"\xff\xd8" + markers), 2
    names = bytes(component[0] for component in jpeg_header(data).components)
    table = dict(zip(names, ids, strict=True))
    while True:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        segment = bytearray(data[at : at + 2 + length])
        if marker == 0xC0:
            for place in range(10, len(segment), 3):
                segment[place] = table[segment[place]]
        if marker == 0xDA:
            for place in range(5, 5 + 2 * segment[4], 2):
                segment[place] = table[segment[place]]
        if marker not in (0xE0, 0xEE):
            found += segment
        at += 2 + length
        if marker == 0xDA:
            return bytes(found) + data[at:]


def tiff(path, pixels, encode, *, photometric, compression=7, description=None, tile=TILE):
    """Write a TIFF of tiles that `encode` returns for each piece of the pixels and its number."""
    size = pixels.shape[0]
    pieces = [pixels[y : y + tile, x : x + tile] for y in range(0, size, tile) for x in range(0, size, tile)]
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            iter([encode(piece, number) for number, piece in enumerate(pieces)]),
            shape=pixels.shape,
            dtype=np.uint8,
            tile=(tile, tile),
            photometric="rgb",
            compression=compression,
            description=description,
            metadata=None,
        )
    set_photometric(path, photometric)
    return path


def set_photometric(path, number):
    with tifffile.TiffFile(path, mode="r+b") as file:
        for page in file.pages:
            page.tags["PhotometricInterpretation"].overwrite(number)


@pytest.fixture(scope="module")
def tissue(tissue_image) -> np.ndarray:
    return np.ascontiguousarray(tissue_image[200 : 200 + SIDE, 200 : 200 + SIDE])


def error_of(path, pixels) -> tuple[float, tuple[str, ...]]:
    with open_slide(path) as slide:
        read = slide.read(0, 0, slide.info.width, slide.info.height)
        return float(np.abs(read.astype(int) - pixels).mean()), slide.info.notes


CONSISTENT = {
    "JFIF": (Space.YCBCR, JFIF, b"\1\2\3", 6, "444"),
    "JFIF, 4:2:0": (Space.YCBCR, JFIF, b"\1\2\3", 6, "420"),
    "Adobe YCbCr": (Space.YCBCR, adobe(1), b"\1\2\3", 6, "444"),
    "no marker, YCbCr": (Space.YCBCR, b"", b"\1\2\3", 6, "444"),
    "no marker, YCbCr, 4:2:0": (Space.YCBCR, b"", b"\1\2\3", 6, "420"),
    "no marker, YCbCr, numbered from 0": (Space.YCBCR, b"", b"\0\1\2", 6, "444"),
    "Adobe RGB": (Space.RGB, adobe(0), b"\1\2\3", 2, "444"),
    "Adobe RGB, named": (Space.RGB, adobe(0), b"RGB", 2, "444"),
    "no marker, RGB as libtiff writes it": (Space.RGB, b"", b"\0\1\2", 2, "444"),
    "no marker, RGB, numbered from 1": (Space.RGB, b"", b"\1\2\3", 2, "444"),
    "named": (Space.RGB, b"", b"RGB", 2, "444"),
}


@pytest.mark.parametrize("name", CONSISTENT)
def test_consistent_jpeg_is_read_right_and_without_a_note(tmp_path, tissue, name):
    stored, markers, ids, tag, sampling = CONSISTENT[name]
    path = tiff(
        tmp_path / "a.tif", tissue, lambda piece, _: jpeg(piece, stored, markers, ids, sampling), photometric=tag
    )
    error, notes = error_of(path, tissue)
    assert error < 3
    assert not any("colour" in note for note in notes)


CONTRADICTORY = {
    "JFIF": (Space.YCBCR, JFIF, b"\1\2\3", 2, "444"),
    "JFIF, 4:2:0": (Space.YCBCR, JFIF, b"\1\2\3", 2, "420"),
    "Adobe YCbCr": (Space.YCBCR, adobe(1), b"\1\2\3", 2, "444"),
    "Adobe RGB": (Space.RGB, adobe(0), b"\1\2\3", 6, "444"),
    "Adobe RGB, named": (Space.RGB, adobe(0), b"RGB", 6, "444"),
    "named": (Space.RGB, b"", b"RGB", 6, "444"),
}


@pytest.mark.parametrize("suffix", [".tif", ".svs", ".ome.tif"])
@pytest.mark.parametrize("name", CONTRADICTORY)
def test_a_contradiction_is_decoded_as_the_tiles_state_and_noted(tmp_path, tissue, name, suffix):
    stored, markers, ids, tag, sampling = CONTRADICTORY[name]
    description = {".svs": "Aperio Image Library v1\r\n|MPP = 0.5", ".ome.tif": '<?xml version="1.0"?><OME/>'}
    path = tiff(
        tmp_path / f"a{suffix}",
        tissue,
        lambda piece, _: jpeg(piece, stored, markers, ids, sampling),
        photometric=tag,
        description=description.get(suffix),
    )
    error, notes = error_of(path, tissue)
    assert error < 3
    assert any("contradictory colour model" in note and str(stored) in note for note in notes)


UNCERTAIN = {
    "JFIF around RGB": (Space.RGB, JFIF, b"\1\2\3", 2, "fit RGB only"),
    "Adobe YCbCr around RGB": (Space.RGB, adobe(1), b"\1\2\3", 2, "fit RGB only"),
    "Adobe RGB around YCbCr": (Space.YCBCR, adobe(0), b"\1\2\3", 6, "fit YCbCr only"),
    "nothing stated, YCbCr under RGB": (Space.YCBCR, b"", b"\1\2\3", 2, "fit YCbCr only"),
    "nothing stated, RGB under YCbCr": (Space.RGB, b"", b"\1\2\3", 6, "fit RGB only"),
    "two markers": (Space.YCBCR, JFIF + adobe(0), b"\1\2\3", 6, "contradict themselves"),
    "marker and names": (Space.YCBCR, adobe(1), b"RGB", 6, "contradict themselves"),
}


@pytest.mark.parametrize("name", UNCERTAIN)
def test_uncertain_colours_are_refused_with_a_code_of_their_own(tmp_path, tissue, name):
    stored, markers, ids, tag, words = UNCERTAIN[name]
    path = tiff(tmp_path / "a.tif", tissue, lambda piece, _: jpeg(piece, stored, markers, ids), photometric=tag)
    with pytest.raises(ContradictoryColours, match=words) as caught:
        open_slide(path)
    assert caught.value.code == "contradictory_colours"


def test_subsampled_tiles_that_state_nothing_are_no_rgb(tmp_path, tissue):
    path = tiff(tmp_path / "a.tif", tissue, lambda piece, _: jpeg(piece, Space.YCBCR, sampling="420"), photometric=2)
    with pytest.raises(ContradictoryColours):
        open_slide(path)


def test_each_tile_is_decoded_as_it_states(tmp_path, tissue):
    def encode(piece, number):
        return jpeg(piece, Space.YCBCR, JFIF) if number == 2 else jpeg(piece, Space.RGB, adobe(0))

    error, notes = error_of(tiff(tmp_path / "a.tif", tissue, encode, photometric=2), tissue)
    assert error < 3
    assert any("1 of 4 sampled tiles" in note for note in notes)


def test_tiles_that_state_nothing_beside_a_contradiction_are_refused(tmp_path, tissue):
    def encode(piece, number):
        return jpeg(piece, Space.YCBCR, JFIF) if number == 2 else jpeg(piece, Space.RGB)

    with pytest.raises(ContradictoryColours, match="other tiles state nothing"):
        open_slide(tiff(tmp_path / "a.tif", tissue, encode, photometric=2))


def test_a_tile_that_was_not_copied_yet_is_no_statement(tmp_path, tissue):
    path = tiff(tmp_path / "a.tif", tissue, lambda piece, _: jpeg(piece, Space.YCBCR, JFIF), photometric=2)
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[3], file.pages[0].databytecounts[3]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(count))
    with open_slide(path) as slide:
        assert np.abs(slide.read(0, 0, SIDE, TILE).astype(int) - tissue[:TILE]).mean() < 3
        with pytest.raises(UnreadableTile, match="all zeros"):
            slide.read(TILE, TILE, 1, 1)


def test_a_contradiction_that_sampling_missed_is_refused_when_its_tile_is_read(tmp_path, tissue, monkeypatch):
    monkeypatch.setattr(tiff_colours, "SAMPLED", 2)  # first and last

    def encode(piece, number):
        return jpeg(piece, Space.YCBCR, JFIF) if number == 2 else jpeg(piece, Space.RGB, adobe(0))

    monkeypatch.setattr(tiff_opening, "agree", lambda *_: True)
    with open_slide(tiff(tmp_path / "a.tif", tissue, encode, photometric=2)) as slide:
        assert np.abs(slide.read(0, 0, SIDE, TILE).astype(int) - tissue[:TILE]).mean() < 3
        with pytest.raises(ContradictoryColours, match="tile says YCbCr"):
            slide.read(0, TILE, 1, 1)


def test_a_smaller_level_with_uncertain_colours_is_not_used(tmp_path, tissue):
    path = tmp_path / "a.tif"
    half = np.ascontiguousarray(tissue[::2, ::2])
    with tifffile.TiffWriter(path) as writer:
        for pixels, encoded, kind in ((tissue, None, 0), (half, jpeg(half, Space.YCBCR), 1)):
            writer.write(
                pixels if encoded is None else iter([encoded]),
                shape=pixels.shape,
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                subfiletype=kind,
                compression=None if encoded is None else 7,
                metadata=None,
            )
    set_photometric(path, 2)
    with open_slide(path) as slide:
        assert slide.info.levels == ((SIDE, SIDE), (TILE, TILE))
        np.testing.assert_array_equal(slide.read(0, 0, SIDE, SIDE), tissue)
        assert not slide.level_is_true(1)
        assert np.abs(slide.thumbnail(40).mean((0, 1)) - tissue.mean((0, 1))).max() < 2


def test_colours_that_openslide_would_get_wrong_are_refused_where_nothing_else_reads_the_file(tmp_path, tissue):
    """A tile left out is filled in by OpenSlide, which follows the tag."""
    path = tiff(tmp_path / "a.tif", tissue, lambda piece, _: jpeg(piece, Space.YCBCR, JFIF), photometric=2)
    with tifffile.TiffFile(path, mode="r+b") as file:
        counts = file.pages[0].databytecounts
        file.pages[0].tags["TileByteCounts"].overwrite((0, *counts[1:]))
    with pytest.raises(ContradictoryColours, match="OpenSlide"):
        open_slide(path)


def test_two_decoders_that_disagree_are_refused(tmp_path, tissue, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, tissue, photometric="rgb", tile=(TILE, TILE), compression="deflate")
    decode = tiff_reader.TileDecoder.decode
    monkeypatch.setattr(tiff_reader.TileDecoder, "decode", lambda *arguments: np.flip(decode(*arguments), axis=-1))
    with pytest.raises(DecodersDisagree, match="grey levels"):
        open_slide(path)


def jpeg2000(pixels, stored, *, transform=False, boxed=None):
    samples = as_ycbcr(pixels) if stored is Space.YCBCR else pixels
    data = imagecodecs.jpeg2k_encode(samples, level=0, codecformat="jp2" if boxed else "j2k", mct=transform)
    if boxed:
        at = data.find(b"colr") + 7
        data = data[:at] + boxed.to_bytes(4, "big") + data[at + 4 :]
    return data


JPEG2000 = {
    "34712, RGB, transform": (34712, 2, Space.RGB, True, None, False),
    "34712, RGB, no transform": (34712, 2, Space.RGB, False, None, False),
    "34712, YCbCr": (34712, 6, Space.YCBCR, False, None, False),
    "34712, sYCC box under RGB": (34712, 2, Space.YCBCR, False, 18, True),
    "34712, transform under YCbCr": (34712, 6, Space.RGB, True, None, True),
    "33003, Bio-Formats": (33003, 2, Space.RGB, True, None, False),
    "33003, Bio-Formats, no transform": (33003, 2, Space.RGB, False, None, False),
    "33004, Bio-Formats": (33004, 2, Space.RGB, True, None, False),
    "33005, Aperio": (33005, 2, Space.RGB, True, None, False),
}


@pytest.mark.parametrize("name", JPEG2000)
def test_jpeg_2000_is_read_right_and_noted_where_it_is_contradictory(tmp_path, tissue, name):
    compression, tag, stored, transform, boxed, contradictory = JPEG2000[name]
    path = tiff(
        tmp_path / "a.ome.tif",
        tissue,
        lambda piece, _: jpeg2000(piece, stored, transform=transform, boxed=boxed),
        photometric=tag,
        compression=compression,
        description='<?xml version="1.0"?><OME/>',
    )
    error, notes = error_of(path, tissue)
    assert error < 1
    assert any("contradictory" in note for note in notes) == contradictory


@pytest.mark.parametrize(
    ("stored", "transform", "expected"),
    [(Space.YCBCR, False, ""), (Space.RGB, True, "note"), (Space.RGB, False, "error")],
)
def test_aperios_33003_is_ycbcr_unless_its_tiles_say_otherwise(tmp_path, tissue, stored, transform, expected):
    path = tiff(
        tmp_path / "a.svs",
        tissue,
        lambda piece, _: jpeg2000(piece, stored, transform=transform),
        photometric=2,
        compression=33003,
        description="Aperio Image Library v10\r\n|MPP = 0.5",
    )
    if expected == "error":
        with pytest.raises(ContradictoryColours, match="fit RGB only"):
            open_slide(path)
        return
    error, notes = error_of(path, tissue)
    assert error < 1
    assert any("contradictory" in note for note in notes) == bool(expected)


@pytest.mark.parametrize("compression", [33005, 34712])
def test_ycbcr_in_jpeg_2000_that_nothing_states_is_refused(tmp_path, tissue, compression):
    path = tiff(
        tmp_path / "a.tif",
        tissue,
        lambda piece, _: jpeg2000(piece, Space.YCBCR),
        photometric=2,
        compression=compression,
    )
    with pytest.raises(ContradictoryColours, match="fit YCbCr only"):
        open_slide(path)


JP2 = {
    "transform": (Space.RGB, True, 16, ""),
    "sRGB box": (Space.RGB, False, 16, ""),
    "sYCC box": (Space.YCBCR, False, 18, ""),
    "bare": (Space.RGB, False, None, ""),
    "YCbCr in an sRGB box": (Space.YCBCR, False, 16, "fit YCbCr only"),
    "YCbCr, bare": (Space.YCBCR, False, None, "fit YCbCr only"),
    "box and transform": (Space.RGB, True, 18, "component transform"),
}


@pytest.mark.parametrize("name", JP2)
def test_colours_of_jpeg_2000_files_are_certain_or_refused(tmp_path, tissue, name):
    stored, transform, boxed, words = JP2[name]
    path = tmp_path / ("a.jp2" if boxed else "a.j2k")
    path.write_bytes(jpeg2000(tissue, stored, transform=transform, boxed=boxed))
    if words:
        with pytest.raises(ContradictoryColours, match=words):
            open_slide(path)
    else:
        assert error_of(path, tissue)[0] < 2


def test_markers_of_shared_tables_count_where_a_tile_has_none(tissue):
    data = jpeg(tissue, Space.RGB)
    assert statement_of(data, "jpeg").space is None
    assert statement_of(data, "jpeg", b"\xff\xd8" + adobe(0) + b"\xff\xd9").space is Space.RGB
    assert statement_of(jpeg(tissue, Space.YCBCR, JFIF), "jpeg", b"\xff\xd8" + adobe(0)).space is Space.YCBCR


def test_a_transform_that_is_promised_and_missing_needs_pixels_that_fit(tissue):
    data = jpeg2000(tissue, Space.RGB)
    statement = statement_of(data, "jpeg2000")
    for stored, refused in ((tissue, False), (as_ycbcr(tissue), True), (None, True)):
        rule = settle(Space.RGB, [Sample(statement, stored)], tag_name="the tag", doubted=True)
        assert bool(rule.refusal) == refused


def test_a_file_replaced_while_two_decoders_are_compared_has_changed(tmp_path, tissue, monkeypatch):
    path, other = tmp_path / "a.tif", tmp_path / "b.tif"
    tifffile.imwrite(path, tissue, photometric="rgb", tile=(TILE, TILE))
    tifffile.imwrite(other, 255 - tissue, photometric="rgb", tile=(TILE, TILE))
    os.utime(other, (1, 1))
    read = tiff_reader.TiffSlide.read

    def replaced(slide, *region):
        pixels = read(slide, *region)
        shutil.copy2(other, path)
        return pixels

    monkeypatch.setattr(tiff_reader.TiffSlide, "read", replaced)
    with pytest.raises(SlideChanged):
        open_slide(path)
