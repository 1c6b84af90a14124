"""Measure presets and baselines by sigma: ``python -m training.evaluate.strengths --preset paper --out FILE``.

The metrics are in :mod:`training.evaluate.table`, the images in :mod:`training.evaluate.split`, and the kinds of noise
in :mod:`training.evaluate.conditions`. Only ``pcam-kaggle/val`` may be used for choices.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from training import command
from training.evaluate import baselines, methods, split, table
from training.evaluate.conditions import CONDITIONS, noisy_images


def classical_methods(patches: Path, sigmas: Sequence[float], count: int = 12) -> dict[str, baselines.Method]:
    """Return the classical baselines, each tuned on the first validation patches."""
    clean = split.SOURCES[split.VALIDATION](patches)[:count]

    def corrupt(images: baselines.Batch, sigma: float) -> baselines.Batch:
        return noisy_images(images, "tuning", "fresh", sigma, 0)

    return {name: baselines.tuned(name, clean, corrupt, sigmas) for name in baselines.GRIDS}


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    options = command.parser(
        "training.evaluate.strengths", __doc__, "preset", "run", "shared", "seeds", "count", "threads", "out"
    )
    options.add_argument("--source", action="append", choices=list(split.SOURCES), help="only these sources")
    options.add_argument("--sigma", type=float, action="append", help="only these sigmas")
    options.add_argument("--protocol", action="append", choices=list(CONDITIONS), help="kinds of noise (fresh)")
    options.add_argument("--classical", action="store_true", help="with non-local means, wavelets, total variation")
    options.add_argument("--bm3d", action="store_true", help="with BM3D and CBM3D (6 seconds an image)")
    options.add_argument("--anchors", action="store_true", help="with the pretrained networks of the shared folder")
    options.add_argument("--method", action="append", help="of the baselines only those whose name begins so")
    return options


def methods_of(given: argparse.Namespace, sigmas: Sequence[float]) -> dict[str, baselines.Method]:
    """Return the methods in the command-line options."""
    others: dict[str, baselines.Method] = {}
    if given.classical:
        others |= classical_methods(given.shared / "data" / "patches", sigmas)
    if given.bm3d:
        others |= baselines.bm3d_methods()
    if given.anchors:
        others |= baselines.anchors(given.shared / "reference")
    wanted = tuple(given.method or [""])
    chosen = {name: method for name, method in others.items() if name.startswith(wanted)}
    return {**methods.named(given.preset, given.run), **chosen}


def main(arguments: list[str] | None = None) -> None:
    """Evaluate for the command-line options."""
    given = command.parsed(parser(), arguments)
    sigmas = tuple(given.sigma or table.SIGMAS)
    started = time.monotonic()
    rows = []
    for row in table.measured(
        methods_of(given, sigmas),
        given.shared / "data" / "patches",
        sources=given.source or tuple(split.SOURCES),
        protocols=given.protocol or ("fresh",),
        sigmas=sigmas,
        seeds=given.seeds,
        count=given.count,
    ):
        print(f"{row.source}, {row.protocol}, sigma {row.sigma:g}, {row.method}: {row.psnr:.2f} dB", flush=True)
        rows.append(row)
    print(table.markdown(rows))
    if given.out:
        table.save(given.out, rows, methods.about(given.preset, started))


if __name__ == "__main__":
    main()
