"""Positions of the encapsulated frames of a DICOM file."""

from __future__ import annotations

import os
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_denoise.slide.readers import dicom_check

_ITEM = b"\xfe\xff\x00\xe0"
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_UNDEFINED = b"\xff\xff\xff\xff"
_TAGS = (
    "SeriesInstanceUID", "ImageType", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames",
    "PhotometricInterpretation", "TotalPixelMatrixColumns", "TotalPixelMatrixRows", "TotalPixelMatrixFocalPlanes",
    "NumberOfOpticalPaths", "DimensionOrganizationType", "ConcatenationUID", "ExtendedOffsetTable",
)  # fmt: skip


@dataclass(frozen=True)
class Instance:
    """A DICOM file with compressed frames of slide microscopy.

    Parameters
    ----------
    series : str
        SeriesInstanceUID.
    codec : str
        As in ``tiff_directory.CODECS``.
    photometric : str
        PhotometricInterpretation.
    matrix, tile : (int, int)
        (width, height) of the whole image and of a frame.
    full : bool
        The frames cover the matrix row by row, in one plane and one file.
    samples, bits : int
        Samples per pixel, and bits per sample.
    frames : tuple of int
        Offset of the first item of each frame; empty if the frames were not found.
    """

    file: Path
    series: str
    codec: str
    photometric: str
    matrix: tuple[int, int]
    tile: tuple[int, int]
    full: bool
    samples: int
    bits: int
    frames: tuple[int, ...]

    @property
    def columns(self) -> int:
        """Number of frames side by side."""
        return -(-self.matrix[0] // self.tile[0])

    def read(self, descriptor: int, number: int, most: int = 512 << 20) -> bytes:
        """Return a frame's encoded data, or its first `most` bytes.

        Raises
        ------
        ValueError
            If the frame is not at the stated offset.
        """
        at = self.frames[number]
        end = self.frames[number + 1] if number + 1 < len(self.frames) else None
        found = b""
        while len(found) < most and (end is None or at < end):
            head = os.pread(descriptor, 8, at)
            if head[:4] != _ITEM or len(head) < 8:
                break
            length = int.from_bytes(head[4:], "little")
            found += os.pread(descriptor, min(length, most - len(found)), at + 8)
            at += 8 + length
        if not found:
            raise ValueError("there is no frame where the file says")
        return found


def read_instance(file: Path) -> Instance | None:
    """Return a file's frames, or None for a file without JPEG or JPEG 2000 frames or a readable header.

    Raises
    ------
    OSError
    """
    codec = dicom_check.codec(file)
    if codec not in ("jpeg", "jpeg2000"):
        return None
    import pydicom  # noqa: PLC0415

    try:
        with file.open("rb") as opened, warnings.catch_warnings():
            # pydicom's warnings about unusual values do not help users.
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(opened, stop_before_pixels=True, specific_tags=list(_TAGS))
            number = int(data.get("NumberOfFrames", 1))
            starts = _starts(opened.fileno(), opened.tell(), number, data.get("ExtendedOffsetTable", b""))
            return _instance(file, codec, data, starts)
    except OSError:
        raise
    except Exception:  # noqa: BLE001 - pydicom raises any exception for damage, which OpenSlide reports
        return None


def _instance(file: Path, codec: str, data: Any, starts: tuple[int, ...]) -> Instance | None:
    image_type = [str(word) for word in data.get("ImageType", None) or ()]
    if image_type[2:3] != ["VOLUME"]:
        return None
    width, height = int(data.TotalPixelMatrixColumns), int(data.TotalPixelMatrixRows)
    tile = int(data.Columns), int(data.Rows)
    if min(width, height, *tile) < 1:
        return None
    frames = -(-width // tile[0]) * -(-height // tile[1])
    planes = int(data.get("TotalPixelMatrixFocalPlanes", 1) or 1) * int(data.get("NumberOfOpticalPaths", 1) or 1)
    whole = str(data.get("DimensionOrganizationType", "")) == "TILED_FULL" and "ConcatenationUID" not in data
    return Instance(
        file=file,
        series=str(data.SeriesInstanceUID),
        codec=codec,
        photometric=str(data.get("PhotometricInterpretation", "")),
        matrix=(width, height),
        tile=tile,
        full=whole and planes == 1 and len(starts) == frames,
        samples=int(data.get("SamplesPerPixel", 0)),
        bits=int(data.get("BitsAllocated", 0)),
        frames=starts,
    )


def _starts(descriptor: int, at: int, number: int, extended: bytes) -> tuple[int, ...]:
    """Return the offset of the first item of each frame, from an offset table or from the chain of items."""
    head = os.pread(descriptor, 20, at)
    if head[:4] != _PIXEL_DATA or head[8:12] != _UNDEFINED or head[12:16] != _ITEM:
        return ()
    length = int.from_bytes(head[16:20], "little")
    first = at + 20 + length
    if extended and len(extended) == 8 * number:
        return tuple(first + offset for offset in struct.unpack(f"<{number}Q", extended))
    if length == 4 * number:
        table = struct.unpack(f"<{number}I", os.pread(descriptor, length, at + 20))
        if list(table) == sorted(set(table)):  # offsets beyond 4 GiB overflow
            return tuple(first + offset for offset in table)
    items: list[int] = []
    at = first
    while len(items) <= number:
        head = os.pread(descriptor, 8, at)
        if head[:4] != _ITEM or len(head) < 8:
            break
        items.append(at)
        at += 8 + int.from_bytes(head[4:], "little")
    if number == 1 and items:
        return (first,)
    return tuple(items) if len(items) == number else ()
