"""Whether a Zeiss CZI is complete, from its own tables, before a library sees it.

OpenSlide seeks to whatever position the head states, and reports a table that was never written, and one that was cut
off, in the same words.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from wsi_denoise.errors import NotASlide, TruncatedSlide

_MAGIC = b"ZISRAWFILE\0\0\0\0\0\0"
#: Bytes of a segment before its content: name, bytes reserved, bytes used.
_HEAD = struct.Struct("<16sqq")
#: Of the file header: positions of subblock directory and metadata, a flag, and position of the attachment directory.
_POSITIONS = struct.Struct("<qqiq")
_POSITIONS_AT = _HEAD.size + 52
_XML_AT = 256
#: Bytes of the XML that are read to see whether it was written to its end.
_TAIL = 16


def is_czi(head: bytes) -> bool:
    """Return whether a file that starts so is a CZI."""
    return head.startswith(_MAGIC)


def check_czi(path: Path) -> str:
    """Check that the tables of a CZI lie where its head says.

    Returns
    -------
    str
        What a complete file lacks that OpenSlide needs; empty where it lacks nothing.

    Raises
    ------
    TruncatedSlide
        The file ends early, or its writer did not finish it.
    NotASlide
        Something else is where a table should be.
    """
    with path.open("rb") as file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size
        raw = os.pread(descriptor, _POSITIONS.size, _POSITIONS_AT)
        if len(raw) < _POSITIONS.size:
            raise TruncatedSlide(f"CZI: it ends within its header, after {size} bytes")
        directory, metadata, _, attachments = _POSITIONS.unpack(raw)
        _check_segment(descriptor, size, directory, b"ZISRAWDIRECTORY", "directory of image tiles")
        _check_segment(descriptor, size, metadata, b"ZISRAWMETADATA", "metadata")
        _check_xml(descriptor, metadata)
        if attachments:
            _check_segment(descriptor, size, attachments, b"ZISRAWATTDIR", "directory of attachments")
            return ""
    return "it is a CZI without attachments (label and preview)"


def _check_segment(descriptor: int, size: int, start: int, name: bytes, what: str) -> None:
    """Raise TruncatedSlide where a segment is not whole."""
    if start <= 0:
        raise TruncatedSlide(f"CZI: its header does not say where its {what} is; the file was not written to its end")
    if start + _HEAD.size > size:
        missing = start + _HEAD.size - size
        raise TruncatedSlide(f"CZI: its {what} is at byte {start:,} and it has {size:,}: {missing:,} bytes are missing")
    found, reserved, used = _HEAD.unpack(os.pread(descriptor, _HEAD.size, start))
    if not found.strip(b"\0"):
        raise TruncatedSlide(f"CZI: zeros are where its header says its {what} is, at byte {start:,}")
    if found.rstrip(b"\0") != name:
        raise NotASlide(f"CZI: its {what} is not at byte {start:,}, where its header says")
    end = start + _HEAD.size + (used or reserved)
    if end > size:
        raise TruncatedSlide(f"CZI: its {what} ends at byte {end:,}, and it has {size:,}: {end - size:,} are missing")


def _check_xml(descriptor: int, start: int) -> None:
    """Raise TruncatedSlide where the metadata's XML ends in zeros: a copy of reserved size."""
    at = start + _HEAD.size
    (length,) = struct.unpack("<i", os.pread(descriptor, 4, at))
    tail = os.pread(descriptor, min(length, _TAIL), at + _XML_AT + max(0, length - _TAIL)) if length > 0 else b""
    if length > 0 and not tail.strip(b"\0"):
        raise TruncatedSlide("CZI: its metadata ends in zeros: it was not copied to its end")
