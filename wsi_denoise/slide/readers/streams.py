"""Parsing of the headers of encoded tiles. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
"""JPEG markers without a length."""
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_CODESTREAM = b"\xff\x4f\xff\x51"


@dataclass(frozen=True)
class JpegHeader:
    """Markers of a JPEG up to its first scan.

    Parameters
    ----------
    size : (int, int)
        (width, height) in pixels; (0, 0) without a frame header.
    components : tuple of (int, int, int)
        Identifier, horizontal and vertical sampling factor of each component.
    jfif : bool
        A JFIF marker (APP0) is present.
    adobe : int or None
        Colour transform of the Adobe marker (APP14): 0 none, 1 YCbCr, 2 YCCK. None without the marker.
    scan : int or None
        Offset of the first scan's data; None without a scan.
    """

    size: tuple[int, int] = (0, 0)
    components: tuple[tuple[int, int, int], ...] = ()
    jfif: bool = False
    adobe: int | None = None
    progressive: bool = False
    scan: int | None = None

    @property
    def subsampled(self) -> bool:
        """Whether the components have different sampling factors."""
        return len({component[1:] for component in self.components}) > 1


def jpeg_header(data: bytes) -> JpegHeader | None:
    """Return the markers of a JPEG, which may be truncated after them, or None for other content."""
    if data[:2] != b"\xff\xd8":
        return None
    facts: dict[str, object] = {}
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _STANDALONE:
            at += 2
            continue
        if marker == 0xD9:
            break
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if marker in _START_OF_FRAME and len(body) >= 6:
            facts["size"] = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
            entries = [body[start : start + 3] for start in range(6, 6 + 3 * body[5], 3)]
            facts["components"] = tuple((each[0], each[1] >> 4, each[1] & 15) for each in entries if len(each) == 3)
            facts["progressive"] = marker in _PROGRESSIVE
        elif marker == 0xE0 and body.startswith(b"JFIF\0"):
            facts["jfif"] = True
        elif marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            facts["adobe"] = body[11]
        elif marker == 0xDA:
            facts["scan"] = at + 2 + length
            break
        at += 2 + max(2, length)
    return JpegHeader(**facts)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Jpeg2000Header:
    """Main header of a JPEG 2000 codestream, and the colour box of the file around it.

    Parameters
    ----------
    size : (int, int)
        (width, height) in pixels.
    subsampled : bool
        The components have different sampling factors.
    transform : bool
        The multiple component transform is used: the decoder reverses it and returns RGB.
    colour_space : int or None
        Enumerated colour space of the JP2 box: 16 sRGB, 17 grey, 18 sYCC. None for a bare codestream, or for another
        method of the colour box.
    """

    size: tuple[int, int]
    components: int
    subsampled: bool
    transform: bool
    colour_space: int | None


def codestream(data: bytes) -> bytes:
    """Return the codestream of a JPEG 2000 file without the boxes around it."""
    return data[max(0, data.find(_CODESTREAM)) :]


def jpeg2000_header(data: bytes) -> Jpeg2000Header | None:
    """Return the header of a JPEG 2000 codestream or JP2 file; None for other content."""
    at = data.find(_CODESTREAM)
    if at < 0 or at + 42 > len(data):
        return None
    right, bottom, left, top = (int.from_bytes(data[at + 8 + 4 * i : at + 12 + 4 * i], "big") for i in range(4))
    components = int.from_bytes(data[at + 40 : at + 42], "big")
    steps = {data[at + 43 + 3 * i : at + 45 + 3 * i] for i in range(min(components, 16))}
    return Jpeg2000Header(
        size=(max(0, right - left), max(0, bottom - top)),
        components=components,
        subsampled=len(steps) > 1,
        transform=_transform(data, at),
        colour_space=_colour_space(data[:at]),
    )


def _transform(data: bytes, start: int) -> bool:
    """Return whether the COD marker of a codestream states the multiple component transform."""
    at = start + 2
    while at + 9 <= len(data) and data[at] == 0xFF and data[at + 1] != 0x90:
        if data[at + 1] == 0x52:
            return data[at + 8] == 1
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _colour_space(boxes: bytes) -> int | None:
    """Return the enumerated colour space of the first colour box that has one."""
    at = boxes.find(b"colr")
    while at >= 0:
        if boxes[at + 4 : at + 5] == b"\x01" and at + 11 <= len(boxes):
            return int.from_bytes(boxes[at + 7 : at + 11], "big")
        at = boxes.find(b"colr", at + 4)
    return None


def has_end(data: bytes, codec: str) -> bool:
    """Return whether a stream's end marker is present; it is the same for JPEG and JPEG 2000."""
    start = 0
    if codec == "jpeg":
        header = jpeg_header(data)
        start = header.scan or 0 if header else 0
    return data.rfind(b"\xff\xd9", start) >= 0


def declared_size(data: bytes, codec: str) -> tuple[int, int] | None:
    """Return the (width, height) that an encoded tile declares, or None if it is unknown.

    It is checked before decoding, because decoders allocate the declared size.
    """
    parse = _SIZES.get(codec)
    return parse(data) if parse else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    header = jpeg_header(data)
    return header.size if header and header.size != (0, 0) else None


def _jpeg2000_size(data: bytes) -> tuple[int, int] | None:
    header = jpeg2000_header(data)
    return header.size if header else None


def _png_size(data: bytes) -> tuple[int, int] | None:
    if data[12:16] != b"IHDR":
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    if kind == b"VP8L" and data[20:21] == b"\x2f":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return None


def _lerc_size(data: bytes) -> tuple[int, int] | None:
    if not data.startswith(b"Lerc2 ") or len(data) < 22:
        return None
    start = 14 if int.from_bytes(data[6:10], "little") >= 3 else 10  # a checksum since version 3
    rows, columns = (int.from_bytes(data[start + i : start + i + 4], "little") for i in (0, 4))
    return columns, rows


def _jpegxl_size(data: bytes) -> tuple[int, int] | None:
    """Return the size in the SizeHeader of a JPEG XL codestream (ISO/IEC 18181-1, 6.2)."""
    at = data.find(b"jxlc") + 4 if data[4:8] == b"JXL " else 0
    if data[at : at + 2] != b"\xff\x0a":
        return None
    bits = int.from_bytes(data[at + 2 : at + 14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    def side(small: int) -> int:
        return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = take(1)
    height = side(small)
    ratio = take(3)
    if ratio == 0:
        return side(small), height
    above, below = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * above // below, height


def _jpegxr_size(data: bytes) -> tuple[int, int] | None:
    """Return the size in the directory of a JPEG XR file (tags 0xBC80 and 0xBC81)."""
    if data[:3] != b"II\xbc":
        return None
    start = int.from_bytes(data[4:8], "little")
    sides = {}
    for index in range(min(64, int.from_bytes(data[start : start + 2], "little"))):
        entry = data[start + 2 + 12 * index : start + 14 + 12 * index]
        tag, width = int.from_bytes(entry[:2], "little"), 2 if entry[2:4] == b"\x03\x00" else 4
        if tag in (0xBC80, 0xBC81):
            sides[tag] = int.from_bytes(entry[8 : 8 + width], "little")
    return (sides[0xBC80], sides[0xBC81]) if len(sides) == 2 else None


_SIZES = {
    "jpeg": _jpeg_size,
    "jpeg2000": _jpeg2000_size,
    "png": _png_size,
    "webp": _webp_size,
    "lerc": _lerc_size,
    "jpeg xl": _jpegxl_size,
    "jpeg xr": _jpegxr_size,
}
