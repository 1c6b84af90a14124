"""Pictures of the evaluation: ``python -m training.publish.pictures``.

Crops of each method beside the noisy input and the truth, for each source whose licence allows showing them, and PSNR
over sigma as curves, from the tables. Everything goes to ``docs/images``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training import command, pages
from training.evaluate import baselines, nuclei, table
from training.evaluate.conditions import noisy_images
from training.evaluate.measures import Batch
from training.evaluate.noises import CLEAN
from training.evaluate.split import SOURCES, VALIDATION
from training.publish.report import PRESETS
from wsi_denoise.network import weights

SHOWN = {"pcam-kaggle/test": 13, "kather-crc-20x, odd positions": 5, "scikit-image ihc": 7}
"""Sources that may be shown (CC0, CC BY), and the index of the image. MoNuSeg is CC BY-NC-SA, and the authors' pairs
state no licence."""
PART = slice(16, 80)
Psnr = Mapping[tuple[str, str, float], table.Row]
"""Rows by source, method and sigma."""
CURVES = ("noisy input", "paper", "fine", "scanner", "DnCNN colour, blind")


def crops(
    methods: Mapping[str, baselines.Method], patches: Path, protocols: Sequence[str], sigma: float
) -> list[list[Batch]]:
    """Return rows of images: one per source and kind of noise, with the noisy input first and the truth last."""
    lines = []
    for source, index in SHOWN.items():
        clean = SOURCES[source](patches)[index : index + 1]
        for protocol in protocols:
            noisy = noisy_images(clean, source, protocol, sigma, 0)
            shown = [noisy, *(method(noisy, sigma) for method in methods.values()), clean]
            lines.append([image[0, PART, PART] for image in shown])
    return lines


def _pyplot() -> Any:
    import matplotlib as mpl  # noqa: PLC0415 - comes with the extra `train`

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    return plt


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90, metadata={"Software": None})
    _pyplot().close(figure)


def plot(rows: Sequence[table.Row], path: Path, *, reference: str = "paper") -> None:
    """Draw PSNR over sigma, one column per source, and below it the gain of each method over the reference."""
    plt = _pyplot()
    sources = list(dict.fromkeys(row.source for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    # Each table contains the rows of the noisy input; here they are needed once.
    psnr = {(row.source, row.method, row.sigma): row for row in rows if row.sigma > 0}
    size = (3.1 * len(sources), 5.4)
    figure, fields = plt.subplots(2, len(sources), figsize=size, sharex=True, sharey="row", squeeze=False)
    for source, above, below in zip(sources, *fields, strict=True):
        for number, method in enumerate(methods):
            known = [row for _, row in sorted(psnr.items()) if (row.source, row.method) == (source, method)]
            _curve(above, known, number)
            if method != table.NOISY:
                _gains(below, known, psnr, reference, number)
        above.set_title(source, fontsize=9)
        below.set(xlabel="sigma (grey levels)")
        above.grid(alpha=0.3)
        below.grid(alpha=0.3)
    fields[0][0].set_ylabel("PSNR (dB)")
    fields[1][0].set_ylabel(f"above {reference} (dB)")
    fields[0][0].legend(fontsize=8)
    figure.tight_layout()
    _save(figure, path)


def _curve(field: Any, rows: Sequence[table.Row], number: int) -> None:
    sigmas, low, high = [row.sigma for row in rows], [row.psnr_low for row in rows], [row.psnr_high for row in rows]
    field.plot(sigmas, [row.psnr for row in rows], label=rows[0].method if rows else "", **_line(number))
    field.fill_between(sigmas, low, high, alpha=0.2, color=f"C{number}")


def _gains(field: Any, rows: Sequence[table.Row], psnr: Psnr, reference: str, number: int) -> None:
    pairs = [(row, other) for row in rows if (other := psnr.get((row.source, reference, row.sigma)))]
    field.plot([row.sigma for row, _ in pairs], [row.psnr - other.psnr for row, other in pairs], **_line(number))


def _line(number: int) -> dict[str, Any]:
    return {"marker": "o", "markersize": 3, "color": f"C{number}"}


def plot_nuclei(rows: Sequence[nuclei.Row], path: Path) -> None:
    """Draw the F1 of nuclei before and after, one column per preset and a pair of points per kind of noise."""
    plt = _pyplot()
    names = list(dict.fromkeys(row.method for row in rows))
    kinds = list(reversed(dict.fromkeys(row.kind for row in rows if row.kind != CLEAN)))
    figure, fields = plt.subplots(1, len(names), figsize=(2.2 + 2.6 * len(names), 4.2), sharey=True, squeeze=False)
    for name, field in zip(names, fields[0], strict=True):
        here = {row.kind: row for row in rows if row.method == name}
        _before_and_after(field, [here[kind] for kind in kinds])
        field.set(title=name, xlabel="F1 of nuclei", xlim=(0.3, 1.02))
        field.grid(alpha=0.3)
    fields[0][0].set_yticks(range(len(kinds)), kinds, fontsize=8)
    known = {label: line for field in fields[0] for line, label in zip(*field.get_legend_handles_labels(), strict=True)}
    figure.legend(known.values(), known, loc="lower center", ncols=3, fontsize=8)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    _save(figure, path)


def _before_and_after(field: Any, rows: Sequence[nuclei.Row]) -> None:
    before, after = [row.f1_noisy for row in rows], [row.f1_denoised for row in rows]
    field.hlines(range(len(rows)), before, after, color="0.7")
    field.plot(before, range(len(rows)), "o", color="0.5", label="noisy")
    field.plot(after, range(len(rows)), "o", color="C0", label="denoised")
    lost = [(row.f1_denoised, place) for place, row in enumerate(rows) if row.losing > row.losing_noisy]
    if lost:
        field.plot(*zip(*lost, strict=True), "x", color="C3", markersize=10, label="loses nuclei in more images")


def main(arguments: list[str] | None = None) -> None:
    """Make the pictures for the command-line options."""
    options = command.parser("training.publish.pictures", __doc__, "shared", "threads")
    options.add_argument("--images", type=Path, default=pages.IMAGES, help="folder to write to")
    given = command.parsed(options, arguments)
    patches = given.shared / "data" / "patches"
    known = [card.name for card in weights.presets() if not card.not_for_slides]
    presets = {name: baselines.network(weights.load(name)) for name in known}
    anchors = baselines.anchors(given.shared / "reference")
    blind = {name: method for name, method in anchors.items() if name.startswith("DnCNN")}
    shown = {**presets, "non-local means": baselines.classical("non-local means", 0.6), **blind}
    for name, methods, protocol in (("methods", shown, "fresh"), ("compressed", presets, "noise, then JPEG 70")):
        lines = crops(methods, patches, [protocol], 25.0)
        pages.write_image(given.images / f"{name}.webp", pages.grid(lines, enlarge=3))
    about = {"methods": list(shown), "presets": list(presets), "sources": list(SHOWN), "sigma": 25.0}
    pages.write_json(pages.TABLES / "pictures.json", about)
    plot([row for name in (*known, "dncnn") for row in read_rows(name)], given.images / "curves.png")
    plot_nuclei(nuclei.read(pages.TABLES, PRESETS), given.images / "nuclei.png")


def read_rows(name: str) -> list[table.Row]:
    """Return the rows of a table for fresh noise on the test sources, of the methods in the curves."""
    path = pages.TABLES / f"{name}.json"
    rows = table.read(path) if path.is_file() else []
    return [row for row in rows if row.protocol == "fresh" and row.source != VALIDATION and row.method in CURVES]


if __name__ == "__main__":
    main()
