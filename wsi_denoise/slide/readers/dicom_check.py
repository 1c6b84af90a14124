"""Checks of DICOM headers: codec, concatenations, and the reason why OpenSlide rejects a file."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_denoise.errors import EmptyFile, IncompleteSlide, NotRGB, SlideError, TruncatedSlide, UnsupportedSlide

_CODECS = {
    "1.2.840.10008.1.2.4.50": "jpeg",
    "1.2.840.10008.1.2.4.51": "jpeg",
    "1.2.840.10008.1.2.4.57": "lossless jpeg",
    "1.2.840.10008.1.2.4.70": "lossless jpeg",
    "1.2.840.10008.1.2.4.80": "jpeg-ls",
    "1.2.840.10008.1.2.4.81": "jpeg-ls",
    "1.2.840.10008.1.2.4.90": "jpeg2000",
    "1.2.840.10008.1.2.4.91": "jpeg2000",
    "1.2.840.10008.1.2.5": "rle",
}

#: Tag of ConcatenationUID (0020,9161), little endian, and the number of first bytes of a file that contain it.
_CONCATENATION = b"\x20\x00\x61\x91"
_HEADER = 64 << 10

_BESIDE = (["LABEL"], ["OVERVIEW"], ["THUMBNAIL"])
"""Third value of ImageType for images of a series other than the slide."""


def is_dicom(head: bytes) -> bool:
    """Return whether a file with these first bytes is a DICOM file."""
    return head[128:132] == b"DICM"


def codec(file: Path) -> str | None:
    """Return the codec of the transfer syntax, from the start of the file; None if it is not found."""
    with file.open("rb") as opened:
        head = opened.read(4096)
    # The file's meta group is always explicit little endian: tag (0002,0010), type UI, two bytes of length.
    at = head.find(b"\x02\x00\x10\x00UI", 132)
    if at < 0:
        return None
    length = int.from_bytes(head[at + 6 : at + 8], "little")
    syntax = head[at + 8 : at + 8 + length].decode("ascii", "replace").rstrip("\0 ")
    if syntax in _CODECS:
        return _CODECS[syntax]
    return "other" if syntax.startswith("1.2.840.10008.1.2.4.") else "none"


@dataclass(frozen=True)
class _Part:
    """A file as part of a concatenation: its own frames, and the frames of the whole (0: any number)."""

    series: str
    concatenation: str
    frames: int
    wanted: int


def check_concatenations(file: Path) -> None:
    """Raise IncompleteSlide if a part of a concatenation of this file's series is missing.

    A large instance may be split into several files. If their number is not stated, OpenSlide opens a concatenation
    without its last part, and the missing frames look like empty glass.

    Parameters
    ----------
    file : Path
        Any file of the series; the others are in its folder.
    """
    parts = [_part(each) for each in sorted(file.parent.iterdir()) if _may_be_part(each)]
    series = _part(file).series if parts else ""
    for uid in {part.concatenation for part in parts if part.concatenation and part.series == series}:
        group = [part for part in parts if part.concatenation == uid]
        wanted, found = group[0].wanted, sum(part.frames for part in group)
        if found < wanted:
            raise IncompleteSlide(f"of the {wanted:,} frames of a DICOM concatenation {found:,} are there")


def _may_be_part(path: Path) -> bool:
    """Return whether a file may be a part of a concatenation, by its first bytes."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(_HEADER)
    except OSError:
        return False  # it may belong to another slide; a file of this one is reported when its pixels are read
    return is_dicom(head) and _CONCATENATION in head


def _part(file: Path) -> _Part:
    """Return a file's values as part of a concatenation.

    Raises
    ------
    UnsupportedSlide
        Its header cannot be read.
    """
    data = _header(file)
    try:
        wanted = _full_frames(data) if data.get("DimensionOrganizationType") == "TILED_FULL" else 0
        frames = int(data.get("NumberOfFrames", 1))
        series, concatenation = (str(data.get(name, "")) for name in ("SeriesInstanceUID", "ConcatenationUID"))
    except Exception as error:  # pydicom raises any exception for damaged values
        raise UnsupportedSlide(f"DICOM: its header cannot be read ({error})") from error
    return _Part(series, concatenation, frames, wanted)


def _full_frames(data: Any) -> int:
    """Return the number of frames that cover the whole matrix of an instance."""
    columns, rows = (
        math.ceil(int(data.get(f"TotalPixelMatrix{side}", 0)) / max(1, int(data.get(side, 1))))
        for side in ("Columns", "Rows")
    )
    return columns * rows * int(data.get("TotalPixelMatrixFocalPlanes", 1)) * int(data.get("NumberOfOpticalPaths", 1))


def _header(file: Path) -> Any:
    """Return the header of a DICOM file, without its pixels.

    Raises
    ------
    UnsupportedSlide
        It cannot be read.
    """
    import pydicom  # noqa: PLC0415

    try:
        with warnings.catch_warnings():
            # pydicom's warnings about unusual values do not help users.
            warnings.simplefilter("ignore")
            return pydicom.dcmread(file, stop_before_pixels=True)
    except OSError:
        raise
    except Exception as error:  # pydicom raises any exception for damaged files
        raise UnsupportedSlide(f"DICOM: its header cannot be read ({error})") from error


def refusal(file: Path, reason: str) -> SlideError:
    """Return the error for a DICOM file that OpenSlide rejects with `reason`."""
    if file.stat().st_size == 0:
        return EmptyFile(file.name)
    if "end of filehandle" in reason:
        return TruncatedSlide(f"DICOM: {reason}")
    try:
        return _kind(_header(file), reason)
    except UnsupportedSlide as error:
        return UnsupportedSlide(f"DICOM: {reason} ({error.detail})")
    except Exception as error:  # noqa: BLE001 - pydicom raises any exception for damaged values; the message includes it
        return UnsupportedSlide(f"DICOM: {reason} ({error})")


def _kind(data: Any, reason: str) -> SlideError:
    """Return the error for a file with this header."""
    modality = str(data.get("Modality", "unknown"))
    samples, bits = int(data.get("SamplesPerPixel", 0)), int(data.get("BitsAllocated", 0))
    image_type = [str(word) for word in data.get("ImageType", None) or ()]
    if modality != "SM":
        return UnsupportedSlide(f"DICOM of modality {modality}, not slide microscopy (SM)")
    if image_type[2:3] in _BESIDE:
        return IncompleteSlide(f"of the DICOM series only {image_type[2].lower()} and the like are there")
    if _lacks_parts(reason):
        return IncompleteSlide(f"DICOM: {reason}")
    if (samples, bits) != (3, 8):
        photometric = str(data.get("PhotometricInterpretation", "unknown"))
        return NotRGB(f"DICOM with {samples} sample{'s' * (samples != 1)} of {bits} bits, {photometric}")
    return UnsupportedSlide(f"DICOM: {reason}")


def _lacks_parts(reason: str) -> bool:
    """Return whether OpenSlide reports missing parts of a concatenation."""
    count = re.search(r"Expected (\d+) SOP instances in concatenation .*, found (\d+)", reason)
    if count:
        return int(count.group(2)) < int(count.group(1))
    return bool(re.search(r"Missing SOP instance .* in concatenation|only one SOP instance in concatenation", reason))
