"""Opening of TIFFs: with tifffile if OpenSlide agrees or cannot read the file, else with OpenSlide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wsi_denoise.errors import DecodersDisagree, SlideError, SourceError, UnsupportedSlide, WsiDenoiseError
from wsi_denoise.slide import ome
from wsi_denoise.slide.base import DecodeFailure, Pixels, Slide, SlideInfo, check_size
from wsi_denoise.slide.readers import (
    openslide_reader,
    tiff_check,
    tiff_colours,
    tiff_directory,
    tiff_kind,
    tiff_metadata,
    tiff_reader,
)

#: Maximum mean difference in grey levels between two decoders that agree.
DECODER_TOLERANCE = 1.0
_SPOTS = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
"""Positions at which two decoders are compared, as fractions of the slide."""
#: OpenSlide's vendors whose levels are plain TIFF images without offsets.
_PLAIN_VENDORS = {"aperio", openslide_reader.GENERIC}


def open_tiff(path: Path, max_megapixels: float) -> Slide:
    """Open a TIFF.

    Raises
    ------
    UnsupportedSlide, NotRGB, NotASlide, TruncatedSlide, TooLarge, ContradictoryColours, DecodersDisagree
    """
    facts = tiff_check.check_tiff(path, max_megapixels)
    image = _full_resolution(path, facts)
    tiff_kind.check_rgb(facts, image)
    handle, refusal = _openslide_handle(path, facts)
    if handle is None:
        try:
            return _open_plain_tiff(path, facts)
        except UnsupportedSlide as error:
            raise (UnsupportedSlide(f"{error.detail}; OpenSlide says: {refusal}") if refusal else error) from error
    info, vendor = _info_of(handle, path, facts, image)
    notes = tiff_kind.check_first(facts) if vendor == openslide_reader.GENERIC else ()
    check_size(info, max_megapixels)
    slow = openslide_reader.OpenSlideSlide(handle, info, path)
    levels = tiff_reader.levels_as(facts, info.levels) if vendor in _PLAIN_VENDORS else None
    if ome.is_ome(facts.main.text(tiff_directory.DESCRIPTION)) and not tiff_reader.readable(facts.main):
        # OpenSlide reads only level 0 of an OME-TIFF, and not its XML.
        levels = tiff_reader.levels_of(facts)
        info = tiff_reader.info_from(facts, path, levels)
    if levels is None or any((level.counts == 0).any() for level in levels):
        # OpenSlide knows the meaning of omitted tiles for each vendor.
        return _by_openslide(slow, facts)
    info = replace(info, reader="tifffile", notes=(*info.notes, *notes))
    fast, contradictory = _by_tifffile(info, levels)
    # No comparison is possible if the tag is wrong, because OpenSlide follows it, or if a fourth sample is not alpha,
    # because OpenSlide treats it as alpha.
    if not contradictory and facts.main.extra_sample != 0 and not agree(fast, slow):
        fast.close()
        return _by_openslide(slow, facts)
    slow.close()
    return fast


def _openslide_handle(path: Path, facts: tiff_directory.TiffFacts) -> tuple[Any, str]:
    """Return OpenSlide's handle and "", or None and OpenSlide's reason for a file that is read without OpenSlide.

    Raises
    ------
    UnsupportedSlide
        For a scanner's own format that OpenSlide cannot open.
    """
    try:
        return openslide_reader.open_handle(path), ""
    except DecodeFailure as failure:
        vendor = openslide_reader.vendor(path)
        if vendor not in _PLAIN_VENDORS:
            # Tiles of these formats overlap or belong to several images; a plain TIFF reader would misplace them.
            raise UnsupportedSlide(tiff_kind.vendor_refusal(vendor, facts, failure.reason)) from failure
        return None, failure.reason


def _info_of(
    handle: Any, path: Path, facts: tiff_directory.TiffFacts, image: tiff_directory.Directory
) -> tuple[SlideInfo, str | None]:
    """Return the facts of a slide from OpenSlide and the TIFF's tags, and OpenSlide's vendor.

    Raises
    ------
    UnsupportedSlide
    """
    try:
        info = openslide_reader.info_from(handle, path)
        vendor = handle.properties.get("openslide.vendor")
    except DecodeFailure as failure:
        raise UnsupportedSlide(failure.reason) from failure
    info = replace(info, compression=image.codec, icc_profile=info.icc_profile or image.icc_profile)
    if vendor == openslide_reader.GENERIC or (vendor == "aperio" and info.mpp is None):
        # OpenSlide reads neither OME-XML nor ImageJ's text, and no unit after Aperio's MPP.
        info = tiff_metadata.described(info, facts.main, path)
    return info, vendor


def _full_resolution(path: Path, facts: tiff_directory.TiffFacts) -> tiff_directory.Directory:
    """Return the first image of a TIFF, or the largest in scanners' formats, where a label may be first."""
    if facts.largest is facts.main or openslide_reader.vendor(path) in (None, *_PLAIN_VENDORS):
        return facts.main
    return facts.largest


