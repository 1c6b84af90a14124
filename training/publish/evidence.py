"""Measure everything that the documentation says about the presets: ``make evaluate``.

Each step writes a file in ``training/tables`` and prints its duration. A step whose file has the checksum of the
shipped weights is omitted (``--again`` repeats it). ``--baselines`` measures methods of other authors.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from training import command, pages
from training.evaluate import behaviour, costs, kinds, leak, nuclei, strengths
from training.evaluate.conditions import COMPRESSED, OTHERS
from training.evaluate.split import COMPARED, MANY, TEST, VALIDATION
from training.publish import export, onnx, pictures, report
from wsi_denoise.network import weights

Step = tuple[str, Callable[[list[str]], object], list[str]]

STRENGTHS = ("10", "25", "50")


def several(flag: str, values: tuple[str, ...]) -> list[str]:
    """Return an option, repeated for each value."""
    return [part for value in values for part in (flag, value)]


def steps_of(preset: str) -> list[Step]:
    """Return the measurements for a preset: name of the table, program, and its options."""
    sigmas = several("--sigma", STRENGTHS)
    compared = several("--source", COMPARED)
    protocols = several("--protocol", ("fresh", *OTHERS))
    one = ["--preset", preset, "--seeds", "1"]
    return [
        (preset, strengths.main, ["--preset", preset, *several("--source", TEST)]),
        (f"{preset}-val", strengths.main, ["--preset", preset, "--source", VALIDATION, "--count", "100"]),
        (f"{preset}-compared", strengths.main, [*one, "--count", str(MANY), *sigmas, *compared]),
        (
            f"{preset}-compressed",
            strengths.main,
            [*one, "--count", str(MANY), *sigmas, *several("--protocol", COMPRESSED), *compared],
        ),
        (
            f"{preset}-others",
            strengths.main,
            [*one, "--count", str(MANY), *several("--sigma", (*STRENGTHS, "60", "75")), *compared, *protocols],
        ),
        (f"{preset}-kinds", kinds.main, ["--preset", preset, "--count", str(MANY)]),
        (f"{preset}-nuclei", nuclei.main, ["--preset", preset]),
        (f"{preset}-behaviour", behaviour.main, ["--preset", preset]),
    ]


def baseline_steps() -> list[Step]:
    """Return the measurements for methods of other authors, which take hours on one core."""
    sigmas = several("--sigma", STRENGTHS)
    compared = several("--source", COMPARED)
    common = ["--seeds", "1", "--count", str(MANY), *sigmas, *compared]
    return [
        ("baselines", strengths.main, ["--classical", "--anchors", *common]),
        ("bm3d", strengths.main, ["--bm3d", *common]),
        ("dncnn", strengths.main, ["--anchors", "--method", "DnCNN", *sigmas, *several("--source", TEST)]),
    ]


def is_current(path: Path, preset: str) -> bool:
    """Return whether a table was measured with the shipped weights."""
    return path.is_file() and pages.read_json(path).get("sha256") == weights.card(preset).sha256


def main(arguments: list[str] | None = None) -> None:
    """Measure for the command-line options."""
    options = command.parser("training.publish.evidence", __doc__, "preset", "shared", "threads")
    options.add_argument("--again", action="store_true", help="also what is there already")
    options.add_argument("--baselines", action="store_true", help="the methods that are not ours, too: hours")
    given = command.parsed(options, arguments)
    place = ["--shared", str(given.shared)]
    for preset in given.preset or [card.name for card in weights.presets() if not card.not_for_slides]:
        for step in steps_of(preset):
            if given.again or not is_current(pages.TABLES / f"{step[0]}.json", preset):
                _run(step, place)
        # The noise protocol in the card shows the use of a preset.
        parts = ("", "-val", "-compressed") if weights.card(preset).protocol in {"scanner", "camera"} else ("", "-val")
        tables = [pages.TABLES / f"{preset}{kind}.json" for kind in parts]
        export.measure(preset, tables, counted=pages.TABLES / f"{preset}-nuclei.json")
    for step in baseline_steps() if given.baselines else ():
        _run(step, place)
    leak.main(place)
    with tempfile.TemporaryDirectory() as folder:
        onnx.main(["--out", folder, "--table", str(pages.TABLES / "onnx.json")])
    costs.main([])
    pictures.main(place)
    report.main([])


def _run(step: Step, place: list[str]) -> None:
    name, program, what = step
    started = time.monotonic()
    program([*what, *place, "--out", str(pages.TABLES / f"{name}.json")])
    print(f"== {name}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
