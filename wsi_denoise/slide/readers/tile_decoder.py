"""Decoding of one encoded tile or strip of a TIFF or DICOM file with imagecodecs, by a colour rule.

Decoders fill a truncated tile with grey, allocate any size that its header declares, and resolve a contradictory colour
model silently. This module checks all three.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wsi_denoise.slide.base import ColourFailure, DecodeFailure, Pixels
from wsi_denoise.slide.readers.colours import ColourRule, Space, statement_of, ycbcr_to_rgb
from wsi_denoise.slide.readers.streams import codestream, declared_size, has_end, jpeg2000_header, jpeg_header
from wsi_denoise.slide.readers.tiff_directory import Directory

_PADDINGS = (b"\x00" * 64, b"\xaa" * 64, b"\x55" * 64, bytes(range(1, 65)))
"""Bytes appended to a scan as a test; zeros or ones alone may be valid codes of empty blocks."""
_END = b"\xff\xd9"
_ZEROS = b"\0" * 16
"""**Measured**: WebP ends in up to 2 zeros, JPEG XR in 1. Their decoders decode longer runs of zeros as data."""


def coded_fault(data: bytes, codec: str, segment: tuple[int, int]) -> str:
    """Return the fault of an encoded tile according to its headers and end; empty if there is no fault.

    Parameters
    ----------
    codec : str
        As in ``tiff_directory.CODECS``.
    segment : (int, int)
        (width, height) that the file declares for the tile.
    """
    if codec in ("jpeg", "jpeg2000") and not has_end(data, codec):
        if not data.strip(b"\0"):
            return "its data is all zeros"
        header = jpeg_header(data) if codec == "jpeg" else None
        if header is None or header.scan is None:
            return "its data ends too early: its end marker is missing"
        if header.progressive:
            return "the end marker of its progressive JPEG is missing, so that its last scans may be missing too"
    if codec in ("webp", "jpeg xr") and _stream(data, codec).endswith(_ZEROS):
        return "its data ends in zeros: it was not copied to its end"
    size = declared_size(data, codec)
    if size is not None and size[0] * size[1] > 4 * max(segment[0] * segment[1], 4096):
        return f"its data declares {size[0]:,} x {size[1]:,} px, the directory {segment[0]:,} x {segment[1]:,}"
    return ""


def _stream(data: bytes, codec: str) -> bytes:
    """Return a stream without its padding, if it states its length."""
    return data[: 8 + int.from_bytes(data[4:8], "little")] if codec == "webp" else data


def jpeg_pixels(data: bytes, tables: bytes | None, space: str | None, out: str) -> Pixels:
    """Decode a JPEG. The end marker may be missing if the last scan is complete.

    Parameters
    ----------
    tables : bytes, optional
        JPEGTables of the directory.
    space, out : str
        imagecodecs' names of the colour models of the stored samples and of the result.

    Raises
    ------
    DecodeFailure
        If samples are missing.
    """
    import imagecodecs  # noqa: PLC0415

    def decode(stream: bytes) -> Pixels:
        pixels: Pixels = imagecodecs.jpeg_decode(
            stream, tables=tables, bitspersample=8, colorspace=space, outcolorspace=out
        )
        return pixels

    if has_end(data, "jpeg"):
        return decode(data)
    # A decoder does not read beyond a complete scan, so any appended bits give the same pixels.
    scan = _without_filling(data)
    first, *others = (decode(scan + padding + _END) for padding in _PADDINGS)
    if not all(np.array_equal(first, other) for other in others):
        raise DecodeFailure("its data ends too early: pixels and the end marker are missing")
    return first


def _without_filling(data: bytes) -> bytes:
    """Return a scan without the filling of an unfinished copy, which a decoder would decode as samples."""
    scan = data.rstrip(b"\0\xff")
    tail = data[len(scan) :]
    if tail == b"\0":
        return data
    ones = 0
    while tail[ones : ones + 2] == b"\xff\0":  # a byte of ones within a scan
        ones += 2
    return scan + tail[:ones]


def stored_samples(data: bytes, codec: str, tables: bytes | None) -> Pixels | None:
    """Return the stored samples of a tile, (height, width, 3), or None if they cannot be decoded."""
    import imagecodecs  # noqa: PLC0415

    try:
        if codec == "jpeg2000":
            header = jpeg2000_header(data)
            if header is None or header.subsampled:
                return None
            pixels = imagecodecs.jpeg2k_decode(codestream(data))
        else:
            pixels = jpeg_pixels(data, tables, "RGB", "RGB")
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - damage is reported when the tile is read for processing
        return None
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] < 3:
        return None
    return np.ascontiguousarray(pixels[..., :3])


def coloured_pixels(data: bytes, codec: str, tables: bytes | None, rule: ColourRule) -> Pixels:
    """Decode a tile of three interleaved samples in JPEG or JPEG 2000 to RGB.

    Raises
    ------
    ColourFailure
        If the tile's colour model is uncertain.
    DecodeFailure
    """
    import imagecodecs  # noqa: PLC0415

    statement = statement_of(data, codec, tables)
    if statement is None:
        raise DecodeFailure("its data has no header")
    space = rule.space_of(statement)
    if space is None:
        reason = statement.conflict or f"the file says {rule.tag}, the tile says {statement.space or 'nothing'}"
        raise ColourFailure(rule.refusal or reason)
    if codec == "jpeg":
        return jpeg_pixels(data, tables, space.upper(), "RGB")
    if statement.subsampled:
        raise DecodeFailure("its JPEG 2000 components have different sampling factors")
    # Without the boxes, because the decoder would convert colours by their colour space.
    pixels: Pixels = imagecodecs.jpeg2k_decode(codestream(data))
    return ycbcr_to_rgb(pixels[..., :3]) if space is Space.YCBCR else pixels


class TileDecoder:
    """A decoder of the tiles or strips of one TIFF directory.

    Parameters
    ----------
    page : tifffile.TiffPage
        tifffile's page of the directory, made while its file was open.
    """

    def __init__(self, directory: Directory, page: Any, rule: ColourRule) -> None:
        self._directory = directory
        self._decode = page.decode
        self._rule = rule

    def decode(self, data: bytes, number: int) -> Pixels:
        """Return the pixels of an encoded tile, (height, width, samples).

        Parameters
        ----------
        number : int
            Index in the directory's table of tiles, which has separate entries for separate planes.

        Raises
        ------
        DecodeFailure, ColourFailure
        """
        directory = self._directory
        codec = directory.codec
        reason = coded_fault(data, codec, directory.segment)
        if reason:
            raise DecodeFailure(reason)
        try:
            decoded = self._decoded(data, codec, number)
        except (MemoryError, DecodeFailure):
            raise  # the tile is not at fault for a MemoryError, because its declared size was checked
        except Exception as error:  # each codec library has its own exceptions
            raise DecodeFailure(str(error) or type(error).__name__) from error
        if decoded is None:
            raise DecodeFailure("the tile is empty")
        pixels: Pixels = np.asarray(decoded)
        if pixels.ndim > 3:  # tifffile puts axes for plane and depth first
            pixels = pixels.reshape(*pixels.shape[-3:])
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        wanted = 1 if directory.planar else directory.samples
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != wanted:
            raise DecodeFailure(f"the tile has samples of {pixels.dtype}, shape {pixels.shape}, not {wanted} of 8 bits")
        return pixels

    def _decoded(self, data: bytes, codec: str, number: int) -> Any:
        directory = self._directory
        if codec == "jpeg" and (directory.planar or directory.samples != 3):
            statement = statement_of(data, codec, directory.jpeg_tables)
            if statement and statement.conflict:
                raise ColourFailure(statement.conflict)
            return self._decode(data, number, jpegtables=directory.jpeg_tables)[0]
        if codec in ("jpeg", "jpeg2000") and not directory.planar:
            return coloured_pixels(data, codec, directory.jpeg_tables, self._rule)
        return self._decode(data, number, jpegtables=directory.jpeg_tables)[0]