def _by_tifffile(info: SlideInfo, levels: list[tiff_directory.Directory]) -> tuple[Slide, bool]:
    """Return a slide read with tifffile, and whether its tags contradict its tiles."""
    rules = tiff_colours.survey(info.path, levels)
    notes = tiff_colours.notes_of(rules, levels[0])
    tile = levels[0].segment
    info = replace(info, tile=tile if max(tile) <= 4096 else (256, 256), notes=(*info.notes, *notes))
    return tiff_reader.TiffSlide(info, levels, rules), bool(rules[levels[0].path].contradiction)


def _by_openslide(slide: Slide, facts: tiff_directory.TiffFacts) -> Slide:
    """Return a TIFF read with OpenSlide after a check of its colours."""
    try:
        notes = tiff_colours.check_by_tag(slide.info.path, facts)
    except WsiDenoiseError:
        slide.close()
        raise
    slide.info = replace(slide.info, notes=(*slide.info.notes, *notes))
    return slide


def _open_plain_tiff(path: Path, facts: tiff_directory.TiffFacts) -> Slide:
    """Open a TIFF that OpenSlide cannot read, such as one with strips."""
    if facts.is_ndpi:
        raise UnsupportedSlide("it is a Hamamatsu NDPI, and OpenSlide does not recognise it")
    reason = tiff_reader.readable(facts.main)
    if reason:
        raise UnsupportedSlide(reason)
    notes = tiff_kind.check_first(facts)
    levels = tiff_reader.levels_of(facts)
    info = tiff_reader.info_from(facts, path, levels)
    slide, _ = _by_tifffile(replace(info, notes=(*info.notes, *notes)), levels)
    return slide


def agree(fast: Slide, slow: Slide) -> bool:
    """Compare two readers of one file on five spots and return whether the faster one can be used.

    Raises
    ------
    DecodersDisagree
        If both decode a spot with different results.
    """
    width, height = min(256, slow.info.width), min(256, slow.info.height)
    usable = True
    for share_x, share_y in _SPOTS:
        region = (int((slow.info.width - width) * share_x), int((slow.info.height - height) * share_y), width, height)
        results: list[Pixels | None] = []
        for slide in (fast, slow):
            try:
                results.append(slide.read(*region))
            except SourceError:
                raise
            except SlideError:
                results.append(None)
        if results[0] is None or results[1] is None:
            # If both fail, the tile is damaged. If only the faster one fails, the other one is used.
            usable = usable and results[1] is None
            continue
        difference = float(np.abs(results[0].astype(np.int16) - results[1]).mean())
        if difference > DECODER_TOLERANCE:
            raise DecodersDisagree(
                f"tifffile and OpenSlide differ by {difference:.1f} grey levels at x {region[0]}, y {region[1]}"
            )
    return usable
