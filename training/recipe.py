"""Train a shipped preset again as its card says: ``make train``, or ``python -m training.recipe paper --out runs``.

A card holds everything that decides a run, the number of steps instead of the minutes that were given to it. A preset
that started from another's weights did so from the first `paper`, which is trained before it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training import data, manifest, train
from wsi_denoise.network import weights

FIRST = ["--steps", "7701", "--seed", "1"]
"""The first `paper`, from random weights."""


def options_of(card: weights.ModelCard, initial: Path) -> list[str]:
    """Return the options of :mod:`training.train` that a card stands for.

    Parameters
    ----------
    initial : Path
        Checkpoint to start from where the card says that the run started from a preset.
    """
    known = card.training
    options = ["--filters", str(card.filters), "--protocol", card.protocol]
    for name in ("steps", "seed", "rate", "polish", "decay", "pixels", "flat"):
        if name in known:
            options += [f"--{name}", str(known[name])]
    switches = {"residual": card.residual, "full-skip": card.full_skip, "bf16": known["bf16"]}
    options += [f"--{'' if on else 'no-'}{name}" for name, on in switches.items()]
    return [*options, "--initial", str(initial)] if known.get("initial") else options


def runs_of(preset: str, folder: Path) -> list[tuple[Path, list[str]]]:
    """Return the runs that make a preset, in order: the folder and the options of each."""
    card = weights.card(preset)
    first = folder / "paper-first"
    last = (folder / preset, options_of(card, first / train.CHECKPOINT))
    return [(first, FIRST), last] if card.training.get("initial") else [last]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says."""
    options = argparse.ArgumentParser(prog="python -m training.recipe", description=__doc__)
    options.add_argument("preset", help="a preset that ships")
    options.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs; interrupted ones go on")
    options.add_argument("--shared", type=Path, default=data.shared_folder(), help="folder with data/")
    options.add_argument("--threads", type=int, default=0, help="threads of torch; 0 leaves it to torch")
    options.add_argument("--show", action="store_true", help="print the commands and do nothing")
    given = options.parse_args(arguments)
    wrong = [] if given.show else manifest.differences(given.shared)
    for line in wrong:
        print(line, file=sys.stderr)
    if wrong:
        return 1
    for folder, what in runs_of(given.preset, given.out):
        whole = ["--out", str(folder), "--shared", str(given.shared), "--threads", str(given.threads), *what]
        print("python -m training.train", *whole, flush=True)
        if not given.show:
            train.main(whole)
    print(f"python -m training.export {given.out / given.preset} --name {given.preset}    # makes it the preset")
    return 0


if __name__ == "__main__":
    sys.exit(main())
