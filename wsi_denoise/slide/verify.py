"""Verification of written TIFFs with tifffile and OpenSlide.

Before a file is published, sizes and levels are checked in both libraries, and the resolution in OpenSlide. A sample of
tiles is compared byte for byte with the encoded ones. Both libraries decode these tiles, and the result is compared
with the intended pixels; the smaller levels are compared too. ``wsi-denoise verify`` later compares a file with the job
database, and the original with its fingerprint.
"""

from __future__ import annotations

import errno
import hashlib
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from wsi_denoise.errors import VerificationFailed, WsiDenoiseError
from wsi_denoise.slide import provenance
from wsi_denoise.slide.geometry import TILE, level_sizes, tile_shape
from wsi_denoise.slide.halving import halve

if TYPE_CHECKING:
    from wsi_denoise.slide.encoding import Pixels

MPP_TOLERANCE = 1e-3
"""Relative tolerance, because resolution tags are rational numbers and the size of a level is rounded."""

LOSSY_TOLERANCE = 4.0
"""Tolerance in grey levels between the 4 x 4 means of a JPEG tile and the intended ones, averaged over the tile. JPEG
preserves means: quality 50 differs by 1.3; a wrong tile, channel or colour space differs by 15 and more (measured)."""

LEVEL_TOLERANCE = 10.0
"""The same for smaller levels, whose boxes have fewer means; noisy tissue at quality 50, 4:2:0 differs by 4.1."""

SAMPLED_LEVELS = 4
"""Up to this level a tile of level 0 covers a box of at least 16 px, and boxes are compared; then whole levels."""

LEAST_PIXELS = 256
"""Smaller tiles and boxes, at the slide's edge, are not compared after JPEG: a single pixel may differ by more."""

WHOLE_PIXELS = 40_000_000
"""Larger levels are not compared as a whole, to limit memory; only slides above 10 gigapixels have such."""

_DAMAGE = frozenset({None, errno.EINVAL, errno.EOVERFLOW})
"""Values of OSError.errno for damage: None if a library raised it, the others for an impossible offset."""


@dataclass(frozen=True)
class Expected:
    """Intended content of a file.

    Parameters
    ----------
    width, height : int
        Pixels at level 0.
    mpp : (float, float) or None
        Micrometres per pixel in x and y. None: the file must not state a resolution.
    icc_profile : bytes or None
        None: the file must not have a profile.
    tile : callable
        From (row, column) of a level-0 tile to its encoded bytes.
    reduced : callable
        From (row, column) of a level-0 tile to its pixels at level 2 before compression, (up to 64, up to 64, 3) uint8.
    """

    width: int
    height: int
    mpp: tuple[float, float] | None
    icc_profile: bytes | None
    lossless: bool
    tile: Callable[[int, int], bytes]
    reduced: Callable[[int, int], Pixels]


def check_written(path: Path, expected: Expected, *, tiles: int, seed: int | str = 0) -> str:
    """Check a new file, and return its SHA-256.

    Parameters
    ----------
    tiles : int
        Number of level-0 tiles to decode: the corners, and random ones. If there are fewer, all are decoded.

    Raises
    ------
    VerificationFailed
        Names the first difference.
    OSError
        If the file system fails, which does not mean that the file is damaged.
    """
    sizes = level_sizes(expected.width, expected.height)
    try:
        _check_tifffile(path, expected, sizes)
        places = list(_places(sizes[0], tiles, seed))
        _check_tiles(path, expected, places)
    except VerificationFailed:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in _DAMAGE:
            raise
        if not isinstance(error, WsiDenoiseError):
            # The libraries do not distinguish a lost share from a damaged file. Reading the whole file raises OSError
            # only for the former.
            sha256(path)
        raise VerificationFailed(f"the file cannot be read back ({type(error).__name__}: {error})") from error
    return sha256(path)


def _require(*, holds: bool, what: str) -> None:
    if not holds:
        raise VerificationFailed(what)


