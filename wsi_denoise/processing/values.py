"""Values that the daemon and its workers exchange: paths, coordinates and plain values. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_denoise.errors import WsiDenoiseError
from wsi_denoise.network.plan import Plan
from wsi_denoise.quality.triage import Triage
from wsi_denoise.slide.base import SlideInfo, SourceFile
from wsi_denoise.slide.encoding import Encoding
from wsi_denoise.slide.geometry import BlockIndex, Lattice

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SlideWork:
    """The values that all blocks of a slide share.

    Parameters
    ----------
    width, height : int
        Size of level 0, or of the region, in pixels.
    offset : (int, int)
        (x, y) of the region's origin on the slide; (0, 0) for a whole slide.
    preset : str or None
        The preset that the network runs with; None keeps every pixel.
    halo : int
        Pixels, a multiple of 16.
    background : str
        Treatment of patches without tissue: ``keep``, ``denoise`` or ``flatten``.
    glass : (int, int, int)
        RGB of flattened patches.
    spool : Path
        Folder of the finished blocks.
    max_megapixels : float
        Limit when the slide is opened.
    model_sha256, version : str
        SHA-256 of the weights, and version of the program that made the plan. Every worker must have the same.
    files : tuple of SourceFile
        Files that must not change while blocks are read.
    overview : bool
        Whether the blocks also store the source at level 2, for the overview of a slide without smaller levels.
    """

    path: Path
    width: int
    height: int
    offset: tuple[int, int]
    preset: str | None
    plan: Plan
    halo: int
    background: str
    glass: tuple[int, int, int]
    encoding: Encoding
    spool: Path
    max_megapixels: float
    model_sha256: str
    version: str
    files: tuple[SourceFile, ...] = ()
    overview: bool = False

    @property
    def lattice(self) -> Lattice:
        """Patches and blocks of the slide, or of the region."""
        return Lattice(self.width, self.height)


@dataclass(frozen=True)
class BlockReport:
    """Report of a finished block: coordinates and times, without pixels.

    Parameters
    ----------
    pixels, tissue_pixels : int
        Pixels of level 0 in the block, and in its patches that went through the network.
    spooled : int
        Bytes of the block's file.
    seconds : dict of str to float
        Wall-clock time of ``read``, ``network``, ``measure`` and ``encode``.
    """

    block: BlockIndex
    pixels: int
    tissue_pixels: int
    spooled: int
    seconds: dict[str, float]


class BlockLost(WsiDenoiseError):
    """A spooled block is missing or damaged and must be processed again. Never reaches a user."""

    code = "block_lost"
    happened = "A finished block cannot be read back"
    advice = "It is done again automatically."
    retry = True

    def __init__(self, row: int, column: int) -> None:
        super().__init__(f"row {row}, column {column}")
        self.args = (row, column)
        self.block = BlockIndex(row, column)


@dataclass(frozen=True)
class SlidePlan:
    """The plan of a slide.

    Parameters
    ----------
    tissue : ndarray of bool
        (rows, columns) of patches.
    description : str
        ImageDescription of the output.
    facts : dict
        Provenance as plain values, for the job database.
    thumbnail : bytes or None
        JPEG of the image in which the tissue was found, for the dashboard; None for a region.
    """

    work: SlideWork
    info: SlideInfo
    tissue: Mask
    tissue_note: str
    description: str
    facts: dict[str, Any]
    triage: Triage
    thumbnail: bytes | None = None

    @property
    def model_sha256(self) -> str:
        """Checksum of the preset that the job asks for: the weights, or those of all candidates for ``auto``."""
        checksum: str = self.facts["model_sha256"]
        return checksum


def facts_of(info: SlideInfo) -> dict[str, Any]:
    """Return the stored values of a slide: the allow-list of :class:`SlideInfo`, as plain values."""
    plain = {
        "levels": [list(size) for size in info.levels],
        "objective_power": info.objective_power,
        "vendor": info.vendor,
        "model": info.model,
        "serial_hash": info.serial_hash,
        "scan_week": info.scan_week,
        "compression": info.compression,
        "reader": info.reader,
        "icc_profile": info.icc_profile is not None,
        "notes": list(info.notes),
    }
    return {key: value for key, value in plain.items() if value not in (None, [], "")}
