"""Show that a network can learn one noise pattern instead of denoising: ``python -m training.evaluate.leak``.

The paper's script draws one 96 x 96 pattern and corrupts every training and every test image with it, scaled. This
program denoises the same images with that pattern, with the pattern rolled by one pixel, and with fresh noise of the
same strength, by: the preset ``reproduce-paper``, which was trained here as in the paper; the authors' own weights
where the shared folder has them; and ``paper``. It writes a JSON table, a picture and ``docs/evidence/leak.md``.
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
from wsi_denoise.errors import NoSuchPreset
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
    """Return the networks for this experiment whose weights exist."""
    found = {}
    for preset in (REPRODUCED, SHIPPED):
        try:
            found[preset] = baselines.network(weights.load(preset))
        except NoSuchPreset:
            print(f"there is no preset {preset} yet: left out")
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
                rows.append(
                    {
                        "method": name,
                        "noise": kind,
                        "sigma": sigma,
                        "images": len(clean),
                        "psnr": round(float(quality.mean()), 2),
                        "psnr_low": round(low, 2),
                        "psnr_high": round(high, 2),
                    }
                )
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


def page(found: Mapping[str, Any]) -> str:
    """Return ``docs/evidence/leak.md`` from the table."""
    rows: Sequence[Mapping[str, Any]] = found["rows"]
    names = list(dict.fromkeys(row["method"] for row in rows))
    cell = {(row["method"], row["noise"], row["sigma"]): row["psnr"] for row in rows}
    lines = [
        "# The leak: one noise pattern for everything",
        "",
        "The paper's script seeds the random generator again for each strength, so that one pattern of 96 x 96 pixels,",
        "scaled, corrupts every training image and every test image. A network that is trained so has the noise among",
        "its weights: it subtracts a pattern that it knows. On that pattern the authors' weights have the figures of",
        "the paper; on the same images with other noise of the same strength they gain little, and a roll by one pixel",
        "is enough.",
        "",
        "    python -m training.evaluate.leak",
        "",
        f"measures it again and writes this page. {rows[0]['images']} images of `{found['source']}`; PSNR over RGB in",
        f"dB at sigma {' / '.join(f'{sigma:g}' for sigma in STRENGTHS)}.",
        "",
        "| network | " + " | ".join(KINDS) + " |",
        "|---" * (len(KINDS) + 1) + "|",
    ]
    for name in names:
        cells = [" / ".join(f"{cell[name, kind, sigma]:.2f}" for sigma in STRENGTHS) for kind in KINDS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    published = " / ".join(f"{value:.2f}" for value in PUBLISHED.values())
    lines += [
        f"| the paper's own figures, other images | {published} | | |",
        "",
        f"![{', '.join([*names, 'truth'])}; {', '.join(KINDS)}]({pages.IMAGES.name}/leak.webp)",
        "",
        f"From left to right: {', '.join([*names, 'the truth'])}. From above: {', '.join(KINDS)}; sigma {SHOWN:g}.",
        "",
    ]
    if found["trained"]:
        known = found["trained"]
        lines += [
            f"`{REPRODUCED}` is the paper's graph as it stands (direct output, no skip at full resolution), trained",
            f"on the fixed map with PCam patches only: {known['steps']:,} steps, {known['crops']:,} crops,",
            f"{known['minutes']:g} minutes of clock on {known['machine']}. The authors trained for far longer.",
            "",
        ]
    lines += [
        "Such a network must not be used on slides. The card of the preset says so, and the daemon refuses it unless",
        "`model.allow_unsafe` is set.",
        "",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the experiment for the command-line options."""
    options = command.parser("training.evaluate.leak", __doc__, "shared", "threads")
    options.add_argument("--source", choices=list(SOURCES), default="pcam-kaggle/test")
    options.add_argument("--count", type=int, default=50, help="images")
    options.add_argument("--out", type=Path, default=pages.TABLES / "leak.json", help="JSON to write")
    options.add_argument("--docs", type=Path, default=pages.DOCS, help="folder of the page and its picture")
    given = command.parsed(options, arguments)
    clean = SOURCES[given.source](given.shared / "data" / "patches")[: given.count]
    methods = methods_of(given.shared / "reference")
    rows = measured(methods, clean)
    content = {"source": given.source, "trained": _training(), "sha256": _checksums(methods), "rows": rows}
    pages.write_json(given.out, content)
    pages.write_image(given.docs / pages.IMAGES.name / "leak.webp", picture(methods, clean))
    (given.docs / "leak.md").write_text(page(content), "utf-8")
    print(page(content))


def _training() -> dict[str, Any] | None:
    try:
        card = weights.card(REPRODUCED)
    except NoSuchPreset:
        return None
    known = {name: card.training[name] for name in ("steps", "minutes", "machine")}
    return {**known, "crops": card.samples_seen}


def _checksums(methods: Mapping[str, baselines.Method]) -> dict[str, str]:
    return {name: weights.card(name).sha256 for name in (REPRODUCED, SHIPPED) if name in methods}


if __name__ == "__main__":
    main()
