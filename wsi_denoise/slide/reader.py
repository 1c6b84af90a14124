"""Opening of slides: the choice of a library by format, and the reasons for rejection.

The type of a file is checked first, then its internal tables, before a library opens it. tifffile reads plain TIFFs,
OpenSlide scanners' formats and DICOM, zarr NGFF, and imagecodecs JPEG 2000; see ``docs/evidence/formats.md``.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsi_denoise.errors import (
    ContradictoryColours,
    DecodersDisagree,
    EmptyFile,
    IncompleteSlide,
    NotASlide,
    SlideError,
    TruncatedSlide,
    UnsupportedSlide,
    WsiDenoiseError,
)
from wsi_denoise.slide.background import find_glass
from wsi_denoise.slide.base import (
    DecodeFailure,
    Slide,
    SlideInfo,
    check_size,
    check_unchanged,
    from_os_error,
    stat_source,
)
from wsi_denoise.slide.readers import (
    czi_check,
    dicom_check,
    dicom_colours,
    jpeg2000_check,
    jpeg2000_reader,
    ngff_reader,
    openslide_reader,
    parts_check,
    tiff_check,
    tiff_opening,
    tiff_reader,
)

__all__ = ["Slide", "SlideInfo", "open_cached", "open_slide", "probe"]

MAX_MEGAPIXELS = 40_000.0
#: Open slides that :func:`open_cached` keeps per process.
CACHED_SLIDES = 4
#: A background is dark if the median of its brightest channel is below this.
DARK = 50
#: OpenSlide's message for a file that ends early.
_CUT_OFF = "Short read"
#: OpenSlide's messages for an unsupported format of several files; no file is missing.
_NOT_READ = ("Unrecognized image format", "not supported", "Unsupported", "unsupported")
#: Maximum number of files of a DICOM series that are examined for the reason why none of them opens.
_MOST_REFUSALS = 16

_ZIP = b"PK\x03\x04"
_PICTURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"%PDF", "a PDF document"),
    (_ZIP, "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
)


def open_slide(path: Path | str, *, max_megapixels: float = MAX_MEGAPIXELS) -> Slide:
    """Open a slide.

    Parameters
    ----------
    path : Path or str
        A file, or the folder of a DICOM series or NGFF image. Any file of a DICOM series stands for the series.
    max_megapixels : float
        Limit of declared pixels at level 0, in millions. A larger slide is rejected before memory is allocated.

    Returns
    -------
    Slide
        A context manager.

    Raises
    ------
    EmptyFile, NotASlide, UnsupportedSlide, NotRGB, TruncatedSlide, IncompleteSlide, TooLarge, NotARegularFile
        The file is at fault.
    ContradictoryColours, DecodersDisagree
        Its colours are uncertain.
    SlideVanished, SlideChanged, SourceUnavailable
        Its place is at fault, or the file changed.
    """
    path = Path(path)
    status = stat_source(path)
    try:
        if path.is_dir():
            return _open_folder(path, max_megapixels)
        if status.st_size == 0:
            raise EmptyFile(path.name)
        with path.open("rb") as file:
            head = file.read(4096)
        if tiff_check.is_tiff(head) and not _is_huge_ndpi(path, head, status.st_size):
            return _with_background(tiff_opening.open_tiff(path, max_megapixels))
        return _open_other(path, head, max_megapixels)
    except (ContradictoryColours, DecodersDisagree):
        # A file that is replaced while it is opened shows two contents.
        if not path.is_dir():
            check_unchanged(path, status.st_size, status.st_mtime_ns)
        raise
    except OSError as error:
        raise from_os_error(error, path) from error


def probe(path: Path | str, *, max_megapixels: float = MAX_MEGAPIXELS) -> SlideInfo:
    """Open a slide, read its last tile, which an incomplete file lacks, and return its facts.

    Raises
    ------
    SlideError, SourceError
        As :func:`open_slide`; UnreadableTile for a slide whose end is missing.
    """
    with open_slide(path, max_megapixels=max_megapixels) as slide:
        info = slide.info
        width, height = min(info.tile[0], info.width), min(info.tile[1], info.height)
        slide.read(info.width - width, info.height - height, width, height)
        if isinstance(slide, tiff_reader.TiffSlide):
            slide.read_last()
        return info


class _OpenSlides:
    """The open slides of this process, most recently used last."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.slides: OrderedDict[tuple[object, ...], Slide] = OrderedDict()

    def get(self, path: Path, max_megapixels: float, content: str) -> Slide:
        key = (str(path), content, *_state(path))
        with self.lock:
            slide = self.slides.get(key)
            if slide is None:
                slide = open_slide(path, max_megapixels=max_megapixels)
                for old in [other for other in self.slides if other[0] == key[0]]:
                    del self.slides[old]
                # A single decoded tile may take half a gigabyte, so only the slide in use keeps its tiles.
                for other in self.slides.values():
                    other.trim()
                self.slides[key] = slide
            self.slides.move_to_end(key)
            # Dropped, not closed: another thread may be reading. The last reference closes it.
            while len(self.slides) > CACHED_SLIDES:
                self.slides.popitem(last=False)
            return slide


