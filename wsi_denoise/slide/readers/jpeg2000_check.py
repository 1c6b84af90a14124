"""Validation of a JPEG 2000 file's boxes and codestream header.

OpenJPEG silently fills missing parts of an unfinished codestream with grey, so this module checks completeness first.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wsi_denoise.errors import NotASlide, NotRGB, TruncatedSlide
from wsi_denoise.slide import metadata, units
from wsi_denoise.slide.metadata import Statement

_BOXES = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_CODESTREAM = b"\xff\x4f\xff\x51"
_MAX_BOXES = 10_000
_MAX_BOX = 16 << 20
_MAX_SEGMENTS = 10_000_000
_SIZE, _CODING, _TILE, _DATA, _END = 0xFF51, 0xFF52, 0xFF90, 0xFF93, 0xFFD9
#: Enumerated colour spaces that are decoded as RGB (sRGB, sYCC), and the names of the others.
_SRGB, SYCC = 16, 18
_OTHERS = {0: "black and white", 12: "CMYK", 13: "YCCK", 14: "CIELab", 15: "black and white", 17: "grey", 19: "CIEJab"}


@dataclass(frozen=True)
class Jpeg2000Facts:
    """Declarations of a JPEG 2000 file.

    Parameters
    ----------
    width, height : int
        Pixels.
    bits : tuple of (int, bool)
        Bits of each component, and whether it is signed.
    steps : tuple of (int, int)
        Horizontal and vertical distance of each component's samples in pixels.
    tiles : (int, int)
        (width, height) of a tile of the codestream.
    colour_transform : bool
        The codestream uses the component transform, so its components are RGB.
    colour : int or None
        Enumerated colour space.
    alpha : int
        Meaning of the fourth component: 1 alpha, 2 premultiplied alpha, 0 none.
    resolution : tuple of Statement
        Most specific first.
    objective : float or None
        Nominal magnification.
    """

    width: int
    height: int
    bits: tuple[tuple[int, bool], ...]
    steps: tuple[tuple[int, int], ...]
    tiles: tuple[int, int]
    colour_transform: bool
    colour: int | None = None
    palette: bool = False
    alpha: int = 0
    icc_profile: bytes | None = None
    resolution: tuple[Statement, ...] = ()
    objective: float | None = None


@dataclass
class _Header:
    """Values of the boxes around a codestream."""

    start: int = 0
    end: int = 0
    colour: int | None = None
    palette: bool = False
    alpha: int = 0
    icc_profile: bytes | None = None
    statements: dict[str, Statement] = field(default_factory=dict)
    objective: float | None = None


def is_jpeg2000(head: bytes) -> bool:
    """Return whether a file with these first bytes is a JP2 file or a bare codestream."""
    return head.startswith((_BOXES, _CODESTREAM))


def check_jpeg2000(path: Path) -> Jpeg2000Facts:
    """Return the declarations of a JPEG 2000 file, and check that its codestream is complete.

    Raises
    ------
    TruncatedSlide, NotASlide
    """
    with path.open("rb") as file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size
        header = _Header(0, size) if os.pread(descriptor, 4, 0) == _CODESTREAM else _boxes(descriptor, size)
        return _codestream(descriptor, size, header)


def check_rgb(facts: Jpeg2000Facts) -> None:
    """Reject a picture that is not 8-bit RGB, with its kind in the message.

    Raises
    ------
    NotRGB
    """
    count = len(facts.bits)
    depths = sorted({bits for bits, _ in facts.bits})
    if depths != [8] or any(signed for _, signed in facts.bits):
        signed = " signed" if any(signed for _, signed in facts.bits) else ""
        raise NotRGB(
            f"JPEG 2000 with {count} component{'s' * (count != 1)} of {'/'.join(map(str, depths))}{signed} bits"
        )
    if facts.palette:
        raise NotRGB("JPEG 2000 with a palette")
    if count not in (3, 4):
        kind = {1: "grey", 2: "grey with transparency"}.get(count, "of no known colour model")
        raise NotRGB(f"JPEG 2000 with {count} component{'s' * (count != 1)}, {kind}")
    if facts.colour not in (None, _SRGB, SYCC):
        raise NotRGB(f"JPEG 2000 in {_OTHERS.get(facts.colour, f'the colour space {facts.colour}')}")


def _boxes(descriptor: int, size: int) -> _Header:
    """Return the values of a JP2 file's boxes."""
    header = _Header()
    for kind, start, end in _children(descriptor, 0, size, limit=size):
        if kind == b"jp2c":
            header.start, header.end = start, end
            break
        if kind == b"jp2h":
            for inner, first, last in _children(descriptor, start, end, limit=size):
                _note(header, inner, os.pread(descriptor, min(last - first, _MAX_BOX), first))
        elif kind == b"xml ":
            _note_xml(header, os.pread(descriptor, min(end - start, _MAX_BOX), start))
    if not header.start:
        raise TruncatedSlide("it is a JP2 file that ends before its codestream")
    return header