def _check_tifffile(path: Path, expected: Expected, sizes: tuple[tuple[int, int], ...]) -> None:
    import tifffile  # noqa: PLC0415 - the command line answers without it

    with tifffile.TiffFile(path) as tiff:
        found = tuple((page.shape[1], page.shape[0]) for page in tiff.pages)
        _require(holds=found == sizes, what=f"tifffile finds levels {found} instead of {sizes}")
        first = tiff.pages.first
        icc = first.tags.get(34675)
        _require(
            holds=(bytes(icc.value) if icc else None) == expected.icc_profile,
            what="the ICC profile is not the source's",
        )
        _require(holds=provenance.parse(first.description) is not None, what="the provenance cannot be read")
        for page in tiff.pages:
            _require(holds=all(offset > 0 for offset in page.dataoffsets), what="a tile was not written")
            end = max(offset + length for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True))
            _require(holds=end <= path.stat().st_size, what="a tile lies beyond the end of the file")


def _check_tiles(path: Path, expected: Expected, places: list[tuple[int, int]]) -> None:
    import openslide  # noqa: PLC0415
    import tifffile  # noqa: PLC0415

    sizes = level_sizes(expected.width, expected.height)
    columns = tile_shape(*sizes[0])[1]
    with openslide.OpenSlide(path) as slide, tifffile.TiffFile(path) as tiff, path.open("rb") as file:
        _require(holds=tuple(slide.level_dimensions) == sizes, what=f"OpenSlide finds levels {slide.level_dimensions}")
        _check_mpp(slide, expected.mpp)
        page: Any = tiff.pages.first
        for row, column in places:
            where = f"the tile in row {row}, column {column}"
            index = row * columns + column
            raw = _raw(page, file, index)
            _require(holds=raw == expected.tile(row, column), what=f"{where} is not the one that was encoded")
            width = min(TILE, expected.width - column * TILE)
            height = min(TILE, expected.height - row * TILE)
            decoded = _decoded(page, raw, index)[:height, :width]
            seen = np.asarray(slide.read_region((column * TILE, row * TILE), 0, (width, height)))[..., :3]
            tolerance = 0.0 if expected.lossless else LOSSY_TOLERANCE if width * height >= LEAST_PIXELS else math.inf
            for reader, pixels in (("tifffile", decoded), ("OpenSlide", seen)):
                meant = expected.reduced(row, column).astype(np.int16)
                error = float(np.abs(halve(halve(np.ascontiguousarray(pixels))).astype(np.int16) - meant).mean())
                _require(holds=error <= tolerance, what=f"{reader} reads {where} wrong, by {error:.1f} grey levels")
            _check_above(tiff.pages, file, (row, column), expected)
        for level in range(1, slide.level_count):
            slide.read_region((0, 0), level, (min(TILE, sizes[level][0]), min(TILE, sizes[level][1])))
        _check_small_levels(tiff.pages, expected)


def _raw(page: Any, file: IO[bytes], index: int) -> bytes:
    file.seek(page.dataoffsets[index])
    return file.read(page.databytecounts[index])


def _decoded(page: Any, raw: bytes, index: int) -> Pixels:
    return np.asarray(page.decode(raw, index)[0], np.uint8).reshape(TILE, TILE, 3)


def _check_above(pages: Any, file: IO[bytes], place: tuple[int, int], expected: Expected) -> None:
    """Compare the smaller levels of a level-0 tile with its intended pixels at level 2.

    At each level it covers a box of 256 / 2 ** level px within one tile, so that halving gives the intended pixels.
    """
    meant = expected.reduced(*place)
    for level in range(1, min(len(pages), SAMPLED_LEVELS + 1)):
        page, side = pages[level], TILE >> level
        y, x = place[0] * side, place[1] * side
        row, column = y // TILE, x // TILE
        index = row * tile_shape(page.shape[1], page.shape[0])[1] + column
        tile = _decoded(page, _raw(page, file, index), index)
        box = tile[y % TILE :, x % TILE :][: min(side, page.shape[0] - y), : min(side, page.shape[1] - x)]
        if level > 2:
            meant = halve(meant)
        found = halve(box) if level == 1 else box
        if expected.lossless or box.shape[0] * box.shape[1] >= LEAST_PIXELS:
            _check_like(found, meant, level, expected)


def _check_small_levels(pages: Any, expected: Expected) -> None:
    """Compare each level that is too small for boxes with the next larger one, as a whole."""
    for level in range(SAMPLED_LEVELS + 1, len(pages)):
        below = pages[level - 1]
        if below.shape[0] * below.shape[1] <= WHOLE_PIXELS:
            _check_like(pages[level].asarray(), halve(below.asarray()), level, expected)