_open_slides = _OpenSlides()


def _forget() -> None:
    global _open_slides  # noqa: PLW0603
    _open_slides = _OpenSlides()


# Handles must not be used after a fork: parent and child would share file positions and library state.
os.register_at_fork(after_in_child=_forget)


def open_cached(path: Path | str, *, max_megapixels: float = MAX_MEGAPIXELS, content: str = "") -> Slide:
    """Return an open slide of this process. Open it if it is not open or has changed.

    The last four slides stay open. Threads share the slide, and the caller must not close it. Errors are those of
    :func:`open_slide`.

    Parameters
    ----------
    content : str
        Part of the slide's fingerprint. It detects changes in subfolders, such as the chunks of an NGFF image: for a
        folder only the files at its top are compared.
    """
    return _open_slides.get(Path(path), max_megapixels, content)


def _state(path: Path) -> tuple[object, ...]:
    """Return size and modification time of a file, or of the entries of a folder, to detect changes."""
    status = stat_source(path)
    if not path.is_dir():
        return status.st_size, status.st_mtime_ns
    try:
        files = sorted((each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in path.iterdir())
    except OSError as error:
        raise from_os_error(error, path) from error
    return tuple(files)


def _open_folder(path: Path, max_megapixels: float) -> Slide:
    files = sorted(each for each in path.iterdir() if each.is_file())
    dicom = [each for each in files if _is_dicom(each)]
    if dicom:
        return _open_dicom(path, dicom, max_megapixels)
    if ngff_reader.is_ngff(path):
        return _with_background(ngff_reader.open_ngff(path, max_megapixels))
    if path.suffix.lower() == ".zarr":
        raise IncompleteSlide(f"{path.name} has no Zarr metadata")
    raise NotASlide(f"the folder {path.name} holds neither DICOM files nor an NGFF image")


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return dicom_check.is_dicom(file.read(132))


def _open_dicom(path: Path, files: list[Path], max_megapixels: float) -> Slide:
    """Open a DICOM series from its first file that OpenSlide accepts. OpenSlide finds the other files itself."""
    refusals: list[tuple[Path, str]] = []
    for file in files:
        try:
            handle = openslide_reader.open_handle(file)
        except DecodeFailure as failure:
            refusals.append((file, failure.reason))
            continue
        if handle is None:
            refusals.append((file, "OpenSlide does not recognise it"))
            continue
        try:
            info = replace(openslide_reader.info_from(handle, path), compression=dicom_check.codec(file))
        except DecodeFailure as failure:
            raise UnsupportedSlide(f"DICOM: {failure.reason}") from failure
        check_size(info, max_megapixels)
        dicom_check.check_concatenations(file)
        series = sorted(each for each in file.parent.iterdir() if each.is_file())
        slide = openslide_reader.OpenSlideSlide(handle, info, file)
        return _with_background(dicom_colours.open_checked(slide, file, series))
    errors = [dicom_check.refusal(file, reason) for file, reason in refusals[:_MOST_REFUSALS]]
    # IncompleteSlide has priority, because files that arrive later may fix it. Another error may come from an unrelated
    # file in the folder.
    raise next((error for error in errors if isinstance(error, IncompleteSlide)), errors[0])


def _open_other(path: Path, head: bytes, max_megapixels: float) -> Slide:
    if dicom_check.is_dicom(head):
        return _open_dicom(path, [path], max_megapixels)
    suffix = path.suffix.lower()
    if suffix == ".mrxs":
        parts_check.check_mirax(path)
    kind = _other_kind(path, head)
    if kind:
        raise UnsupportedSlide(f"it is {kind}")
    if jpeg2000_check.is_jpeg2000(head):
        return _with_background(jpeg2000_reader.open_jpeg2000(path, max_megapixels))
    lack = czi_check.check_czi(path) if czi_check.is_czi(head) else ""
    try:
        handle = openslide_reader.open_handle(path)
    except DecodeFailure as failure:
        raise _refusal(suffix, f"{lack}; OpenSlide says: {failure.reason}" if lack else failure.reason) from failure
    if handle is None:
        if not any(head):
            raise NotASlide("it starts with zeros: it was not copied, or not to its end")
        raise NotASlide("no reader knows its content")
    try:
        info = openslide_reader.info_from(handle, path)
    except DecodeFailure as failure:
        raise UnsupportedSlide(failure.reason) from failure
    check_size(info, max_megapixels)
    return _with_background(openslide_reader.OpenSlideSlide(handle, info, path))


def _refusal(suffix: str, reason: str) -> SlideError:
    """Return the error for a file whose format OpenSlide recognises but that it cannot open."""
    if suffix in parts_check.KEY_SUFFIXES and not any(words in reason for words in _NOT_READ):
        return IncompleteSlide(reason)
    if _CUT_OFF in reason:
        return TruncatedSlide(reason)
    return UnsupportedSlide(reason)


def _other_kind(path: Path, head: bytes) -> str:
    """Return the kind of a file that is not a slide, by its first bytes; empty if it may be a slide."""
    for magic, kind in _PICTURES:
        if head.startswith(magic) and not _openslide_knows(path):
            names = path.name.lower().endswith((".zarr.zip", ".ozx"))
            if magic == _ZIP and (names or any(name.encode() in head for name in ngff_reader.METADATA_NAMES)):
                return "an NGFF (OME-Zarr) store in a ZIP file: unpack it into a folder"
            return kind
    return ""


def _is_huge_ndpi(path: Path, head: bytes, size: int) -> bool:
    """Return whether a file is in Hamamatsu's 64-bit variant of TIFF, which only OpenSlide reads."""
    return size >= 2**32 and head[2:3] == b"*" and path.suffix.lower() == ".ndpi"


def _openslide_knows(path: Path) -> bool:
    # The first bytes do not decide: the file that is named for a slide of several files may look like a picture.
    import openslide  # noqa: PLC0415

    return openslide.OpenSlide.detect_format(path) is not None


def _with_background(slide: Slide) -> Slide:
    """Set the colour of empty glass if the file does not state it."""
    if slide.info.background == (255, 255, 255):
        slide.set_background(_glass_colour(slide))
    return slide


def _glass_colour(slide: Slide) -> tuple[int, int, int]:
    """Return the colour of glass on 25 spots of the smallest usable level.

    It is the median colour for a dark slide (fluorescence), and white without glass.
    """
    side = 32
    for level in reversed(range(len(slide.info.levels))):
        if not slide.level_is_true(level):
            continue
        width, height = slide.info.levels[level]
        spots = []
        for step in range(25):
            x = max(0, (width - side) * (step % 5) // 4)
            y = max(0, (height - side) * (step // 5) // 4)
            if slide.is_empty(level, x, y, min(side, width - x), min(side, height - y)):
                continue
            # Damage is reported when the region is read for processing.
            with contextlib.suppress(DecodeFailure, WsiDenoiseError, OSError):
                spot = slide._read(level, x, y, min(side, width - x), min(side, height - y))  # noqa: SLF001
                spots.append(spot.reshape(-1, 3))
        if spots:
            pixels = np.concatenate(spots)
            glass = find_glass(pixels)
            if glass is None and np.median(pixels.max(axis=1)) < DARK:
                red, green, blue = (int(value) for value in np.median(pixels, axis=0))
                return red, green, blue
            return glass.colour if glass else (255, 255, 255)
    return (255, 255, 255)
