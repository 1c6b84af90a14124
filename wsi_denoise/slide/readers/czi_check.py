"""Check that a Zeiss CZI is complete, from its own tables, before a library opens it.

OpenSlide reports a table that was never written and a truncated one with the same message.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from wsi_denoise.errors import NotASlide, TruncatedSlide

_MAGIC = b"ZISRAWFILE\0\0\0\0\0\0"
#: Bytes of a segment before its content: name, bytes reserved, bytes used.
_HEAD = struct.Struct("<16sqq")
#: In the file header: positions of subblock directory and metadata, a flag, and position of the attachment directory.
_POSITIONS = struct.Struct("<qqiq")
_POSITIONS_AT = _HEAD.size + 52
_XML_AT = 256
#: Number of bytes at the end of the XML that are checked for zeros.
_TAIL = 16


def is_czi(head: bytes) -> bool:
    """Return whether a file with these first bytes is a CZI."""
    return head.startswith(_MAGIC)


def check_czi(path: Path) -> str:
    """Check that the tables of a CZI are at the positions in its header.

    Returns
    -------
    str
        A part that OpenSlide needs and this complete file lacks; empty if it lacks none.

    Raises
    ------
    TruncatedSlide
        The file ends early, or its writer did not finish it.
    NotASlide
        Other data are at the position of a table.
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
    """Raise TruncatedSlide if a segment is incomplete, NotASlide if it has another name."""
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
    """Raise TruncatedSlide if the metadata's XML ends in zeros, as in an unfinished copy of reserved size."""
    at = start + _HEAD.size
    (length,) = struct.unpack("<i", os.pread(descriptor, 4, at))
    tail = os.pread(descriptor, min(length, _TAIL), at + _XML_AT + max(0, length - _TAIL)) if length > 0 else b""
    if length > 0 and not tail.strip(b"\0"):
        raise TruncatedSlide("CZI: its metadata ends in zeros: it was not copied to its end")
