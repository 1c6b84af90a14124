"""Fill the tables of the documentation from the files that the evaluation wrote: ``python -m training.publish.report``.

A page has marks, ``<!-- made: NAME -->`` to ``<!-- end -->``, and what stands between them is replaced. A table whose
file is not there yet says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from training import pages
from training.evaluate import costs, kinds, leak, nuclei, table

PRESETS = ("paper", "fine", "scanner", "blind")
PAGES = ("evaluation.md", "presets.md", "leak.md")
MISSING = "Not measured yet."
NOT_OURS = ("bm3d", "baselines", "comparators-compared")
"""Tables of methods of other authors."""


def _rows(folder: Path, names: Iterable[str]) -> list[table.Row]:
    files = [folder / f"{name}.json" for name in names]
    return [row for file in files if file.is_file() for row in table.read(file)]


def _of_presets(folder: Path, kind: str = "") -> list[table.Row]:
    """Return the rows of all presets of a kind."""
    first, *others = [rows for preset in PRESETS if (rows := _rows(folder, [f"{preset}{kind}"]))] or [[]]
    return table.joined(first, [row for rows in others for row in rows])


def _beside(folder: Path, kind: str, *others: str) -> list[table.Row]:
    return table.joined(_of_presets(folder, kind), _rows(folder, others))


def _kinds(folder: Path) -> list[kinds.Row]:
    files = [folder / f"{preset}-kinds.json" for preset in PRESETS]
    return [kinds.Row(**row) for file in files if file.is_file() for row in pages.read_json(file)["rows"]]


def _nuclei(folder: Path) -> str:
    rows = nuclei.read(folder, PRESETS)
    return nuclei.markdown(rows) if rows else MISSING


def _behaviour(folder: Path, check: str, columns: Mapping[str, str]) -> str:
    """Return a check's table with a line per preset and row; `columns` maps keys to headings."""
    found = {preset: _content(folder, f"{preset}-behaviour") for preset in PRESETS}
    rows = [[preset, row] for preset, content in found.items() if content for row in content["checks"][check]]
    lines = [[preset, *(_text(row[key]) for key in columns)] for preset, row in rows]
    return pages.table(["preset", *columns.values()], lines) if lines else MISSING


def _content(folder: Path, name: str) -> dict[str, Any] | None:
    file = folder / f"{name}.json"
    return pages.read_json(file) if file.is_file() else None


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _compact(rows: Sequence[table.Row]) -> str:
    if not rows:
        return MISSING
    known = [name for name in (table.NOISY, *PRESETS) if any(row.method == name for row in rows)]
    return table.compact(rows, known)


def _likeness(rows: Sequence[table.Row]) -> str:
    whole = [row for row in rows if row.ssim_grey is not None and row.sigma > 0]
    return table.likeness(whole) if whole else MISSING


def _onnx(folder: Path) -> str:
    if not (found := _content(folder, "onnx")):
        return MISSING
    rows = found["rows"]
    lines = [
        [
            row["preset"],
            f"{row['bytes']:,}",
            f"{row['patch_ms']} ms (least {row['patch_ms_least']})",
            f"{row['largest_difference']:.0e}",
        ]
        for row in rows
    ]
    heads = ["preset", "file, bytes", "one patch of 96 x 96 px", "largest difference from torch"]
    about = f"Median of {rows[0]['runs']} runs of onnxruntime {rows[0]['onnxruntime']}, {rows[0]['machine']}."
    return f"{pages.table(heads, lines)}\n\n{about}"


def _costs(folder: Path) -> str:
    if not (found := _content(folder, "costs")):
        return MISSING
    rows = sorted(found["rows"], key=lambda row: PRESETS.index(row["preset"]))
    lines = [
        [
            row["preset"],
            row["filters"],
            f"{row['parameters']:,}",
            f"{row['kmac']:.1f}",
            f"{row['mpix_per_second']:.2f}",
        ]
        for row in rows
    ]
    heads = ["preset", "filters", "parameters", "kMAC a pixel", "MPix/s on one thread"]
    how = f"windows of {costs.WINDOW} px by processor time, {found['machine']}: {rows[0]['plan']}"
    return f"{pages.table(heads, lines)}\n\nMPix/s of the network alone, {how}."


def _experiment(folder: Path, name: str) -> str:
    """Return the table of an experiment of :mod:`training.evaluate.ablation`."""
    if not (found := _content(folder, name)):
        return "Not run."
    rows, sigmas = found["rows"], found["sigmas"]
    timed = all("mpix_per_second" in row for row in rows)
    heads = ["network", "parameters", "kMAC a pixel", *(["MPix/s"] if timed else []), "crops seen"]
    heads += [f"{kind}sigma {sigma}" for kind in ("", "enlarged, ") for sigma in sigmas]
    lines = [[*_network(row, timed=timed), *_psnr(row, sigmas)] for row in rows]
    about = f"PSNR in dB on {found['images']} images of `{found['source']}`, and on their middles enlarged twice."
    speed_of = f" MPix/s: as the daemon runs it, on one thread ({found['machine']})." if timed else ""
    return f"{pages.table(heads, lines)}\n\n{about}{speed_of}"


def _network(row: Mapping[str, Any], *, timed: bool) -> list[str]:
    speed = [f"{row['mpix_per_second']:.2f}"] if timed else []
    return [row["variant"], f"{row['parameters']:,}", f"{row['kmac']:.1f}", *speed, f"{row['samples']:,}"]


