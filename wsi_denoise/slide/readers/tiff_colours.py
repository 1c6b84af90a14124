"""Colour models of a TIFF: comparison of its tags with its tiles, before pixels are used."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsi_denoise.errors import ContradictoryColours
from wsi_denoise.slide.base import Pixels, from_os_error
from wsi_denoise.slide.readers.colours import ColourRule, Sample, Space, Statement, needs_pixels, settle, statement_of
from wsi_denoise.slide.readers.streams import has_end, jpeg_header
from wsi_denoise.slide.readers.tiff_directory import DESCRIPTION, Directory, TiffFacts
from wsi_denoise.slide.readers.tile_decoder import stored_samples

Rules = Mapping[tuple[int, ...], ColourRule]
"""The colour rule of each directory, by its path."""

#: Maximum number of tiles per directory whose headers are read; other tiles are checked when they are decoded.
SAMPLED = 256
#: The same for files that OpenSlide reads, whose tiles are not checked later.
SAMPLED_BY_TAG = 1024
#: Maximum number of tiles that are decoded if the headers do not decide.
DECODED = 9
#: Bytes of a tile that are read for its header.
HEAD_BYTES = 4096
#: Bytes at a tile's end that are searched for its end marker.
TAIL_BYTES = 512
#: Larger tiles are not decoded for a check of their colours, nor read for a check of their end.
MAX_JUDGED_PIXELS = 16_000_000
MAX_JUDGED_BYTES = 64 << 20
#: Step in rows and columns between the pixels of a tile that are used for the check of its colours.
JUDGED_STEP = 4
_APERIO_YCBCR = 33003
_STREAMS = ("jpeg", "old-style jpeg", "jpeg2000")


def tag_space(directory: Directory) -> Space:
    """Return the colour model that a directory's tags state.

    Compression 33003 means YCbCr in files by Aperio. Bio-Formats writes RGB with the same number.
    """
    if directory.photometric == 6:
        return Space.YCBCR
    aperio = directory.compression == _APERIO_YCBCR and directory.text(DESCRIPTION).startswith("Aperio")
    return Space.YCBCR if aperio else Space.RGB


def survey(path: Path, directories: Iterable[Directory], *, most: int | None = None) -> Rules:
    """Compare the tags of directories with up to `most` of their tiles each, 256 by default.

    Raises
    ------
    SlideVanished, SourceUnavailable
    """
    try:
        with path.open("rb") as file:
            return {each.path: _rule(file.fileno(), each, most or SAMPLED) for each in directories}
    except OSError as error:
        raise from_os_error(error, path) from error


def notes_of(rules: Rules, main: Directory) -> tuple[str, ...]:
    """Return the notes about the colours of a slide, without duplicates.

    Raises
    ------
    ContradictoryColours
        If the colours of level 0 are uncertain. A smaller level with uncertain colours is not used.
    """
    if rules[main.path].refusal:
        raise ContradictoryColours(rules[main.path].refusal)
    return tuple(dict.fromkeys(note for rule in rules.values() for note in rule.notes))


def check_by_tag(path: Path, facts: TiffFacts) -> tuple[str, ...]:
    """Check the colours of a TIFF that OpenSlide reads. It follows the tag, but the stream in Hamamatsu's files.

    Returns
    -------
    tuple of str
        Notes about the colours.

    Raises
    ------
    ContradictoryColours
        If the tiles contradict the tag, or their colours are uncertain.
    """
    images = [each for each in facts.directories if each.is_tiled or facts.is_ndpi]
    coloured = [each for each in images if set(each.bits) == {8} and each.samples == 3]
    rules = survey(path, coloured, most=SAMPLED_BY_TAG)
    for rule in rules.values():
        if rule.refusal or (rule.contradiction and not facts.is_ndpi):
            reason = rule.refusal or rule.contradiction
            raise ContradictoryColours(reason + "; OpenSlide, the only library that reads this file, follows the tag")
    return tuple(dict.fromkeys(note for rule in rules.values() for note in rule.notes))


def _rule(file: int, directory: Directory, most: int) -> ColourRule:
    tag = tag_space(directory)
    if directory.codec not in _STREAMS or directory.planar:
        return ColourRule(tag)
    numbers = spread(np.flatnonzero(directory.counts[: len(directory.offsets)]), most)
    found = [(number, _statement(file, directory, number)) for number in numbers]
    # A tile without a header, as in an unfinished copy, is reported when it is read.
    statements = [(number, statement) for number, statement in found if statement is not None]
    judged = {number: _stored(file, directory, number) for number in _doubtful(tag, statements)}
    rule = settle(
        tag,
        [Sample(statement, judged.get(number)) for number, statement in statements],
        tag_name="compression 33003" if directory.photometric != 6 and tag is Space.YCBCR else "the photometric tag",
    )
    if directory.codec == "jpeg" and any(not _ends(file, directory, number) for number in spread(numbers, DECODED)):
        note = "JPEG tiles without end marker: each is checked for missing pixels when it is read"
        return replace(rule, notes=(*rule.notes, note))
    return rule


def _doubtful(tag: Space, statements: Sequence[tuple[int, Statement]]) -> Iterator[int]:
    """Yield the tiles whose pixels are examined: up to `DECODED` with a stated colour model, and as many without."""
    for states in (False, True):
        found = [
            number
            for number, statement in statements
            if (statement.space is not None) is states and needs_pixels(tag, statement)
        ]
        yield from spread(found, DECODED)


def spread(numbers: Sequence[int] | npt.NDArray[np.int64], most: int) -> list[int]:
    """Return up to `most` of the numbers, evenly spread, with the first and the last."""
    found = np.asarray(numbers)
    if len(found) > most:
        found = found[np.linspace(0, len(found) - 1, most).astype(int)]
    return [int(number) for number in found]


def _read(file: int, directory: Directory, number: int, most: int) -> bytes:
    return os.pread(file, min(int(directory.counts[number]), most), int(directory.offsets[number]))


def _statement(file: int, directory: Directory, number: int) -> Statement | None:
    data = _read(file, directory, number, HEAD_BYTES)
    if directory.codec != "jpeg2000":
        header = jpeg_header(data)
        if header and header.scan is None and int(directory.counts[number]) > HEAD_BYTES:
            data = _read(file, directory, number, 1 << 20)  # long markers before the frame, such as a profile
    return statement_of(data, directory.codec, directory.jpeg_tables)


def _stored(file: int, directory: Directory, number: int) -> Pixels | None:
    width, height = directory.segment
    if directory.codec == "old-style jpeg" or directory.samples != 3 or width * height > MAX_JUDGED_PIXELS:
        return None
    data = _read(file, directory, number, MAX_JUDGED_BYTES)
    pixels = stored_samples(data, directory.codec, directory.jpeg_tables)
    return None if pixels is None else np.ascontiguousarray(pixels[::JUDGED_STEP, ::JUDGED_STEP])


def _ends(file: int, directory: Directory, number: int) -> bool:
    count = int(directory.counts[number])
    tail = os.pread(file, min(count, TAIL_BYTES), int(directory.offsets[number]) + max(0, count - TAIL_BYTES))
    if b"\xff\xd9" in tail or count > MAX_JUDGED_BYTES:
        return True
    return has_end(_read(file, directory, number, MAX_JUDGED_BYTES), "jpeg")