def _children(descriptor: int, start: int, end: int, *, limit: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, first byte and end of the content of each box."""
    at = start
    for _ in range(_MAX_BOXES):
        if at + 8 > min(end, limit):
            return
        length, kind = struct.unpack(">I4s", os.pread(descriptor, 8, at))
        head = 8
        if length == 1 and at + 16 <= limit:
            (length,), head = struct.unpack(">Q", os.pread(descriptor, 8, at + 8)), 16
        stop = end if length == 0 else at + length
        if kind == b"\0\0\0\0" and length == 0:
            raise TruncatedSlide(f"it is a JP2 file with zeros at byte {at:,}: its end was not written")
        if stop < at + head:
            raise NotASlide(f"it is a JP2 file with a box of {length} bytes at byte {at:,}")
        yield kind, at + head, stop
        at = stop
    raise NotASlide(f"it is a JP2 file with more than {_MAX_BOXES:,} boxes")


def _note(header: _Header, kind: bytes, content: bytes) -> None:
    """Store the values of a box of the JP2 header."""
    if kind == b"pclr":
        header.palette = True
    elif kind == b"colr" and len(content) >= 7 and content[0] == 1 and header.colour is None:
        header.colour = int.from_bytes(content[3:7], "big")
    elif kind == b"colr" and content[:1] in (b"\2", b"\3"):
        header.icc_profile = content[3:]
    elif kind == b"cdef":
        for channel, meaning in (struct.unpack_from(">HH", content, at) for at in range(2, len(content) - 5, 6)):
            if channel == 3 and meaning in (1, 2):
                header.alpha = meaning
    elif kind == b"res ":
        at = 0
        while at + 8 <= len(content):
            length = int.from_bytes(content[at : at + 4], "big")
            _note_resolution(header, content[at + 4 : at + 8], content[at + 8 : at + max(8, length)])
            at += max(8, length)


def _note_resolution(header: _Header, kind: bytes, content: bytes) -> None:
    """Store samples per metre; the display resolution may be that of a screen or printer."""
    if kind not in (b"resc", b"resd") or len(content) < 10:
        return
    above_y, below_y, above_x, below_x, power_y, power_x = struct.unpack(">HHHHbb", content[:10])
    lengths = []
    for above, below, power in ((above_x, below_x, power_x), (above_y, below_y, power_y)):
        lengths.append(1e6 * below / above / 10.0**power if above else 0.0)
    header.statements[kind.decode()] = Statement(lengths[0], lengths[1], tags=kind == b"resd")


def _note_xml(header: _Header, content: bytes) -> None:
    """Store values of a description by Omnyx or Aperio: items ``name = value`` between vertical bars."""
    text = content.decode("utf-8", "replace")
    stated = re.search(r"\bMPP\s*=\s*([^|<>]{1,80})", text)
    if stated:
        value, problem = units.quantity("MPP", stated.group(1), "µm")
        header.statements["xml"] = Statement(value, value, problem)
    power = re.search(r"\bAppMag\s*=\s*([\d.]{1,10})", text)
    header.objective = metadata.number(power.group(1)) if power else None


def _codestream(descriptor: int, size: int, header: _Header) -> Jpeg2000Facts:
    """Read the main header of the codestream, and check its tiles up to the end."""
    at, sizes, transform = header.start + 2, b"", False
    while True:
        marker, length = _marker(descriptor, at, size)
        if marker in (_TILE, _DATA, _END):
            break
        if length == 0:
            raise TruncatedSlide(f"its codestream holds zeros at byte {at + 2:,}: its end was not written")
        if length == 1:
            raise NotASlide(f"it is a JPEG 2000 codestream with an impossible marker at byte {at:,}")
        content = os.pread(descriptor, length - 2, at + 4)
        if marker == _SIZE:
            sizes = content
        elif marker == _CODING and len(content) > 4:
            transform = content[4] == 1
        at += 2 + length
    if len(sizes) < 36:
        raise NotASlide("it is a JPEG 2000 codestream that does not declare its size")
    _check_tiles(descriptor, size, at, header.end)
    right, bottom, left, top, tile_width, tile_height = struct.unpack(">6I", sizes[2:26])
    components = [sizes[start : start + 3] for start in range(36, len(sizes) - 2, 3)]
    if right <= left or bottom <= top or any(0 in each[1:] for each in components):
        raise NotASlide("it is a JPEG 2000 codestream that declares no pixels")
    order = ("xml", "resc", "resd")
    return Jpeg2000Facts(
        width=right - left,
        height=bottom - top,
        bits=tuple(((each[0] & 0x7F) + 1, bool(each[0] & 0x80)) for each in components),
        steps=tuple((each[1], each[2]) for each in components),
        tiles=(tile_width, tile_height),
        colour_transform=transform,
        colour=header.colour,
        palette=header.palette,
        alpha=header.alpha if len(components) == 4 else 0,
        icc_profile=header.icc_profile,
        resolution=tuple(header.statements[kind] for kind in order if kind in header.statements),
        objective=header.objective,
    )


def _marker(descriptor: int, at: int, size: int) -> tuple[int, int]:
    """Return a marker of the codestream and the length of its segment."""
    raw = os.pread(descriptor, 4, at)
    if len(raw) < 2 or at + 2 > size:
        raise TruncatedSlide(f"its codestream continues at byte {at:,} and it has {size:,}")
    marker = int.from_bytes(raw[:2], "big")
    if marker == 0:
        raise TruncatedSlide(f"its codestream holds zeros at byte {at:,}: its end was not written")
    if marker < 0xFF00:
        raise NotASlide(f"it is a JPEG 2000 codestream with something else at byte {at:,}")
    return marker, int.from_bytes(raw[2:4], "big")


def _check_tiles(descriptor: int, size: int, at: int, end: int) -> None:
    """Raise TruncatedSlide if a part of a tile is incomplete.

    A codestream that lacks only its end marker is complete.
    """
    for _ in range(_MAX_SEGMENTS):
        if at == min(end, size):
            return
        marker, _ = _marker(descriptor, at, size)
        if marker == _END:
            return
        raw = os.pread(descriptor, 12, at)
        if marker != _TILE or len(raw) < 12:
            raise TruncatedSlide(f"its codestream has no tile at byte {at:,}")
        length = int.from_bytes(raw[6:10], "big")
        if length == 0:  # the last part, which extends to the end marker
            if os.pread(descriptor, 64, max(at, min(end, size) - 64)).rstrip(b"\0").endswith(b"\xff\xd9"):
                return
            raise TruncatedSlide("its codestream ends without an end marker")
        if length < 14:
            raise NotASlide(f"it is a JPEG 2000 codestream with an impossible tile at byte {at:,}")
        at += length
        if at > size:
            raise TruncatedSlide(f"its tiles reach to byte {at:,} and it has {size:,}: {at - size:,} bytes are missing")
    raise NotASlide(f"it is a JPEG 2000 codestream with more than {_MAX_SEGMENTS:,} parts")
