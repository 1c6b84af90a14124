"""Colour model of encoded tiles, from the file's tag, the stream and the pixels. Pure.

Decoders resolve a contradiction differently: libtiff and OpenSlide follow the tag, libjpeg, tifffile and pydicom the
stream. The results differ by 50 grey levels (**measured**). This module resolves a contradiction once, or rejects the
image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from wsi_denoise.slide.readers.streams import Jpeg2000Header, JpegHeader, jpeg2000_header, jpeg_header

Pixels = npt.NDArray[np.uint8]

#: Share of pixels out of gamut above which stored samples cannot be YCbCr. **Measured** on 1,256 patches of tissue:
#: stored as RGB and read as YCbCr at least 0.126; stored as YCbCr at most 0.000.
NOT_YCBCR = 0.05
#: Share of pixels out of gamut up to which stored samples fit YCbCr.
FITS_YCBCR = 0.005
#: Grey levels beyond 0 and 255 at which a pixel counts as out of gamut; compression noise stays below.
GAMUT_MARGIN = 24
#: Mean difference in grey levels between both interpretations below which pixels do not decide, such as mid grey.
DISTINCT = 8.0
_RGB_IDS = (0x52, 0x47, 0x42)
_SYCC = 18


class Space(StrEnum):
    """Colour model of stored samples."""

    RGB = "RGB"
    YCBCR = "YCbCr"


@dataclass(frozen=True)
class Statement:
    """Colour model that an encoded tile states.

    Parameters
    ----------
    space : Space or None
        None if the stream states no colour model.
    source : str
        The marker that states it.
    conflict : str
        Two contradictory statements of the stream; empty without a contradiction.
    subsampled : bool
        The components have different sampling factors, which is usual for YCbCr only.
    """

    space: Space | None = None
    source: str = ""
    conflict: str = ""
    subsampled: bool = False


def statement_of(data: bytes, codec: str, tables: bytes | None = None) -> Statement | None:
    """Return the colour model that an encoded tile states, or None if it has no header.

    Parameters
    ----------
    data : bytes
        The tile, or its start up to the first scan.
    codec : str
        As in ``tiff_directory.CODECS``; codecs other than JPEG and JPEG 2000 state no colour model.
    tables : bytes, optional
        JPEGTables of the directory; its markers count if the tile has none.
    """
    if codec == "jpeg2000":
        coded = jpeg2000_header(data)
        return jpeg2000_statement(coded) if coded else None
    if codec not in ("jpeg", "old-style jpeg"):
        return Statement()
    header = jpeg_header(data)
    if header is None or not header.components:
        return None
    statement = jpeg_statement(header)
    shared = jpeg_header(tables) if tables and statement.space is None and not statement.conflict else None
    if shared and (shared.jfif or shared.adobe is not None):
        return jpeg_statement(JpegHeader(components=header.components, jfif=shared.jfif, adobe=shared.adobe))
    return statement


def jpeg_statement(header: JpegHeader) -> Statement:
    """Return the colour model of a JPEG's markers, by libjpeg's rules."""
    identifiers = tuple(component[0] for component in header.components)
    if len(identifiers) == 4 and header.adobe is not None:
        kind = "YCCK" if header.adobe == 2 else "CMYK"
        return Statement(conflict=f"its Adobe marker says {kind}")
    if len(identifiers) != 3:
        return Statement()
    found: dict[str, Space] = {}
    if header.jfif:
        found["JFIF marker"] = Space.YCBCR
    if header.adobe in (0, 1):
        found["Adobe marker"] = Space.YCBCR if header.adobe else Space.RGB
    if identifiers == _RGB_IDS:
        found["component naming (R, G, B)"] = Space.RGB
    if len(set(found.values())) > 1:
        return Statement(conflict=", ".join(f"its {name} says {space}" for name, space in found.items()))
    space = next(iter(found.values()), None)
    return Statement(space, next(iter(found), ""), subsampled=header.subsampled)


def jpeg2000_statement(header: Jpeg2000Header) -> Statement:
    """Return the colour model of a JPEG 2000 stream: from a colour box of YCbCr, or the component transform."""
    if header.components not in (3, 4):
        return Statement()
    if header.colour_space == _SYCC and header.transform:
        return Statement(conflict="its colour box says YCbCr, its component transform says RGB")
    if header.colour_space == _SYCC:
        return Statement(Space.YCBCR, "colour box", subsampled=header.subsampled)
    if header.transform:
        return Statement(Space.RGB, "component transform")
    # A colour box of sRGB is ignored: encoders write it without knowing the colour model of the samples.
    return Statement(subsampled=header.subsampled)


def pixel_evidence(stored: Pixels) -> Space | None:
    """Return the only colour model that stored samples fit, or None if they do not decide.

    Parameters
    ----------
    stored : uint8 array, (..., 3)
        Samples as stored, without conversion.
    """
    samples = stored.reshape(-1, 3).astype(np.float32)
    if not len(samples):
        return None
    converted = _converted(samples)
    outside = ((converted < -GAMUT_MARGIN) | (converted > 255 + GAMUT_MARGIN)).any(axis=1).mean()
    if outside > NOT_YCBCR:
        return Space.RGB
    if outside > FITS_YCBCR or np.abs(converted - samples).mean() < DISTINCT:
        return None
    return Space.YCBCR


def ycbcr_to_rgb(stored: Pixels) -> Pixels:
    """Convert full-range YCbCr of ITU-R BT.601 (as in JFIF) to RGB.

    Parameters
    ----------
    stored : uint8 array, (height, width, 3)

    Returns
    -------
    uint8 array, (height, width, 3)
    """
    result: Pixels = np.clip(np.rint(_converted(stored.astype(np.float32))), 0, 255).astype(np.uint8)
    return result


def _converted(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    luma, blue, red = samples[..., 0], samples[..., 1] - 128, samples[..., 2] - 128
    return np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=-1)


@dataclass(frozen=True)
class ColourRule:
    """Colour models by which the tiles of one image are decoded.

    Parameters
    ----------
    tag : Space
        The file's tag. Tiles without a statement are decoded by it.
    unstated : bool
        Accept tiles without a statement.
    stated : frozenset of Space
        Accepted statements of tiles.
    notes : tuple of str
        Contradictions, and how they were resolved.
    refusal : str
        Reason for rejecting the image; empty if it is accepted.
    contradiction : str
        How accepted tiles contradict the tag; empty if none do.
    """

    tag: Space
    unstated: bool = True
    stated: frozenset[Space] = frozenset(Space)
    notes: tuple[str, ...] = ()
    refusal: str = ""
    contradiction: str = ""

    def space_of(self, statement: Statement) -> Space | None:
        """Return the colour model for decoding a tile, or None to reject the tile."""
        if statement.conflict or self.refusal:
            return None
        if statement.space is None:
            return self.tag if self.unstated else None
        return statement.space if statement.space in self.stated else None


@dataclass(frozen=True)
class Sample:
    """Statement of one tile, with its stored samples if they were needed."""

    statement: Statement
    stored: Pixels | None = None


def needs_pixels(tag: Space, statement: Statement) -> bool:
    """Return whether a tile's samples must be examined: it has no statement, or contradicts the tag."""
    return statement.space is not tag


