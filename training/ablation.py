"""Train small variants on the same samples and compare them: ``python -m training.ablation --out runs/ablation``.

Each variant differs from `paper` in one choice, sees the same crops with the same noise (the same seed and number of
steps), and is measured on ``pcam-kaggle/val`` and, for what augmentation is about, on the same patches enlarged as if
from a 40x scan. Nothing is chosen on a test source. The table goes to ``training/tables/ablation.json``.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from training import baselines, data, measures, pages
from training.conditions import noisy_images
from training.sources import SIDE, SOURCES, VALIDATION
from training.train import Configuration, Run

SIGMAS = (10, 25, 50)
ENLARGED = "enlarged"


def variants(steps: int) -> dict[str, tuple[Configuration, bool]]:
    """Return each variant's configuration, and whether it has the project's augmented sources."""
    base = Configuration(steps=steps)
    return {
        "as paper": (base, True),
        "direct output": (dataclasses.replace(base, residual=False), True),
        "no skip at full resolution": (dataclasses.replace(base, full_skip=False), True),
        "PCam alone, as it is": (base, False),
        "mean absolute error to the end": (dataclasses.replace(base, polish=0.0), True),
        "8 filters": (dataclasses.replace(base, filters=8), True),
        "24 filters": (dataclasses.replace(base, filters=24), True),
    }


def enlarged(clean: measures.Batch) -> measures.Batch:
    """Return the middles of images, twice as large and as smooth as a scan of higher power."""
    middle = slice(SIDE // 4, SIDE // 4 + SIDE // 2)
    return np.stack(
        [
            np.asarray(PIL.Image.fromarray(image[middle, middle]).resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC))
            for image in clean
        ]
    )


def measured(network: torch.nn.Module, clean: measures.Batch, name: str) -> dict[str, float]:
    """Return PSNR in dB by sigma."""
    method = baselines.network(network)
    found = {}
    for sigma in SIGMAS:
        noisy = noisy_images(clean, name, "fresh", sigma, 0)
        found[str(sigma)] = round(float(measures.psnr(method(noisy, sigma), clean).mean()), 3)
    return found


def ablate(
    folder: Path,
    shared: Path,
    *,
    steps: int,
    images: int,
    only: list[str] | None = None,
    progress: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """Train and measure the variants; one that was trained before is not trained again.

    Parameters
    ----------
    only : list of str, optional
        Names of variants.
    """
    clean = SOURCES[VALIDATION](shared / "data" / "patches")[:images]
    rows = []
    for name, (configuration, augmented) in variants(steps).items():
        if only and name not in only:
            continue
        sources = data.default_sources(shared) if augmented else data.paper_sources(shared)
        bank = data.Bank(sources, flat=data.FLAT_SHARE if augmented else 0.0)
        run = Run(folder / name.replace(" ", "-").replace(",", ""), configuration, bank)
        run.folder.mkdir(parents=True, exist_ok=True)
        run.train()
        network = run.averaged()
        rows.append(
            {
                "variant": name,
                "steps": run.step,
                "samples": run.samples,
                "minutes": round(run.elapsed / 60.0, 1),
                "psnr": measured(network, clean, VALIDATION),
                ENLARGED: measured(network, enlarged(clean), f"{VALIDATION}, enlarged"),
            }
        )
        progress(f"{rows[-1]}")
    return {"source": VALIDATION, "images": len(clean), "sigmas": list(SIGMAS), "rows": rows}


def main(arguments: list[str] | None = None) -> None:
    """Make the table as the command line says."""
    options = argparse.ArgumentParser(prog="python -m training.ablation", description=__doc__)
    options.add_argument("--out", type=Path, required=True, help="folder of the runs; interrupted ones go on")
    options.add_argument("--shared", type=Path, default=data.shared_folder(), help="folder with data/")
    options.add_argument("--steps", type=int, default=3000, help="of each variant")
    options.add_argument("--images", type=int, default=100, help="validation patches")
    options.add_argument(
        "--only", action="append", choices=list(variants(1)), help="only this variant; may be repeated"
    )
    options.add_argument("--threads", type=int, default=0, help="threads of torch; 0 leaves it to torch")
    options.add_argument("--table", type=Path, default=pages.TABLES / "ablation.json", help="JSON to write")
    given = options.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    found = ablate(
        given.out,
        given.shared,
        steps=given.steps,
        images=given.images,
        only=given.only,
        progress=lambda line: print(line, flush=True),
    )
    pages.write_json(given.table, found)


if __name__ == "__main__":
    main()