def _check_like(found: Pixels, meant: Pixels, level: int, expected: Expected) -> None:
    tolerance = 0.0
    if not expected.lossless:
        found, meant, tolerance = halve(halve(found)), halve(halve(meant)), LEVEL_TOLERANCE
    error = float(np.abs(found.astype(np.int16) - meant).mean()) if found.shape == meant.shape else 255.0
    _require(holds=error <= tolerance, what=f"level {level} is not the halved level 0, by {error:.1f} grey levels")


def _check_mpp(slide: Any, expected: tuple[float, float] | None) -> None:
    stated = tuple(slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy")
    if expected is None:
        _require(holds=stated == (None, None), what=f"a resolution of {stated} was invented")
        return
    for axis, text, mpp in zip("xy", stated, expected, strict=True):
        close = text is not None and abs(float(text) / mpp - 1) <= MPP_TOLERANCE
        _require(holds=close, what=f"OpenSlide reads an mpp of {text} in {axis} instead of {mpp:g}")


def _places(size: tuple[int, int], number: int, seed: int | str) -> Iterator[tuple[int, int]]:
    rows, columns = tile_shape(*size)
    corners = {(0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)}
    yield from sorted(corners)
    chance = random.Random(seed)
    wanted = min(number, rows * columns) - len(corners)
    seen = set(corners)
    while wanted > 0:
        place = chance.randrange(rows), chance.randrange(columns)
        if place not in seen:
            seen.add(place)
            wanted -= 1
            yield place


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class Verification:
    """Result of ``wsi-denoise verify``.

    Parameters
    ----------
    ok : bool
        All checks passed.
    checks : list of (str, bool, str)
        Name, whether it passed, and a sentence.
    """

    ok: bool = True
    checks: list[tuple[str, bool, str]] = field(default_factory=list)

    def add(self, name: str, text: str, *, holds: bool) -> None:
        """Add one check."""
        self.checks.append((name, holds, text))
        self.ok = self.ok and holds


class Record(Protocol):
    """The values of a job that a verification uses."""

    @property
    def id(self) -> int: ...  # noqa: D102
    @property
    def slide(self) -> str: ...  # noqa: D102
    @property
    def fingerprint(self) -> str | None: ...  # noqa: D102
    @property
    def output_sha256(self) -> str | None: ...  # noqa: D102
    @property
    def model_checksum(self) -> str | None: ...  # noqa: D102
    @property
    def settings(self) -> dict[str, Any]: ...  # noqa: D102


def verify_file(path: Path, job: Record | None, *, source_fingerprint: Callable[[Path], str]) -> Verification:
    """Compare a published TIFF with the job database, and the original with its fingerprint.

    Parameters
    ----------
    job : Record or None
        The job that should have written the file.
    source_fingerprint : callable
        Returns the fingerprint of a slide's path, or raises WsiDenoiseError or OSError.
    """
    import tifffile  # noqa: PLC0415

    result = Verification()
    try:
        with tifffile.TiffFile(path) as tiff:
            facts = provenance.parse(tiff.pages.first.description)
            levels = [(page.shape[1], page.shape[0]) for page in tiff.pages]
    except Exception as error:  # noqa: BLE001 - the file may be of any kind
        result.add("readable", f"the file is not a readable TIFF ({error})", holds=False)
        return result
    result.add("readable", f"a TIFF with levels {levels}", holds=True)
    result.add("provenance", "made by wsi-denoise" if facts else "not made by wsi-denoise", holds=facts is not None)
    result.add(
        "job", f"output of job {job.id}" if job else "the store knows no job of this output", holds=job is not None
    )
    if job is None or facts is None:
        return result
    digest = sha256(path)
    same = digest == job.output_sha256
    result.add("checksum", f"SHA-256 {digest[:16]}… is {'as' if same else 'not as'} the store says", holds=same)
    model = facts.get("model_sha256") == job.model_checksum
    result.add("model", f"model {facts.get('preset')} is {'as' if model else 'not as'} the store says", holds=model)
    settings = facts.get("settings") == job.settings
    result.add("settings", f"the settings are {'as' if settings else 'not as'} the store says", holds=settings)
    try:
        found = source_fingerprint(Path(job.slide))
        unchanged = found == job.fingerprint == facts.get("fingerprint")
        result.add(
            "original", f"the original is {'unchanged' if unchanged else 'another than was denoised'}", holds=unchanged
        )
    except Exception as error:  # noqa: BLE001 - every reason for an unreadable original is reported
        result.add("original", f"the original cannot be read ({error})", holds=False)
    return result
