"""How a network behaves where PSNR does not look: ``python -m training.evaluate.behaviour --preset paper --out FILE``.

Checks, each with the number of images that it saw:

``fidelity``
    Sigma 0: PSNR between input and output, and by how much the mean colour moves.
``flat``
    One colour under noise: the noise that is left, the change of the colour, and the size of invented structure
    (:func:`training.evaluate.measures.largest_structure`). At the borders of an image, half of the context is missing.
``lattice``
    Larger images at sigma 25: other offsets on the network's lattice of 16 px, flips and turns, tile sizes. PSNR is
    compared over the same pixels with that of the whole image run once.
``stains``
    Mean optical density of haematoxylin and eosin on clean, noisy and denoised images.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from training import command, pages
from training.evaluate import baselines, measures
from training.evaluate.conditions import noisy_images
from training.evaluate.split import FIELDS, SOURCES, TEST
from wsi_denoise.network import weights

Batch = measures.Batch
Found = dict[str, Any]

STRENGTHS = (10.0, 25.0, 50.0)
FLAT_SIDE = 192
STRUCTURE = 25
"""A connected component of more pixels counts as invented structure."""
COLOURS = (
    *itertools.product((0, 128, 255), repeat=3),
    # Glass, eosin, haematoxylin, brown DAB, fat, pale stroma.
    *((243, 243, 243), (220, 150, 190), (90, 60, 140), (120, 80, 50), (236, 226, 232), (205, 175, 205)),
)
EDGE = 112
"""Pixels from a border within which context matters (docs/evidence/stitching.md)."""


def fidelity(method: baselines.Method, patches: Path, *, count: int) -> Iterator[Found]:
    """Compare output with input on images without noise, for each source."""
    for source in TEST:
        clean = SOURCES[source](patches)[:count]
        out = method(clean, 0.0)
        quality = measures.psnr(out, clean)
        moved = np.abs(out.mean(axis=(1, 2)) - clean.mean(axis=(1, 2)))
        yield {
            "source": source,
            "images": len(clean),
            "psnr": round(float(quality.mean()), 2),
            "psnr_least": round(float(quality.min()), 2),
            "colour_moved": round(float(moved.mean()), 3),
            "colour_moved_most": round(float(moved.max()), 3),
        }


def flat(method: baselines.Method, *, sigmas: tuple[float, ...] = (0.0, 10.0, 25.0, 50.0)) -> Iterator[Found]:
    """Denoise constant colours: as a separate image, and as a part of a larger one, as on a slide."""
    for sigma in sigmas:
        alone = [_one_colour(method, colour, FLAT_SIDE, sigma) for colour in COLOURS]
        whole = [_one_colour(method, colour, FLAT_SIDE + 2 * EDGE, sigma) for colour in COLOURS]
        structures = np.array([measures.largest_structure(image) for image in alone])
        inside = np.array([measures.largest_structure(image[EDGE:-EDGE, EDGE:-EDGE]) for image in whole])
        shift = [np.abs(image.mean(axis=(0, 1)) - colour).max() for image, colour in zip(alone, COLOURS, strict=True)]
        deviations, sizes, _ = structures.T
        yield {
            "sigma": sigma,
            "colours": len(COLOURS),
            "deviation": round(float(np.median(deviations)), 2),
            "deviation_most": round(float(deviations.max()), 2),
            "at_colour": list(COLOURS[int(deviations.argmax())]),
            "colours_under_3": int((deviations < 3.0).sum()),
            "structure_most": int(sizes.max()),
            "inside_deviation_most": round(float(inside[:, 0].max()), 2),
            "inside_structure_most": int(inside[:, 1].max()),
            "inside_structures": int((inside[:, 1] > STRUCTURE).sum()),
            "inside_own_most": int(inside[:, 2].max()),
            "inside_own": int((inside[:, 2] > STRUCTURE).sum()),
            "colour_moved": round(float(np.median(shift)), 2),
            "colour_moved_most": round(float(max(shift)), 2),
        }


def _one_colour(method: baselines.Method, colour: tuple[int, ...], side: int, sigma: float) -> Batch:
    """Return a constant image, (side, side, 3) uint8, after noise and the method."""
    clean = np.full((1, side, side, 3), colour, np.uint8)
    denoised: Batch = method(noisy_images(clean, f"flat {side} {colour}", "fresh", sigma, 0), sigma)[0]
    return denoised


def lattice(method: baselines.Method, patches: Path, *, count: int, sigma: float = 25.0) -> Iterator[Found]:
    """Denoise larger images shifted, rotated and in tiles, and compare the results with those of the whole image."""
    for source, load in FIELDS.items():
        clean = load(patches)[:count]
        noisy = noisy_images(clean, f"{source} field", "fresh", sigma, 0)
        height, width = clean.shape[1:3]
        whole = method(noisy, sigma)
        same = {"source": source, "images": len(clean), "side": height, "sigma": sigma}

        def change(
            out: Batch, region: tuple[slice, slice], clean: Batch = clean, whole: Batch = whole
        ) -> dict[str, float]:
            there = (slice(None), *region)
            difference = measures.psnr(out[there], clean[there]) - measures.psnr(whole[there], clean[there])
            largest = int(np.abs(out[there].astype(int) - whole[there]).max())
            return {"psnr_change": round(float(difference.mean()), 3), "levels_most": largest}

        inner = (slice(EDGE, height - EDGE), slice(EDGE, width - EDGE))
        for down, right in ((16, 16), (1, 0), (0, 1), (5, 11), (8, 8), (15, 3)):
            moved = noisy[:, down : height - 16 + down, right : width - 16 + right]
            out = np.zeros_like(noisy)
            out[:, down : height - 16 + down, right : width - 16 + right] = method(moved, sigma)
            yield {**same, "what": f"shifted by {down}, {right}", **change(out, inner)}
        for turns, mirrored in itertools.product(range(4), (False, True)):
            if not turns and not mirrored:
                continue
            turned = np.rot90(noisy[:, :, ::-1] if mirrored else noisy, turns, axes=(1, 2))
            back = np.rot90(method(np.ascontiguousarray(turned), sigma), -turns, axes=(1, 2))
            back = back[:, :, ::-1] if mirrored else back
            name = f"turned by {90 * turns} degrees{', mirrored' if mirrored else ''}"
            yield {**same, "what": name, **change(back, (slice(None), slice(None)))}
        for side, halo in itertools.product((96, 128, 256, 512), (0, 32)):
            out = tiled(method, noisy, sigma, side=side, halo=halo)
            yield {**same, "what": f"tiles of {side} px, halo {halo} px", **change(out, (slice(None), slice(None)))}
        # No image here is 1024 px wide, so the noisy image is padded with its mirror image.
        beyond = (1024 - height) // 2
        large = np.pad(noisy[:1], ((0, 0), (beyond, beyond), (beyond, beyond), (0, 0)), mode="symmetric")
        out = method(large, sigma)[:, beyond:-beyond, beyond:-beyond]
        yield {
            **same,
            "images": 1,
            "what": "inside a tile of 1024 px",
            **change(out, inner, clean[:1], whole[:1]),
        }


def tiled(method: baselines.Method, noisy: Batch, sigma: float, *, side: int, halo: int) -> Batch:
    """Denoise in square tiles with a halo, which is mirrored at the image's border and cropped from the result."""
    height, width = noisy.shape[1:3]
    steps = -(-height // side), -(-width // side)
    margins = [(halo, steps[0] * side - height + halo), (halo, steps[1] * side - width + halo)]
    padded = np.pad(noisy, ((0, 0), *margins, (0, 0)), mode="symmetric")
    out = np.zeros((len(noisy), steps[0] * side, steps[1] * side, 3), np.uint8)
    for row, column in itertools.product(range(steps[0]), range(steps[1])):
        top, left = row * side, column * side
        window = padded[:, top : top + side + 2 * halo, left : left + side + 2 * halo]
        found = method(np.ascontiguousarray(window), sigma)
        out[:, top : top + side, left : left + side] = found[:, halo : halo + side, halo : halo + side]
    return out[:, :height, :width]


def stains(method: baselines.Method, patches: Path, *, count: int) -> Iterator[Found]:
    """Compare the mean densities of the stains, for each source and strength."""
    # The picture of scikit-image is stained with DAB and has no eosin to compare.
    stained = [source for source in TEST if source != "scikit-image ihc"]
    for source, sigma in itertools.product(stained, STRENGTHS):
        clean = SOURCES[source](patches)[:count]
        noisy = noisy_images(clean, source, "fresh", sigma, 0)
        truth, before, after = (measures.stains(images) for images in (clean, noisy, method(noisy, sigma)))
        of_truth = truth.mean(axis=0)
        row: Found = {"source": source, "images": len(clean), "sigma": sigma}
        for index, stain in enumerate(("haematoxylin", "eosin")):
            row[stain] = round(float(of_truth[index]), 4)
            for name, found in (("noisy", before), ("denoised", after)):
                change = np.abs(found[:, index] - truth[:, index]).mean() / of_truth[index]
                row[f"{stain}_{name}_error"] = round(100.0 * float(change), 2)
        yield row


def main(arguments: list[str] | None = None) -> None:
    """Run the checks of a preset for the command-line options."""
    options = command.parser("training.evaluate.behaviour", __doc__, "shared", "threads")
    options.add_argument("--preset", required=True)
    options.add_argument("--count", type=int, default=100, help="images of each source at most")
    options.add_argument("--fields", type=int, default=3, help="larger images of each source at most")
    options.add_argument("--out", type=Path, required=True, help="JSON to write")
    given = command.parsed(options, arguments)
    method = baselines.network(weights.load(given.preset), batch=2)
    patches = given.shared / "data" / "patches"
    checks = {
        "fidelity": list(fidelity(method, patches, count=given.count)),
        "flat": list(flat(method)),
        "lattice": list(lattice(method, patches, count=given.fields)),
        "stains": list(stains(method, patches, count=min(given.count, 60))),
    }
    content = {"preset": given.preset, "sha256": weights.card(given.preset).sha256, "checks": checks}
    pages.write_json(given.out, content)


if __name__ == "__main__":
    main()
