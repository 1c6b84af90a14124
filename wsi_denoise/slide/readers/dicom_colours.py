"""Colour models of a DICOM series: comparison of PhotometricInterpretation with the frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsi_denoise.errors import ContradictoryColours
from wsi_denoise.slide.base import Pixels, Slide, SlideInfo
from wsi_denoise.slide.readers.colours import ColourRule, Sample, Space, Statement, needs_pixels, settle, statement_of
from wsi_denoise.slide.readers.dicom_frames import Instance, read_instance
from wsi_denoise.slide.readers.dicom_reader import DicomSlide
from wsi_denoise.slide.readers.openslide_reader import OpenSlideSlide
from wsi_denoise.slide.readers.tiff_colours import (
    DECODED,
    HEAD_BYTES,
    JUDGED_STEP,
    MAX_JUDGED_PIXELS,
    SAMPLED_BY_TAG,
    spread,
)
from wsi_denoise.slide.readers.tile_decoder import stored_samples

_JPEG_2000_TRANSFORMS = ("YBR_ICT", "YBR_RCT")


def instances(files: Iterable[Path], series: str | None = None) -> list[Instance]:
    """Return the files of slide microscopy in JPEG or JPEG 2000, of one series if it is given.

    Raises
    ------
    OSError
    """
    found = [each for file in files if (each := read_instance(file)) is not None]
    return [each for each in found if series in (None, each.series)]


def rule_of(instance: Instance) -> ColourRule:
    """Compare the PhotometricInterpretation of a file with up to 1,024 of its frames.

    Raises
    ------
    OSError
    """
    tag = Space.YCBCR if instance.photometric in ("YBR_FULL", "YBR_FULL_422") else Space.RGB
    promised = instance.photometric in _JPEG_2000_TRANSFORMS
    if (instance.samples, instance.bits) != (3, 8):
        return ColourRule(tag)
    with instance.file.open("rb") as file:
        numbers = spread(range(len(instance.frames)), SAMPLED_BY_TAG)
        found = {number: _statement(file.fileno(), instance, number) for number in numbers}
        # A frame without a header is reported when it is read.
        statements = {number: statement for number, statement in found.items() if statement is not None}
        judged = {
            number
            for unstated in (True, False)
            for number in spread(
                [
                    each
                    for each, statement in statements.items()
                    if needs_pixels(tag, statement) and (statement.space is None) == unstated
                ],
                DECODED,
            )
        }
        samples = [
            Sample(statement, _stored(file.fileno(), instance, number) if number in judged else None)
            for number, statement in statements.items()
        ]
    name = "the PhotometricInterpretation" + (f" {instance.photometric}" if promised else "")
    return settle(tag, samples, tag_name=name, doubted=promised)


def _statement(descriptor: int, instance: Instance, number: int) -> Statement | None:
    try:
        return statement_of(instance.read(descriptor, number, HEAD_BYTES), instance.codec)
    except ValueError:
        return None


def _stored(descriptor: int, instance: Instance, number: int) -> Pixels | None:
    if instance.tile[0] * instance.tile[1] > MAX_JUDGED_PIXELS:
        return None
    try:
        pixels = stored_samples(instance.read(descriptor, number), instance.codec, None)
    except ValueError:
        return None
    return None if pixels is None else np.ascontiguousarray(pixels[::JUDGED_STEP, ::JUDGED_STEP])


def open_checked(slide: OpenSlideSlide, file: Path, files: Iterable[Path]) -> Slide:
    """Return a DICOM slide with certain colours: OpenSlide's, or one that decodes each frame itself.

    Parameters
    ----------
    slide : OpenSlideSlide
        It is closed if another slide is returned or an error is raised.
    file : Path
        The file that OpenSlide opened.
    files : iterable of Path
        All files of the folder, those of the series included.

    Raises
    ------
    ContradictoryColours
        If the colours are uncertain, or contradictory in a layout that only OpenSlide reads.
    OSError
    """
    series = next((each.series for each in instances([file])), None)
    found = instances(files, series) if series else []
    rules = [(each, rule_of(each)) for each in found]
    main = [(each, rule) for each, rule in rules if each.matrix == slide.info.levels[0]]
    refusal = next((rule.refusal for _, rule in main if rule.refusal), "")
    settled = next(((each, rule) for each, rule in main if rule.contradiction), None)
    if not refusal and settled is None:
        odd = [each.matrix for each, rule in rules if rule.refusal or rule.contradiction]
        slide.distrust(index for index, size in enumerate(slide.info.levels) if index and size in odd)
        return slide
    slide.close()
    if settled is None or refusal:
        raise ContradictoryColours(refusal)
    return _by_frames(slide.info, *settled, alone=len(main) == 1)


def _by_frames(info: SlideInfo, instance: Instance, rule: ColourRule, *, alone: bool) -> DicomSlide:
    """Return a slide whose frames are decoded by the colour rule; `alone` means that level 0 is in one instance.

    Raises
    ------
    ContradictoryColours
        For a layout that only OpenSlide reads.
    """
    if not instance.full or not alone:
        reason = rule.contradiction
        raise ContradictoryColours(f"{reason}; OpenSlide, the only library that reads this layout, follows the former")
    info = replace(
        info,
        levels=info.levels[:1],
        reader="imagecodecs",
        tile=instance.tile if max(instance.tile) <= 4096 else (256, 256),
        notes=(*info.notes, *rule.notes),
    )
    return DicomSlide(info, instance, rule)
