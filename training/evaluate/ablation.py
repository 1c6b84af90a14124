"""Train networks on the same samples and compare them: ``python -m training.evaluate.ablation --out runs/ablation``.

Four experiments (``--experiment``): ``ablation``, variants that differ from `paper` in one choice; ``capacity``, the
same network with more filters; ``comparators``, networks of other authors (:mod:`training.run.comparators`); ``seeds``,
the difference between a run and its repetition. All variants of an experiment have the same crops with the same noise
(seed, steps and batches), except for those that vary crops or seed. The table states the number of samples. All are
measured on ``pcam-kaggle/val``, and on the same patches enlarged as if from a 40x scan. The table goes to
``training/tables/EXPERIMENT.json``. Existing runs are not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from training import command, pages
from training.data import photographs, sources
from training.data.bank import Bank
from training.evaluate import baselines, costs, measures, table
from training.evaluate.conditions import noisy_images
from training.evaluate.split import COMPARED, MANY, SIDE, SOURCES, VALIDATION
from training.run import checkpoint
from training.run.configuration import Configuration
from training.run.train import CHECKPOINT, Run, network_of
from wsi_denoise.network import processor
from wsi_denoise.network.irunet import IRUNet

SIGMAS = (10, 25, 50)
ENLARGED = "enlarged"

Variants = dict[str, tuple[Configuration, bool]]
"""Each variant's configuration, and whether it has the project's augmented sources."""


BASE = Configuration(flat=0.2, polish=0.9)
"""The configuration of an earlier `paper`, trained on a CPU, except for the number of steps."""


def variants(base: Configuration) -> Variants:
    """Return configurations that differ from `paper` in one choice."""
    return {
        "as paper": (base, True),
        "AdamW instead of SOAP": (dataclasses.replace(base, optimizer="adamw", rate=2e-3), True),
        "direct output": (dataclasses.replace(base, residual=False), True),
        "no skip at full resolution": (dataclasses.replace(base, full_skip=False), True),
        "PCam alone, as it is": (base, False),
        "mean absolute error to the end": (dataclasses.replace(base, polish=0.0), True),
        "8 filters": (dataclasses.replace(base, filters=8), True),
        "24 filters": (dataclasses.replace(base, filters=24), True),
    }


def capacities(base: Configuration) -> Variants:
    """Return the network with 16 to 64 filters."""
    return {f"{n} filters": (dataclasses.replace(base, filters=n), True) for n in (16, 24, 32, 48, 64)}


def comparators(base: Configuration) -> Variants:
    """Return the networks of other authors, and IRUNet with the filters of `paper`."""
    names = {"DnCNN, blind": "dncnn", "Residual MID": "residual-mid", "DRAN": "dran"}
    others = {title: (dataclasses.replace(base, architecture=name), True) for title, name in names.items()}
    return {"as paper": (base, True), **others}


def seeds(base: Configuration) -> Variants:
    """Return runs that differ only randomly: in rounding, as on another machine, or in all random draws."""
    first, *others = [dataclasses.replace(base, seed=seed) for seed in (1, 2, 3)]
    rounded = dataclasses.replace(first, bf16=not first.bf16)
    named = {f"seed {one.seed}": (one, True) for one in others}
    return {"seed 1": (first, True), "seed 1, rounded otherwise": (rounded, True), **named}


EXPERIMENTS: Mapping[str, Callable[[Configuration], Variants]] = {
    "ablation": variants,
    "capacity": capacities,
    "comparators": comparators,
    "seeds": seeds,
}


def enlarged(clean: measures.Batch) -> measures.Batch:
    """Return the centres of images, enlarged twice, as smooth as a scan of higher power."""
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


def place_of(folder: Path, name: str) -> Path:
    """Return the folder of a variant's run."""
    return folder / name.replace(" ", "-").replace(",", "")


def trained(folder: Path, wanted: Variants) -> dict[str, baselines.Method]:
    """Return the trained variants as methods, named with the number of their crops."""
    methods = {}
    for name, (configuration, _) in wanted.items():
        tensors, state = checkpoint.averaged_weights(place_of(folder, name) / CHECKPOINT)
        network = network_of(configuration)
        network.load_state_dict(tensors)
        methods[f"{name}: trained here, {state['samples']:,} crops"] = baselines.network(network, batch=4)
    return methods


def compare(wanted: Variants, folder: Path, shared: Path, *, images: int) -> dict[str, Any]:
    """Train and measure the variants (:data:`EXPERIMENTS`) by name. Existing runs are not repeated."""
    clean = SOURCES[VALIDATION](shared / "data" / "patches")[:images]
    rows = []
    for name, (configuration, augmented) in wanted.items():
        if augmented:
            trained_on = sources.default_sources(shared) + photographs.sources_in(configuration.photographs)
        else:
            trained_on = sources.paper_sources(shared)
        bank = Bank(trained_on, flat=configuration.flat if augmented else 0.0)
        run = Run(place_of(folder, name), configuration, bank)
        run.folder.mkdir(parents=True, exist_ok=True)
        run.train()
        network = run.averaged()
        row = {
            "variant": name,
            "steps": run.step,
            "samples": run.samples,
            "minutes": round(run.elapsed / 60.0, 1),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "kmac": round(costs.kmac(network), 1),
            **({"mpix_per_second": round(costs.speed(network)[0], 2)} if isinstance(network, IRUNet) else {}),
            "psnr": measured(network, clean, VALIDATION),
            ENLARGED: measured(network, enlarged(clean), f"{VALIDATION}, enlarged"),
        }
        rows.append(row)
        print(row, flush=True)
    about = {"source": VALIDATION, "images": len(clean), "sigmas": list(SIGMAS)}
    return {**about, "rows": rows, "machine": processor.here().name}


def main(arguments: list[str] | None = None) -> None:
    """Make the table for the command-line options."""
    options = command.parser("training.evaluate.ablation", __doc__, "shared", "threads")
    options.add_argument("--experiment", choices=list(EXPERIMENTS), default="ablation")
    options.add_argument("--out", type=Path, required=True, help="folder of the runs; interrupted ones continue")
    options.add_argument("--steps", type=int, default=3000, help="of each variant")
    options.add_argument("--pixels", type=int, default=BASE.pixels, help="of a batch, in units of 1024")
    options.add_argument("--images", type=int, default=100, help="validation patches")
    options.add_argument("--only", action="append", help="only this variant, by its name in the table; may be repeated")
    options.add_argument("--photographs", default="", help="folder of training.data.photographs")
    options.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, default=BASE.bf16, help="as training.run.train"
    )
    options.add_argument("--table", type=Path, help="JSON to write")
    given = command.parsed(options, arguments)
    same = {name: getattr(given, name) for name in ("steps", "pixels", "bf16", "photographs")}
    base = dataclasses.replace(BASE, **same)
    wanted = EXPERIMENTS[given.experiment](base)
    chosen = {name: variant for name, variant in wanted.items() if name in (given.only or wanted)}
    found = compare(chosen, given.out, given.shared, images=given.images)
    place = given.table or pages.TABLES / f"{given.experiment}.json"
    pages.write_json(place, found)
    if given.experiment == "comparators":
        # On the same pixels as the other methods, which training.publish.evidence measures.
        methods = trained(given.out, wanted)
        patches = given.shared / "data" / "patches"
        rows = table.measured(methods, patches, sources=COMPARED, sigmas=SIGMAS, seeds=1, count=MANY)
        table.save(place.with_name(f"{place.stem}-compared.json"), list(rows), {})


if __name__ == "__main__":
    main()
