"""Verification passes a right file and catches wrong ones; each wrong file is one that a real mistake would make."""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import ImageCms

from wsi_denoise.errors import SlideVanished, VerificationFailed
from wsi_denoise.slide import provenance
from wsi_denoise.slide.encoding import Encoding, Pixels, cut
from wsi_denoise.slide.geometry import TILE, level_sizes, tile_shape
from wsi_denoise.slide.halving import halve
from wsi_denoise.slide.pyramid import Header, Level, write_pyramid
from wsi_denoise.slide.verify import Expected, check_written, sha256, verify_file

ICC = bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
FACTS = {
    "fingerprint": "ab" * 32,
    "preset": "paper",
    "model_sha256": "cd" * 32,
    "settings": {"output.quality": 90},
    "region": None,
}
HEADER = Header(provenance.describe(FACTS), (0.5, 0.5), ICC)
JPEG, DEFLATE = Encoding("jpeg", 90), Encoding("deflate")
ALL_TILES = 1000


def levels_of(pixels: Pixels, encoding: Encoding) -> list[Level]:
    levels = []
    for size in level_sizes(pixels.shape[1], pixels.shape[0]):
        rows, columns = tile_shape(*size)
        tiles = [encoding.encode(cut(pixels, row, column)) for row in range(rows) for column in range(columns)]
        levels.append(Level(size, tiles))
        pixels = halve(pixels)
    return levels


def expected_of(pixels: Pixels, encoding: Encoding, header: Header = HEADER) -> Expected:
    height, width = pixels.shape[:2]
    quarter = TILE // 4
    reduced = halve(halve(pixels))
    return Expected(
        width,
        height,
        header.mpp,
        header.icc_profile,
        encoding.lossless,
        lambda row, column: encoding.encode(cut(pixels, row, column)),
        lambda row, column: reduced[row * quarter : (row + 1) * quarter, column * quarter : (column + 1) * quarter],
    )


@dataclass
class Case:
    """A small slide, what is expected of its file, and a way to write it with one thing changed."""

    path: Path
    pixels: Pixels
    encoding: Encoding
    levels: list[Level] = field(default_factory=list)

    def write(self, header: Header = HEADER, encoding: Encoding | None = None) -> None:
        write_pyramid(self.path, self.levels, encoding or self.encoding, header)

    def check(self, **changes: Any) -> str:
        return check_written(self.path, replace(expected_of(self.pixels, self.encoding), **changes), tiles=ALL_TILES)

    def refused(self, what: str, **changes: Any) -> None:
        with pytest.raises(VerificationFailed, match=what):
            self.check(**changes)


@pytest.fixture(params=["jpeg", "deflate"])
def case(request, tmp_path, tissue_image) -> Case:
    encoding = JPEG if request.param == "jpeg" else DEFLATE
    pixels = np.ascontiguousarray(tissue_image[:700, :813])
    made = Case(tmp_path / "x.tiff", pixels, encoding)
    made.levels = levels_of(pixels, encoding)
    return made


def test_a_right_file_passes_and_its_sha256_is_given(case):
    case.write()
    assert case.check() == sha256(case.path)


@pytest.mark.parametrize("encoding", [JPEG, DEFLATE, Encoding("zstd"), Encoding("jpeg", 50, "4:2:0")])
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (97, 95), (256, 257), (511, 513)])
def test_right_files_of_odd_sizes_pass(size, encoding, tmp_path, tissue_image):
    pixels = np.ascontiguousarray(tissue_image[200 : 200 + size[1], 100 : 100 + size[0]])
    made = Case(tmp_path / "x.tiff", pixels, encoding, levels_of(pixels, encoding))
    made.write()
    made.check()


def test_a_corner_of_a_few_noisy_pixels_does_not_fail_a_right_file(tmp_path):
    pixels = np.full((258, 258, 3), 200, np.uint8)
    pixels[256:, 256:] = np.array([[(255, 0, 0), (0, 0, 255)], [(0, 255, 0), (255, 0, 255)]], np.uint8)
    encoding = Encoding("jpeg", 50, "4:2:0")
    made = Case(tmp_path / "x.tiff", pixels, encoding, levels_of(pixels, encoding))
    made.write()
    made.check()


def test_a_file_without_resolution_and_profile_passes_when_the_source_has_none(case):
    case.write(Header(HEADER.description))
    case.check(mpp=None, icc_profile=None)


def test_few_tiles_are_enough_for_a_right_file(case):
    case.write()
    expected = expected_of(case.pixels, case.encoding)
    for number in (1, 4, 5, 12):
        check_written(case.path, expected, tiles=number, seed=number)


def test_two_swapped_tiles(case):
    tiles = list(case.levels[0].tiles)
    tiles[1], tiles[2] = tiles[2], tiles[1]
    case.levels[0] = Level(case.levels[0].size, tiles)
    case.write()
    case.refused("row 0, column [12] is not the one that was encoded")


