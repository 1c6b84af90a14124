"""Show that a network can learn one noise pattern instead of denoising: ``python -m training.evaluate.leak``.

The paper's script draws one 96 x 96 pattern and corrupts every training and every test image with it, scaled. This
program denoises the same images with that pattern, with the pattern rolled by one pixel, and with fresh noise of the
same strength, by: the preset ``reproduce-paper``, which was trained here as in the paper; the authors' own weights
where the shared folder has them; and ``paper``. It writes a JSON table and a picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training import command, pages
from training.evaluate import baselines, measures
from training.evaluate.conditions import noisy_images
from training.evaluate.measures import Batch
from training.evaluate.split import SOURCES
from training.noise import corruption
from wsi_denoise.network import weights

STRENGTHS = (10.0, 25.0, 50.0)
SHOWN = 25.0
"""Sigma of the picture."""
REPRODUCED, SHIPPED = "reproduce-paper", "paper"
PUBLISHED = {10.0: 42.20, 25.0: 39.64, 50.0: 33.31}
"""PSNR in dB of the paper's network, as published."""
KINDS = ("the paper's pattern", "rolled by a pixel", "fresh noise")


def noisy_kinds(clean: Batch, sigma: float) -> dict[str, Batch]:
    """Return the images with the three kinds of noise."""
    rolled = np.roll(corruption.fixed_pattern(), 1, axis=(0, 1))
    return {
        KINDS[0]: noisy_images(clean, "leak", "fixed-map", sigma, 0),
        KINDS[1]: np.asarray(np.clip(clean + sigma * rolled, 0, 255), np.uint8),
        KINDS[2]: noisy_images(clean, "leak", "fresh", sigma, 0),
    }


def methods_of(reference: Path) -> dict[str, baselines.Method]:
    """Return the networks for this experiment; the authors' own only where the folder has them."""
    found = {preset: baselines.network(weights.load(preset)) for preset in (REPRODUCED, SHIPPED)}
    authors = {name: method for name, method in baselines.anchors(reference).items() if name.startswith("authors")}
    return {"noisy input": lambda noisy, _sigma: noisy, **authors, **found}


def measured(methods: Mapping[str, baselines.Method], clean: Batch) -> list[dict[str, Any]]:
    """Measure each method on each kind of noise at each strength."""
    rows = []
    for sigma in STRENGTHS:
        for kind, noisy in noisy_kinds(clean, sigma).items():
            for name, method in methods.items():
                quality = measures.psnr(method(noisy, sigma), clean)
                low, high = measures.interval(quality)
                row = {"method": name, "noise": kind, "sigma": sigma, "images": len(clean)}
                figures = {"psnr": float(quality.mean()), "psnr_low": low, "psnr_high": high}
                rows.append({**row, **{key: round(value, 2) for key, value in figures.items()}})
    return rows


def picture(methods: Mapping[str, baselines.Method], clean: Batch) -> Batch:
    """Return a picture of one image's crops: a row per kind of noise, a column per method, and the truth last."""
    # An image that is brighter than three quarters of all has both glass and nuclei.
    brightness = clean.mean(axis=(1, 2, 3))
    chosen = int(np.argsort(brightness)[3 * len(brightness) // 4])
    lines = []
    for noisy in noisy_kinds(clean[chosen : chosen + 1], SHOWN).values():
        shown = [method(noisy, SHOWN)[0] for method in methods.values()] + [clean[chosen]]
        lines.append([image[16:80, 16:80] for image in shown])
    return pages.grid(lines, enlarge=3)


def markdown(found: Mapping[str, Any]) -> str:
    """Return the table, the picture and the facts about the trained network, for ``docs/evidence/leak.md``."""
    rows: Sequence[Mapping[str, Any]] = found["rows"]
    names = list(dict.fromkeys(row["method"] for row in rows))
    psnr = {(row["method"], row["noise"], row["sigma"]): row["psnr"] for row in rows}
    lines = [
        [name, *(" / ".join(f"{psnr[name, kind, sigma]:.2f}" for sigma in STRENGTHS) for kind in KINDS)]
        for name in names
    ]
    lines.append(
        ["the paper's own figures, other images", " / ".join(f"{value:.2f}" for value in PUBLISHED.values()), "", ""]
    )
    sigmas = " / ".join(f"{sigma:g}" for sigma in STRENGTHS)
    across, down, known = ", ".join([*names, "truth"]), ", ".join(KINDS), found["trained"]
    return f"""{rows[0]["images"]} images of `{found["source"]}`; PSNR over RGB in dB at sigma {sigmas}.

{pages.table(["network", *KINDS], lines)}

![{across}; {down}]({pages.IMAGES.name}/leak.webp)

From left to right: {across}. From above: {down}; sigma {SHOWN:g}.

`{REPRODUCED}` was trained for {known["steps"]:,} steps, {known["crops"]:,} crops, {known["minutes"]:g} minutes on
{known["machine"]}."""


def main(arguments: list[str] | None = None) -> None:
    """Run the experiment for the command-line options."""
    options = command.parser("training.evaluate.leak", __doc__, "shared", "threads")
    options.add_argument("--source", choices=list(SOURCES), default="pcam-kaggle/test")
    options.add_argument("--count", type=int, default=50, help="images")
    options.add_argument("--out", type=Path, default=pages.TABLES / "leak.json", help="JSON to write")
    options.add_argument("--images", type=Path, default=pages.IMAGES, help="folder of the picture")
    given = command.parsed(options, arguments)
    clean = SOURCES[given.source](given.shared / "data" / "patches")[: given.count]
    methods = methods_of(given.shared / "reference")
    card = weights.card(REPRODUCED)
    trained = {name: card.training[name] for name in ("steps", "minutes", "machine")} | {"crops": card.samples_seen}
    checksums = {name: weights.card(name).sha256 for name in (REPRODUCED, SHIPPED)}
    content = {"source": given.source, "trained": trained, "sha256": checksums, "rows": measured(methods, clean)}
    pages.write_json(given.out, content)
    pages.write_image(given.images / "leak.webp", picture(methods, clean))
    print(markdown(content))


if __name__ == "__main__":
    main()