def _psnr(row: Mapping[str, Any], sigmas: Sequence[int]) -> list[str]:
    return [f"{row[kind][str(sigma)]:.2f}" for kind in ("psnr", "enlarged") for sigma in sigmas]


def _pictures(folder: Path) -> str:
    if not (found := _content(folder, "pictures")):
        return MISSING
    across = ", ".join(["noisy input", *found["methods"], "clean"])
    down = " / ".join(found["sources"])
    return f"![Crops of each method](images/methods.webp)\n\nAcross: {across}. Down: {down}. Sigma {found['sigma']:g}."


def _compressed_picture(folder: Path) -> str:
    if not (found := _content(folder, "pictures")):
        return MISSING
    across = ", ".join(["noise of sigma 25 after JPEG 70", *found["presets"], "clean"])
    down = " / ".join(found["sources"])
    return f"![Crops of compressed noise](images/compressed.webp)\n\nAcross: {across}. Down: {down}."


FIDELITY = {
    "source": "source",
    "images": "images",
    "psnr": "PSNR to the input, dB",
    "psnr_least": "least",
    "colour_moved": "mean colour moved, grey levels",
    "colour_moved_most": "most",
}
FLAT = {
    "sigma": "sigma",
    "colours": "colours",
    "deviation": "standard deviation left, median",
    "deviation_most": "most",
    "at_colour": "at colour",
    "colours_under_3": "colours under 3",
    "structure_most": "largest structure, px",
    "inside_deviation_most": "inside: standard deviation, most",
    "inside_structure_most": "largest structure, px",
    "inside_structures": "colours with one over 25 px",
    "inside_own_most": "by each channel's own deviation, px",
    "inside_own": "colours with one over 25 px",
    "colour_moved": "colour moved, median",
    "colour_moved_most": "most",
}
LATTICE = {
    "source": "source",
    "images": "images",
    "what": "what",
    "psnr_change": "PSNR against the whole image, dB",
    "levels_most": "largest difference, grey levels",
}
STAINS = {
    "source": "source",
    "images": "images",
    "sigma": "sigma",
    "haematoxylin_noisy_error": "haematoxylin noisy, % off",
    "haematoxylin_denoised_error": "denoised, % off",
    "eosin_noisy_error": "eosin noisy, % off",
    "eosin_denoised_error": "denoised, % off",
}

PARTS: dict[str, Callable[[Path], str]] = {
    "fresh": lambda folder: table.markdown(_of_presets(folder)) or MISSING,
    "validation": lambda folder: table.markdown(_of_presets(folder, "-val")) or MISSING,
    "compared": lambda folder: table.markdown(_beside(folder, "-compared", *NOT_OURS)) or MISSING,
    "blind": lambda folder: table.markdown(_blind(folder)) or MISSING,
    "ssim": lambda folder: _likeness(_of_presets(folder, "-compared")),
    "others": lambda folder: _compact(_of_presets(folder, "-others")),
    "kinds": lambda folder: kinds.markdown(_kinds(folder)) or MISSING,
    "compressed": lambda folder: _compact(_of_presets(folder, "-compressed")),
    "fidelity": lambda folder: _behaviour(folder, "fidelity", FIDELITY),
    "flat": lambda folder: _behaviour(folder, "flat", FLAT),
    "lattice": lambda folder: _behaviour(folder, "lattice", LATTICE),
    "stains": lambda folder: _behaviour(folder, "stains", STAINS),
    "nuclei": _nuclei,
    "costs": _costs,
    "onnx": _onnx,
    "ablation": lambda folder: _experiment(folder, "ablation"),
    "capacity": lambda folder: _experiment(folder, "capacity"),
    "comparators": lambda folder: _experiment(folder, "comparators"),
    "seeds": lambda folder: _experiment(folder, "seeds"),
    "leak": lambda folder: leak.markdown(found) if (found := _content(folder, "leak")) else MISSING,
    "pictures": _pictures,
    "compressed picture": _compressed_picture,
}


def _blind(folder: Path) -> list[table.Row]:
    """Return the rows for all images and seeds on which a blind DnCNN was measured too."""
    others = _rows(folder, ["dncnn"])
    return table.joined(others, _of_presets(folder)) if others else []


def pages_of(docs: Path, tables: Path) -> dict[Path, str]:
    """Return the text of each page with the values of the tables."""
    parts = {name: make(tables) for name, make in PARTS.items()}
    return {docs / name: pages.filled((docs / name).read_text("utf-8"), parts) for name in PAGES}


def main(arguments: list[str] | None = None) -> int:
    """Update the pages, or with ``--check`` print those that differ from the tables."""
    options = argparse.ArgumentParser(prog="python -m training.publish.report", description=__doc__)
    options.add_argument("--check", action="store_true", help="change nothing; fail if a page is not up to date")
    given = options.parse_args(arguments)
    old = 0
    for path, text in pages_of(pages.DOCS, pages.TABLES).items():
        if path.read_text("utf-8") != text:
            old += 1
            print(f"{path.name}: {'not as the tables say' if given.check else 'written'}")
            if not given.check:
                path.write_text(text, "utf-8")
    return 1 if given.check and old else 0


if __name__ == "__main__":
    sys.exit(main())