def test_tiles_that_were_swapped_before_they_were_written_down(case):
    """The spool itself is wrong: encoded bytes agree, pixels do not."""
    tiles = list(case.levels[0].tiles)
    tiles[1], tiles[2] = tiles[2], tiles[1]
    case.levels[0] = Level(case.levels[0].size, tiles)
    case.write()
    columns = tile_shape(*case.levels[0].size)[1]
    case.refused("reads the tile .* wrong", tile=lambda row, column: tiles[row * columns + column])


def test_a_flipped_byte_in_a_tile(case):
    case.write()
    with tifffile.TiffFile(case.path) as tiff:
        page = tiff.pages.first
        place = page.dataoffsets[5] + page.databytecounts[5] // 2
    content = bytearray(case.path.read_bytes())
    content[place] ^= 0xFF
    case.path.write_bytes(content)
    case.refused("row 1, column 1 is not the one that was encoded")


@pytest.mark.parametrize("mpp", [(0.25, 0.5), (0.5, 0.51), (5.0, 5.0)])
def test_a_wrong_resolution(case, mpp):
    case.write(Header(HEADER.description, mpp, ICC))
    case.refused("mpp")


def test_a_missing_resolution(case):
    case.write(Header(HEADER.description, None, ICC))
    case.refused("mpp of None")


def test_an_invented_resolution(case):
    case.write()
    case.refused("was invented", mpp=None)


def test_a_missing_profile(case):
    case.write(Header(HEADER.description, HEADER.mpp))
    case.refused("ICC")


def test_a_profile_of_another_slide(case):
    case.write(Header(HEADER.description, HEADER.mpp, ICC[:-1] + b"x"))
    case.refused("ICC")


def test_an_invented_profile(case):
    case.write()
    case.refused("ICC", icc_profile=None)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_file_that_was_cut_off(case, share):
    case.write()
    content = case.path.read_bytes()
    case.path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(VerificationFailed):
        case.check()


@pytest.mark.parametrize("level", [1, 2])
def test_a_missing_level(case, level):
    del case.levels[level]
    case.write()
    case.refused("levels")


def test_another_size(case):
    case.write()
    case.refused("levels", width=812)


def test_somebody_elses_description(case):
    case.write(Header("Aperio Image Library", HEADER.mpp, ICC))
    case.refused("provenance")


def test_a_smaller_level_that_does_not_decode(case):
    for number in (1, 2):
        tiles = [b"\xff\xd8 no image at all" for _ in case.levels[number].tiles]
        broken = Case(case.path, case.pixels, case.encoding, list(case.levels))
        broken.levels[number] = Level(case.levels[number].size, tiles)
        broken.write()
        with pytest.raises(VerificationFailed):
            broken.check()


def test_smaller_levels_of_another_slide(case):
    other = levels_of(np.ascontiguousarray(255 - case.pixels), case.encoding)
    for number in (1, 2):
        wrong = Case(case.path, case.pixels, case.encoding, list(case.levels))
        wrong.levels[number] = other[number]
        wrong.write()
        wrong.refused(f"level {number} is not the halved level 0")


def test_swapped_tiles_of_a_smaller_level(case):
    tiles = list(case.levels[1].tiles)
    tiles[0], tiles[1] = tiles[1], tiles[0]
    case.levels[1] = Level(case.levels[1].size, tiles)
    case.write()
    case.refused("level 1 is not the halved level 0")


@pytest.mark.parametrize("encoding", [JPEG, DEFLATE])
def test_all_levels_of_a_long_slide(encoding, tmp_path, tissue_image):
    """Eight levels: small ones are compared as a whole."""
    pixels = np.ascontiguousarray(np.tile(tissue_image[:65, :999], (1, 17, 1)))
    made = Case(tmp_path / "x.tiff", pixels, encoding, levels_of(pixels, encoding))
    assert len(made.levels) == 8
    made.write()
    made.check()
    for number in (3, 5, 7):
        wrong = Case(made.path, pixels, encoding, list(made.levels))
        wrong.levels[number] = levels_of(np.ascontiguousarray(255 - pixels), encoding)[number]
        wrong.write()
        wrong.refused(f"level {number} is not the halved level 0")


def test_rgb_jpeg_that_only_tifffile_reads_right(tmp_path, tissue_image):
    """The mistake that the whole verification was first written for."""
    pixels = np.ascontiguousarray(tissue_image[:300, :300])

    def encode(tile: Pixels) -> bytes:
        return bytes(imagecodecs.jpeg8_encode(tile, level=90, colorspace="RGB", outcolorspace="RGB"))

    path = tmp_path / "x.tiff"
    tiles = [encode(cut(pixels, row, column)) for row in range(2) for column in range(2)]
    half = [encode(cut(halve(pixels), 0, 0))]
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, (level, side) in enumerate(((tiles, 300), (half, 150))):
            tiff.write(
                iter(level),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                subfiletype=1 if number else 0,
                description=HEADER.description if not number else None,
                metadata=None,
                resolution=(2e4 if not number else 1e4,) * 2,
                resolutionunit="centimeter",
                iccprofile=ICC,
                compression="jpeg",
                photometric="rgb",
            )
    expected = replace(expected_of(pixels, JPEG), tile=lambda row, column: tiles[row * 2 + column])
    with pytest.raises(VerificationFailed, match=r"OpenSlide reads the tile .* wrong"):
        check_written(path, expected, tiles=ALL_TILES)


