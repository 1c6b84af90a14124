"""How large the halo must be: block-wise output against the whole-image result, in 32-bit arithmetic.

    python tests/bench/stitching.py [--preset paper] [--size 4000 3000] [--image FILE]

Prints, for each halo and window, the greatest difference in grey levels, the share of values that differ at all and by
more than 1, and the seam score of the output relative to the input. The table is in docs/evidence/stitching.md.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from wsi_denoise.network.denoiser import Denoiser
from wsi_denoise.network.plan import FITTED_PIXELS, Plan
from wsi_denoise.processing.block import denoise_region
from wsi_denoise.quality import evidence
from wsi_denoise.slide.geometry import PATCH, Lattice, Region, Span, count, mirror, round_up
from wsi_denoise.slide.windows import cover

WHOLE_HALO = 112
"""Crops the whole-image result exactly; DESIGN's own measurement on the architecture."""


def tissue(width: int, height: int, sigma: float = 15) -> np.ndarray:
    """Return real tissue of a size, (height, width, 3) uint8: the packaged H&E image, mirrored on, with fresh noise."""
    file = Path(str(find_spec("tiatoolbox").origin)).parent / "data" / "target_image.png"  # type: ignore[union-attr]
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB"))
    rows, columns = mirror(0, height, pixels.shape[0]), mirror(0, width, pixels.shape[1])
    clean = pixels[rows[:, None], columns[None, :]]
    noise = np.random.default_rng(7).normal(0, sigma, clean.shape)
    return np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)


def padded(image: np.ndarray, region: Region) -> np.ndarray:
    """Return a region that may reach beyond the image, mirrored."""
    height, width = image.shape[:2]
    rows = mirror(region.y.start, region.y.stop, height)
    columns = mirror(region.x.start, region.x.stop, width)
    return image[rows[:, None], columns[None, :]]


def whole(image: np.ndarray, denoiser: Denoiser) -> np.ndarray:
    """Return the whole-image result: mirror-padded to a multiple of 16 plus halo, run once, cropped."""
    height, width = image.shape[:2]
    area = Region(Span(0, round_up(height, 16)), Span(0, round_up(width, 16))).grown(WHOLE_HALO)
    after = denoiser.denoise(padded(image, area)[None])[0]
    return after[WHOLE_HALO : WHOLE_HALO + height, WHOLE_HALO : WHOLE_HALO + width]


def blockwise(image: np.ndarray, denoiser: Denoiser, halo: int, window: int) -> np.ndarray:
    """Return the output as the block pipeline makes it."""
    height, width = image.shape[:2]
    lattice = Lattice(width, height)
    result = np.empty_like(image)
    for block in lattice.blocks():
        region = lattice.region(block)
        chosen = np.ones((count(len(region.y), PATCH), count(len(region.x), PATCH)), np.bool_)
        covered = cover(region, chosen, (window,), halo, FITTED_PIXELS)
        _, after = denoise_region(padded(image, covered.area), covered, chosen, 1, denoiser)
        result[region.y.start : region.y.stop, region.x.start : region.x.stop] = after
    return result


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--preset", default="paper")
    options.add_argument("--size", type=int, nargs=2, default=(4000, 3000), metavar=("WIDTH", "HEIGHT"))
    options.add_argument("--windows", type=int, nargs="*", default=(4,))
    options.add_argument("--halos", type=int, nargs="*", default=(0, 16, 32, 48, 64, 80, 96, 112))
    chosen = options.parse_args()
    image = tissue(*chosen.size)
    denoiser = Denoiser(chosen.preset, Plan("cpu", "openvino", "fp32", 4, 1), callers=1)
    reference = whole(image, denoiser)
    everything = np.ones((count(image.shape[0], PATCH), count(image.shape[1], PATCH)), np.bool_)
    seam = evidence.measure(image, reference, everything).summary()["seam_patch"]
    print(
        f"{chosen.size[0]} x {chosen.size[1]} px of tissue, sigma 15, preset {chosen.preset}; whole image: {seam:.4f}"
    )
    print(
        "| window | halo | kept of computed | largest difference | values that differ | by more than 1 | seam score |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for window in chosen.windows:
        for halo in chosen.halos:
            after = blockwise(image, denoiser, halo, window)
            error = np.abs(after.astype(np.int16) - reference)
            seam = evidence.measure(image, after, everything).summary()["seam_patch"]
            kept = (window * PATCH / (window * PATCH + 2 * halo)) ** 2
            print(
                f"| {window} | {halo} | {kept:.2f} | {error.max()} | {(error > 0).mean():.2e} |"
                f" {(error > 1).mean():.2e} | {seam:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
