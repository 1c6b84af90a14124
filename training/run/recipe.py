"""Train a shipped preset again as its card says: ``make train``, or ``python -m training.run.recipe paper --out runs``.

A card has the options of its run and of each run that its initial weights came from. Images and loss are those of this
version; the program reports sources that differ. Photographs are downloaded where a run had them.
At the end the new weights are compared with the shipped ones on the validation patches.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training import command
from training.data import manifest, photographs, sources
from training.run import checkpoint, lineage, train
from training.run.validation import validation_check
from wsi_denoise.network import weights
from wsi_denoise.network.irunet import IRUNet

NAMES = ("steps", "seed", "rate", "polish", "decay", "pixels", "flat", "every", "texture", "schedule")


def stages_of(card: weights.ModelCard) -> list[Mapping[str, Any]]:
    """Return the runs of a card in order: those before its own, and its own."""
    return [*card.training.get("before", []), card.training]


def options_of(stage: Mapping[str, Any], card: weights.ModelCard, pictures: Path) -> list[str]:
    """Return the options of :mod:`training.run.train` for one of :func:`stages_of`, except for its initial weights."""
    filters, protocol = stage.get("filters", card.filters), stage.get("protocol", card.protocol)
    options = ["--filters", str(filters), "--protocol", protocol]
    for name in NAMES:
        if name in stage:
            options += [f"--{name}", str(stage[name])]
    options += ["--optimizer", stage.get("optimizer", "adamw")]
    switches = {"residual": card.residual, "full-skip": card.full_skip, "bf16": stage["bf16"]}
    options += [f"--{'' if on else 'no-'}{name}" for name, on in switches.items()]
    return [*options, "--photographs", str(pictures)] if stage.get("photographs") else options


def runs_of(card: weights.ModelCard, folder: Path) -> list[tuple[Path, list[str]]]:
    """Return the runs that make a preset in order: folder and options of each."""
    runs: list[tuple[Path, list[str]]] = []
    stages = stages_of(card)
    for number, stage in enumerate(stages, 1):
        options = options_of(stage, card, folder / "photographs")
        if runs:
            options += ["--initial", str(runs[-1][0] / train.CHECKPOINT)]
        runs.append((folder / (card.name if number == len(stages) else f"{card.name}-{number}"), options))
    return runs


def compared(card: weights.ModelCard, run: Path, shared: Path) -> list[str]:
    """Return lines that compare a run's averaged weights with the shipped ones, on the validation patches."""
    tensors, _ = checkpoint.averaged_weights(run / train.CHECKPOINT)
    made = IRUNet(card.filters, residual=card.residual, full_skip=card.full_skip).eval()
    made.load_state_dict(tensors)
    check = validation_check(shared, compressed=card.protocol in {"scanner", "camera"})
    shipped, now = check(weights.load(card.name)), check(made)
    return [f"{name}: {now[name]:.2f} dB, as shipped {shipped[name]:.2f}" for name in shipped]


def other_images(card: weights.ModelCard) -> list[str]:
    """Return a line for each present source that the card's last run did not have, and vice versa."""
    known = manifest.known()
    today = {
        (source["name"], source["sha256"])
        for source in (*known["sources"], known["photographs"])
        if (source["name"] == sources.PAPERS) == (card.protocol == "fixed-map")
    }
    seen = {(source.name, source.sha256) for source in card.trained_on if source.sha256}
    return [
        *(f"{name}: {card.name} saw other files under this name, or none" for name, _ in sorted(today - seen)),
        *(f"{name}: not as {card.name} saw it" for name, _ in sorted(seen - today)),
    ]


def traced(stage: Mapping[str, Any], run: Path) -> list[str]:
    """Return a line for each step with stored checksums of both runs, which says whether the weights are equal.

    Notes
    -----
    With another machine, version of torch or number of threads, rounding differs. The weights then differ from the
    first steps on, and only their quality can be compared.
    """
    known, made = stage.get("trace", {}), lineage.traced(run)
    return [
        f"{run.name}, step {step}: {'the same weights as shipped' if made[step] == known[step] else 'other weights'}"
        for step in made
        if step in known
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train for the command-line options."""
    options = command.parser("training.run.recipe", __doc__, "shared")
    options.add_argument("preset", help="a preset that ships")
    options.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs; interrupted ones continue")
    options.add_argument("--threads", type=int, default=0, help="threads of torch; 0: those of the card")
    options.add_argument("--workers", type=int, default=0, help="as training.run.train: a GPU waits without them")
    options.add_argument("--until", type=int, default=0, help="stop after this step of the first run")
    options.add_argument("--show", action="store_true", help="print the commands and do nothing")
    given = options.parse_args(arguments)
    card = weights.card(given.preset)
    wrong = [] if given.show else manifest.differences(given.shared)
    other = [f"the result differs from the shipped preset: {line}" for line in other_images(card)]
    for line in wrong or other:
        print(line, file=sys.stderr)
    if wrong:
        return 1
    common = ["--shared", str(given.shared), "--threads", str(given.threads or card.training.get("threads", 0))]
    common += ["--workers", str(given.workers)]
    runs = [(folder, ["--out", str(folder), *common, *own]) for folder, own in runs_of(card, given.out)]
    if given.until:
        # The next run continues from the end of this one.
        runs = [(folder, [*whole, "--until", str(given.until)]) for folder, whole in runs[:1]]
    for _, whole in runs:
        print("python -m training.run.train", *whole, flush=True)
    if not given.show:
        _train(card, runs, given.out)
    if not given.show and not given.until:
        print(*compared(card, given.out / given.preset, given.shared), sep="\n")
        name = given.preset
        print(f"python -m training.publish.export {given.out / name} --name {name}    # makes it the preset")
    return 0


def _train(card: weights.ModelCard, runs: Sequence[tuple[Path, list[str]]], out: Path) -> None:
    stages = stages_of(card)
    if any(stage.get("photographs") for stage in stages):
        photographs.fetch(out / "photographs")
    for (folder, whole), stage in zip(runs, stages, strict=False):
        train.main(whole)
        print(*traced(stage, folder), sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