def test_red_and_blue_swapped(case):
    case.levels = levels_of(np.ascontiguousarray(case.pixels[..., ::-1]), case.encoding)
    case.write()
    tiles = list(case.levels[0].tiles)
    columns = tile_shape(*case.levels[0].size)[1]
    case.refused("reads the tile .* wrong", tile=lambda row, column: tiles[row * columns + column])


def test_a_shift_by_one_pixel_is_caught_where_nothing_is_lost(tmp_path, tissue_image):
    pixels = np.ascontiguousarray(tissue_image[:300, :300])
    made = Case(tmp_path / "x.tiff", np.roll(pixels, 1, axis=1), DEFLATE, levels_of(pixels, DEFLATE))
    made.write()
    tiles = list(made.levels[0].tiles)
    made.refused("wrong", tile=lambda row, column: tiles[row * 2 + column])


@dataclass(frozen=True)
class Stored:
    """What the store has of an output."""

    id: int = 7
    slide: str = "inbox/a.svs"
    fingerprint: str | None = FACTS["fingerprint"]
    output_sha256: str | None = None
    model_checksum: str | None = FACTS["model_sha256"]
    settings: dict[str, Any] = field(default_factory=lambda: FACTS["settings"])


@pytest.fixture
def published(tmp_path, tissue_image) -> Path:
    pixels = np.ascontiguousarray(tissue_image[:300, :300])
    write_pyramid(tmp_path / "a.tiff", levels_of(pixels, JPEG), JPEG, HEADER)
    return tmp_path / "a.tiff"


def failed(path: Path, stored: Stored | None, fingerprint: str = FACTS["fingerprint"]) -> set[str]:
    result = verify_file(path, stored, source_fingerprint=lambda _path: fingerprint)
    names = {name for name, holds, _ in result.checks if not holds}
    assert result.ok == (not names)
    assert all(text for _, _, text in result.checks)
    return names


def test_a_published_file_is_what_the_store_says(published):
    stored = Stored(output_sha256=sha256(published))
    assert failed(published, stored) == set()
    names = [name for name, _, _ in verify_file(published, stored, source_fingerprint=lambda _: "").checks]
    assert names == ["readable", "provenance", "job", "checksum", "model", "settings", "original"]


def test_each_difference_is_named(published):
    stored = Stored(output_sha256=sha256(published))
    assert failed(published, replace(stored, output_sha256="0" * 64)) == {"checksum"}
    assert failed(published, replace(stored, output_sha256=None)) == {"checksum"}
    assert failed(published, replace(stored, model_checksum="ef" * 32)) == {"model"}
    assert failed(published, replace(stored, settings={"output.quality": 80})) == {"settings"}
    assert failed(published, stored, "00" * 32) == {"original"}
    assert failed(published, replace(stored, fingerprint="00" * 32), "00" * 32) == {"original"}
    assert failed(published, None) == {"job"}


def test_a_changed_byte_is_found(published, tmp_path):
    stored = Stored(output_sha256=sha256(published))
    content = bytearray(published.read_bytes())
    content[len(content) // 2] ^= 1
    changed = tmp_path / "changed.tiff"
    changed.write_bytes(content)
    assert "checksum" in failed(changed, stored)


def test_a_renamed_copy_is_still_the_same(published, tmp_path):
    copy = shutil.copy(published, tmp_path / "copy.tiff")
    assert failed(copy, Stored(output_sha256=sha256(published))) == set()


def test_an_original_that_is_gone_is_said(published):
    def gone(path: Path) -> str:
        raise SlideVanished(str(path))

    result = verify_file(published, Stored(output_sha256=sha256(published)), source_fingerprint=gone)
    assert not result.ok
    assert [(name, "disappeared" in text) for name, holds, text in result.checks if not holds] == [("original", True)]


def test_somebody_elses_tiff_and_what_is_no_tiff(tmp_path, tissue_image):
    theirs = tmp_path / "theirs.tiff"
    tifffile.imwrite(theirs, tissue_image[:64, :64])
    assert failed(theirs, None) == {"provenance", "job"}
    assert failed(theirs, Stored()) == {"provenance"}
    for content in (b"", b"II*\0", b"nothing"):
        file = tmp_path / "file"
        file.write_bytes(content)
        assert failed(file, Stored()) == {"readable"}
    assert failed(tmp_path / "missing", Stored()) == {"readable"}
