"""Why scanners' formats are refused: the words of the library that knows the format."""

import struct

import numpy as np
import pytest
import tifffile

from wsi_denoise.errors import IncompleteSlide, UnsupportedSlide
from wsi_denoise.slide.reader import open_slide

JOINTS = (
    '<TileJointInfo FlagJoined="1" Confidence="99" Direction="{0}" Tile1="1" Tile2="2" OverlapX="0" OverlapY="0"/>'
    '<TileJointInfo FlagJoined="1" Confidence="99" Direction="UP" Tile1="1" Tile2="4" OverlapX="0" OverlapY="0"/>'
    '<TileJointInfo FlagJoined="1" Confidence="99" Direction="UP" Tile1="2" Tile2="3" OverlapX="0" OverlapY="0"/>'
    '<TileJointInfo FlagJoined="1" Confidence="99" Direction="{0}" Tile1="4" Tile2="3" OverlapX="0" OverlapY="0"/>'
)


def bif(path, direction: str):
    """Write a Ventana BIF of 2 x 2 tiles behind its label."""
    scan = '<iScan Magnification="20" ScanRes="0.5" UnitNumber="1" ScanDate="1/2/2024" ZLayers="1"/>'
    area = '<AoiInfo XIMAGESIZE="64" YIMAGESIZE="64" NumRows="2" NumCols="2" Pos-X="0" Pos-Y="0"/>'
    info = '<ImageInfo AOIScanned="1" AOIIndex="0" NumRows="2" NumCols="2" Width="64" Height="64" Pos-X="0" Pos-Y="0">'
    joined = f"<SlideStitchInfo>{info}{JOINTS.format(direction)}</ImageInfo></SlideStitchInfo>"
    origin = '<AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin>'
    tables = f'<EncodeInfo Ver="2"><SlideInfo>{scan}{area}</SlideInfo>{joined}{origin}</EncodeInfo>'
    pixels = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for shown, text, xml, tiling in (
            (pixels[:40, :30], "Label_Image", f"<Metadata>{scan}</Metadata>", {}),
            (pixels, "level=0 mag=20 quality=95", tables, {"tile": (64, 64), "compression": "jpeg"}),
        ):
            raw = xml.encode()
            tiff.write(
                shown, photometric="rgb", description=text, metadata=None, extratags=[(700, 1, len(raw), raw, True)],
                **tiling,
            )  # fmt: skip
    return path


def test_a_bif_whose_tiles_are_joined_otherwise_is_refused_in_openslides_words(tmp_path):
    with open_slide(bif(tmp_path / "right.bif", "RIGHT")) as slide:
        assert (slide.info.vendor, slide.info.width) == ("ventana", 128)
    with pytest.raises(UnsupportedSlide) as raised:
        open_slide(bif(tmp_path / "left.bif", "LEFT"))
    assert raised.value.detail == 'it is a Ventana BIF, and OpenSlide says: Bad direction attribute "LEFT"'


@pytest.mark.shared
def test_the_case_of_a_bif_of_direction_left_has_the_true_reason(shared):
    with pytest.raises(UnsupportedSlide, match='OpenSlide says: Bad direction attribute "LEFT"'):
        open_slide(shared / "cases" / "bif-left-false-reason" / "bif_left.bif")


@pytest.mark.shared
def test_an_scn_with_unlike_regions_is_refused_in_openslides_words(shared, tmp_path):
    data = (shared / "data" / "vendor-made" / "leica2.scn").read_bytes()
    at = data.rindex(b"<objective>20")
    path = tmp_path / "a.scn"
    path.write_bytes(data[:at] + b"<objective>40" + data[at + 13 :])
    with pytest.raises(UnsupportedSlide, match=r"Leica SCN.*Slides with dissimilar main images are not supported"):
        open_slide(path)


@pytest.mark.shared
def test_an_ndpi_without_the_middle_focal_plane_is_not_called_damaged(shared, tmp_path):
    path = tmp_path / "a.ndpi"
    path.write_bytes((shared / "data" / "vendor-made" / "ndpi_z.ndpi").read_bytes())
    with tifffile.TiffFile(path) as tiff:
        planes = [page.tags[65424] for page in tiff.pages if page.tags[65424].value == 0]
    with path.open("r+b") as file:
        for plane in planes:
            file.seek(plane.valueoffset)
            file.write(struct.pack("<i", 777))
    with pytest.raises(UnsupportedSlide, match=r"without the focal plane 0.*OpenSlide says") as raised:
        open_slide(path)
    assert "damaged" not in str(raised.value)


@pytest.mark.shared
def test_a_mirax_slide_of_another_kind_is_not_called_incomplete(shared, tmp_path):
    source = shared / "data" / "vendor-made" / "mirax1"
    folder = tmp_path / "a"
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (tmp_path / "a.mrxs").write_bytes(source.with_suffix(".mrxs").read_bytes())
    table = folder / "Slidedat.ini"
    text = table.read_text("utf-8-sig")
    assert "IMAGE_FORMAT" in text
    table.write_text("".join(line.replace("JPEG", "WEBP").replace("JPG", "WEBP") if "IMAGE_FORMAT" in line else line
                             for line in text.splitlines(keepends=True)))  # fmt: skip
    with pytest.raises(UnsupportedSlide, match="Unrecognized image format"):
        open_slide(tmp_path / "a.mrxs")
    (folder / "Index.dat").unlink()
    with pytest.raises(IncompleteSlide):
        open_slide(tmp_path / "a.mrxs")
