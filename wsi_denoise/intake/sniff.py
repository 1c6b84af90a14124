"""Read the first bytes of untrusted files, bounded, and without an image library.

Invalid headers raise no error and give no result. Only errors of the file system (:class:`OSError`) are raised, because
an unreadable file must not count as "not a slide".
"""

from __future__ import annotations

import os
import re
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from pathlib import Path

from wsi_denoise.system.text import Shown

PROVENANCE = b"wsi-denoise "
"""Start of the ImageDescription in the first directory of every output of this program."""

_DICOM_HEADER = 256 * 1024
_ZARR_METADATA = 1 << 20
_IMAGE_DESCRIPTION = 270
_ASCII = 2
_MOST_TAGS = 4096
_EXPLICIT_WITH_LONG_LENGTH = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_UNDEFINED = 0xFFFFFFFF
_ENDS = frozenset(((0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)))  # of an item, of a sequence
_TRANSFER_SYNTAX, _IMAGE_TYPE, _SERIES = (0x0002, 0x0010), (0x0008, 0x0008), (0x0020, 0x000E)


def open_regular(path: Path) -> FileIO:
    """Open a regular file for reading. Never follow a link, and never block on a pipe.

    A file may be replaced by a link or a pipe between scan and opening, so the type of the opened file is checked.

    Raises
    ------
    OSError
        When it cannot be opened, or is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return FileIO(descriptor, "rb")
    os.close(descriptor)
    raise OSError(f"not a regular file: {shown(path)}")


def shown(path: Path | str) -> Shown:
    """Return a path as one line of printable text, for names of any bytes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    plain = (letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
    return Shown("".join(plain))


def image_format(path: Path) -> str | None:
    """Return the image format that a file's first bytes announce, or None.

    Returns
    -------
    str or None
        ``TIFF``, ``DICOM``, ``JPEG 2000``, ``JPEG`` or ``PNG``.
    """
    with open_regular(path) as file:
        head = file.read(132)
    if head[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
        return "TIFF"
    if head[128:132] == b"DICM":
        return "DICOM"
    if head.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):
        return "JPEG 2000"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    return "JPEG" if head.startswith(b"\xff\xd8\xff") else None


# A file is opened once per content, not once per scan: on a share each opening is a round trip.
@lru_cache(maxsize=65536)
def cached_format(path: str, _size: int, _mtime_ns: int) -> str | None:
    """Return :func:`image_format` of a file with this size and modification time."""
    return image_format(Path(path))


def is_zarr_array(folder: Path) -> bool:
    """Return whether a folder is a Zarr array, and not a group that could hold an NGFF image.

    Raises
    ------
    OSError
    """
    try:
        with open_regular(folder / "zarr.json") as file:
            return re.search(rb'"node_type"\s*:\s*"array"', file.read(_ZARR_METADATA)) is not None
    except FileNotFoundError:
        return os.path.lexists(folder / ".zarray")


def is_own_output(path: Path) -> bool:
    """Return whether a TIFF (classic or BigTIFF) states that this program made it.

    The ImageDescription of its first directory then starts with :data:`PROVENANCE`.
    """
    with open_regular(path) as file:
        try:
            return _description(file, len(PROVENANCE)) == PROVENANCE
        except (struct.error, OverflowError):
            return False


def _description(file: FileIO, length: int) -> bytes:
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    if not order:
        return b""
    (version,) = struct.unpack_from(order + "H", head, 2)
    if version == 42:
        (first,) = struct.unpack_from(order + "I", head, 4)
        count_format, tag_format, inline = order + "H", order + "HHI4s", 4
    elif version == 43 and struct.unpack_from(order + "HH", head, 4) == (8, 0):
        (first,) = struct.unpack_from(order + "Q", head, 8)
        count_format, tag_format, inline = order + "Q", order + "HHQ8s", 8
    else:
        return b""
    (count,) = struct.unpack(count_format, _read_at(file, first, struct.calcsize(count_format)))
    size = struct.calcsize(tag_format)
    tags = _read_at(file, first + struct.calcsize(count_format), size * min(count, _MOST_TAGS))
    for start in range(0, len(tags) - size + 1, size):
        tag, kind, letters, value = struct.unpack_from(tag_format, tags, start)
        if tag == _IMAGE_DESCRIPTION and kind == _ASCII and letters >= length:
            if letters <= inline:
                return bytes(value[:length])
            (where,) = struct.unpack(order + ("I" if inline == 4 else "Q"), value)
            return _read_at(file, where, length)
    return b""


def _read_at(file: FileIO, where: int, length: int) -> bytes:
    if where > os.fstat(file.fileno()).st_size:
        return b""
    return os.pread(file.fileno(), length, where)


@dataclass(frozen=True, slots=True)
class DicomHeader:
    """Values of a DICOM header, as far as it can be read (yet).

    Parameters
    ----------
    series : str or None
        SeriesInstanceUID.
    image_type : tuple of str
        Values of ImageType, such as ``("ORIGINAL", "PRIMARY", "VOLUME", "NONE")``.
    """

    series: str | None = None
    image_type: tuple[str, ...] = ()


def dicom_series(path: Path) -> str | None:
    """Return the SeriesInstanceUID of a DICOM file, or None when its header does not hold one (yet)."""
    return dicom_header(path).series


def dicom_header(path: Path) -> DicomHeader:
    """Return series and image type of a DICOM file.

    Reads little-endian files with explicit or implicit value representation, as whole-slide images are. Sequences
    before the UID are skipped, so that a referenced series is not taken for this one.
    """
    with open_regular(path) as file:
        data = file.read(_DICOM_HEADER)
    found: dict[tuple[int, ...], bytes] = {}
    if data[128:132] == b"DICM":
        with suppress(struct.error):
            _read_values(data, found)
    texts = {tag: value.rstrip(b"\0 ").decode("ascii", "replace") for tag, value in found.items()}
    series, image_type = texts.get(_SERIES, ""), texts.get(_IMAGE_TYPE, "")
    types = tuple(word.strip() for word in image_type.split("\\")) if image_type else ()
    return DicomHeader(series if series and series.isascii() else None, types)


def _read_values(data: bytes, found: dict[tuple[int, ...], bytes]) -> None:
    """Add the values of the wanted elements, up to the series."""
    position, depth, explicit = 132, 0, True
    syntax = b""
    while position + 8 <= len(data):
        tag = struct.unpack_from("<HH", data, position)
        if tag[0] not in {2, 0xFFFE}:
            explicit = syntax != b"1.2.840.10008.1.2"
        position, length = _element(data, position, explicit=explicit or tag[0] == 2)
        if tag in _ENDS:
            depth = max(0, depth - 1)
        elif length == _UNDEFINED:
            # An item or sequence of unknown length is entered here and left at its delimiter.
            depth += 1
        else:
            value = data[position : position + length]
            if tag == _TRANSFER_SYNTAX:
                syntax = value.rstrip(b"\0 ")
            elif tag in {_IMAGE_TYPE, _SERIES} and depth == 0 and len(value) == length:
                found[tag] = value
            if depth == 0 and tag >= _SERIES and tag[0] != 0xFFFE:
                break
            position += length


def _element(data: bytes, position: int, *, explicit: bool) -> tuple[int, int]:
    """Return where the value of the element at `position` starts, and its length in bytes."""
    (group,) = struct.unpack_from("<H", data, position)
    representation = data[position + 4 : position + 6]
    if group == 0xFFFE or not explicit:
        return position + 8, struct.unpack_from("<I", data, position + 4)[0]
    if representation in _EXPLICIT_WITH_LONG_LENGTH:
        return position + 12, struct.unpack_from("<I", data, position + 8)[0]
    return position + 8, struct.unpack_from("<H", data, position + 6)[0]
