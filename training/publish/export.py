"""Make a preset of a run: ``python -m training.publish.export RUN --name paper --purpose "..."``.

Writes the averaged weights and the model card. ``--table`` and ``--nuclei`` put measurements of these weights into it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training import command, pages
from training.data.bank import FLAT_SHARE
from training.evaluate import table
from training.run import checkpoint, lineage
from training.run.train import CHECKPOINT
from wsi_denoise.network import weights

FOLDER = pages.ROOT / "wsi_denoise" / "weights"
PURPOSES = {
    "paper": "The paper's network (16 filters), trained blind on fresh white noise of sigma 0 to 50. For H&E slides.",
    "fine": "As paper with 44 filters: better on white noise, at seven times the cost. For those with a GPU, or time.",
    "scanner": "As paper, but trained on noise that went through a camera's mosaic and JPEG. For slides that are JPEG.",
    "reproduce-paper": "The paper's network and its fixed noise map, to reproduce the paper's table. Not for slides.",
}


def card_of(run: Path, name: str, purpose: str) -> weights.ModelCard:
    """Return the card of a run's weights; :func:`weights.save` adds checksum and number of parameters."""
    _, state = checkpoint.averaged_weights(run / CHECKPOINT)
    record = json.loads((run / "run.json").read_text("utf-8"))
    configuration: dict[str, Any] = state["configuration"]
    share = configuration.get("flat", FLAT_SHARE)
    flat = weights.TrainedOn(f"flat fields and soft ramps, made up ({share:.0%} of the crops)", "none needed", 0)
    others = configuration.get("texture", 0.0)
    textures = weights.TrainedOn(f"textures, made up ({others:.0%} of the other crops)", "none needed", 0)
    made_up = (*([flat] if share else []), *([textures] if others else []))
    before = record.get("before", [])
    initial = {"before": before} if before else {}
    made_with = {key: record[key] for key in ("threads", "torch") if key in record}
    noted = lineage.traced(run)
    trace = {"trace": noted} if noted else {}
    return weights.ModelCard(
        name=name,
        purpose=purpose,
        architecture=weights.ARCHITECTURE,
        filters=configuration["filters"],
        residual=configuration["residual"],
        full_skip=configuration["full_skip"],
        parameters=0,
        protocol=configuration["protocol"],
        trained_on=(*(weights.TrainedOn(**source) for source in record["sources"]), *made_up),
        samples_seen=state["samples"] + sum(stage["samples"] for stage in before),
        training={
            "steps": state["step"],
            "minutes": round(state["elapsed"] / 60.0, 1),
            "finished": state["progress"] >= 1.0,
            **initial,
            **lineage.options_that_decide(configuration),
            **made_with,
            **trace,
            "machine": record.get("machine", "not recorded"),
        },
        measured=(),
        sha256="",
        licence="MIT",
        not_for_slides=configuration["protocol"] == "fixed-map",
        created=dt.datetime.now(dt.UTC).date().isoformat(),
    )


def export(run: Path, name: str, purpose: str, folder: Path = FOLDER) -> weights.ModelCard:
    """Write the preset's two files and return its card."""
    averaged, _ = checkpoint.averaged_weights(run / CHECKPOINT)
    return weights.save(averaged, card_of(run, name, purpose), folder)


def measure(name: str, tables: Sequence[Path], folder: Path = FOLDER, counted: Path | None = None) -> weights.ModelCard:
    """Put measured tables into a preset's card.

    Parameters
    ----------
    tables : sequence of Path
        JSON files of :mod:`training.evaluate.strengths`.
    counted : Path, optional
        JSON file of :mod:`training.evaluate.nuclei`.

    Raises
    ------
    ValueError
        If a table was measured with other weights.
    """
    known = weights.card(name, folder)
    measured = _with_noisy([row for path in tables for row in _rows_of(path, known)], name)
    nuclei = [row for row in _rows_of(counted, known) if row["method"] == name] if counted else []
    found = {"measured": _only(weights.Measured, measured), "nuclei": _only(weights.Nuclei, nuclei)}
    complete = weights.ModelCard.from_json(known.to_json() | found)
    (folder / f"{name}.json").write_text(json.dumps(complete.to_json(), indent=2) + "\n", "utf-8")
    return complete


def _rows_of(path: Path, known: weights.ModelCard) -> list[dict[str, Any]]:
    found = pages.read_json(path)
    if found["sha256"] != known.sha256:
        measured = f"was measured with weights {found['sha256'][:12]}"
        raise ValueError(f"{path} {measured}, {known.name} has {known.sha256[:12]}")
    rows: list[dict[str, Any]] = found["rows"]
    return rows


def _with_noisy(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return the rows of a method with the figures of the noisy input."""
    noisy = {table.key_of(row): row for row in rows if row["method"] == table.NOISY}
    mine = [(row, noisy[table.key_of(row)]) for row in rows if row["method"] == name]
    return [{**row, "noisy_psnr": before["psnr"], "noisy_ssim": before["ssim"]} for row, before in mine]


def _only(kind: type[weights.Measured | weights.Nuclei], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the fields of rows that a card has."""
    names = [field.name for field in dataclasses.fields(kind)]
    return [{name: row[name] for name in names} for row in rows]


def main(arguments: list[str] | None = None) -> None:
    """Export for the command-line options."""
    options = command.parser("training.publish.export", __doc__)
    options.add_argument("run", type=Path, nargs="?", help="folder of a run; left out, only the table is put in")
    options.add_argument("--name", required=True, help="name of the preset")
    options.add_argument("--purpose", help="for whom it is, in a sentence")
    options.add_argument("--table", type=Path, action="append", help="a table that training.evaluate.strengths wrote")
    options.add_argument("--nuclei", type=Path, help="a table that training.evaluate.nuclei wrote")
    options.add_argument("--folder", type=Path, default=FOLDER, help="where the preset is written")
    given = options.parse_args(arguments)
    if given.run:
        purpose = given.purpose or PURPOSES.get(given.name)
        if not purpose:
            options.error(f"--purpose is needed for {given.name}")
        known = export(given.run, given.name, purpose, given.folder)
        print(f"{known.name}: {known.parameters} parameters, {known.samples_seen} samples, {known.sha256}")
    if given.table:
        rows = measure(given.name, given.table, given.folder, given.nuclei).measured
        print(f"{given.name}: {len(rows)} measured rows")


if __name__ == "__main__":
    main()