def settle(tag: Space, samples: Iterable[Sample], *, tag_name: str, doubted: bool = False) -> ColourRule:
    """Compare the statements of sampled tiles with the tag and return the rule for all tiles.

    A stream that contradicts the tag is decoded by its own statement, unless its pixels fit the tag only. Tiles without
    a statement are decoded by the tag, unless their pixels fit the other model only.

    Parameters
    ----------
    tag_name : str
        Name of the tag, for messages.
    doubted : bool
        The tag implies a colour transform. For tiles without a statement, the pixels must confirm the tag.
    """
    found = list(samples)
    conflict = next((each.statement.conflict for each in found if each.statement.conflict), "")
    if conflict:
        return _refused(tag, f"{tag_name} says {tag}, the compressed data contradict themselves ({conflict})")
    unstated = [each for each in found if each.statement.space is None]
    against = [each for each in found if each.statement.space not in (None, tag)]
    if unstated:
        doubt = _doubt(tag, unstated, doubted=doubted)
        if doubt:
            return _refused(tag, f"{tag_name} says {tag}, the compressed data state nothing, and {doubt}")
    if not against:
        # Tiles outside the sample may agree with the tag or have no statement; those that contradict it are rejected.
        return ColourRule(tag, stated=frozenset({tag}))
    statement = against[0].statement
    words = f"{tag_name} says {tag}, the {statement.source} of the compressed data says {statement.space}"
    if unstated:
        return _refused(tag, f"{words}, and other tiles state nothing")
    if _evidence(against) is tag:
        return _refused(tag, f"{words}, and the pixels fit {tag} only")
    share = "" if len(against) == len(found) else f" ({len(against)} of {len(found)} sampled tiles)"
    return ColourRule(
        tag,
        unstated=False,
        notes=(f"contradictory colour model: {words}{share}; decoded as {statement.space}",),
        contradiction=words,
    )


def _doubt(tag: Space, unstated: Iterable[Sample], *, doubted: bool) -> str:
    """Return the reason not to decode tiles without a statement by the tag; empty if the tag can be used."""
    found = list(unstated)
    evidence = _evidence(found)
    if evidence not in (None, tag):
        return f"the pixels fit {evidence} only"
    if evidence is None and doubted:
        return "the colour transform that it promises is missing"
    if evidence is None and tag is Space.RGB and any(each.statement.subsampled for each in found):
        return "their components are subsampled as those of YCbCr are"
    return ""


def _refused(tag: Space, reason: str) -> ColourRule:
    return ColourRule(tag, refusal=reason)


def _evidence(samples: Iterable[Sample]) -> Space | None:
    stored = [each.stored.reshape(-1, 3) for each in samples if each.stored is not None and each.stored.size]
    return pixel_evidence(np.concatenate(stored)) if stored else None
