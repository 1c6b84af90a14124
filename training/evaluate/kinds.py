"""Measure denoisers by kind of noise: ``python -m training.evaluate.kinds --preset blind --preset auto --out FILE``.

A row is one method, one source and one kind of noise: the gain in dB of the PSNR to the clean image over the noisy
input, as mean over images with its 95 % bootstrap interval, the worst image, and the number of images. The gain of an
image is a mean over the seeds of the noise. Where nothing was added (``clean``) the figures are the PSNR to the image
itself. The kinds are in :mod:`training.evaluate.noises`, the sources and their uses in :mod:`training.evaluate.split`.

``--use`` chooses the sources: ``choice`` (the default), ``threshold``, ``training``, ``"held out"``. ``--against``
compares the first method with the better of the named ones, kind by kind, over all measured sources.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from training import command, pages
from training.evaluate import baselines, methods, split
from training.evaluate.measures import interval, psnr
from training.evaluate.noises import CLEAN, KINDS, Kind, noisy_images

Values = npt.NDArray[np.float64]
NO_LESS = 0.3
"""Maximum loss in dB of a single image compared with its input."""
FAITHFUL = 50.0
"""Minimum PSNR in dB of a clean image to itself."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a method on a source and a kind of noise.

    Parameters
    ----------
    images, seeds : int
        Number of images, and of noise seeds.
    psnr : float
        dB, mean PSNR of the outputs, or of the input for the method noisy input.
    gain, gain_low, gain_high : float
        dB over the noisy input: mean and its interval. For ``clean`` all three are zero.
    worst : float
        dB: the smallest gain of an image at one seed; for ``clean`` its PSNR to itself.
    losing : int
        Images and seeds with a gain below -0.3 dB; for ``clean`` those below 50 dB.
    """

    source: str
    method: str
    kind: str
    images: int
    seeds: int
    psnr: float
    gain: float
    gain_low: float
    gain_high: float
    worst: float
    losing: int


def measured(
    found: Mapping[str, baselines.Method],
    patches: Path,
    *,
    sources: Sequence[str] = split.tissues("choice"),
    kinds: Sequence[Kind] = KINDS,
    seeds: int = 3,
    count: int | None = None,
) -> Iterator[Row]:
    """Measure methods on sources and kinds of noise, and yield one row after another.

    Parameters
    ----------
    patches : Path
        Folder ``data/patches`` of the shared data.
    count : int, optional
        Number of images of each source, the first by name; all by default.
    """
    for source in sources:
        clean = split.TISSUES[source].load(patches)[:count]
        for kind in kinds:
            draws = 1 if kind.name == CLEAN else seeds
            noisy = [noisy_images(clean, source, kind, seed) for seed in range(draws)]
            before = np.stack([psnr(images, clean) for images in noisy])
            for name, method in found.items():
                after = np.stack([psnr(method(images, kind.sigma), clean) for images in noisy])
                yield _row(source, name, kind.name, before, after)


def _row(source: str, method: str, kind: str, before: Values, after: Values) -> Row:
    """Return the row of the PSNR before and after, (seeds, images) each."""
    gains = np.zeros_like(after) if kind == CLEAN else after - before
    low, high = interval(gains.mean(axis=0))
    single = after if kind == CLEAN else gains
    return Row(
        source,
        method,
        kind,
        images=after.shape[1],
        seeds=after.shape[0],
        psnr=round(float(after.mean()), 3),
        gain=round(float(gains.mean()), 3),
        gain_low=round(low, 3),
        gain_high=round(high, 3),
        worst=round(float(single.min()), 3),
        losing=int((single < (FAITHFUL if kind == CLEAN else -NO_LESS)).sum()),
    )


def over_sources(rows: Sequence[Row]) -> list[Row]:
    """Return the mean over sources, each with the same weight; the interval is over the sources."""
    means = []
    for method, kind in dict.fromkeys((row.method, row.kind) for row in rows):
        here = [row for row in rows if (row.method, row.kind) == (method, kind)]
        gains = np.array([row.gain for row in here])
        low, high = interval(gains)
        means.append(
            replace(
                here[0],
                source=f"mean of {len(here)} sources",
                images=sum(row.images for row in here),
                psnr=round(float(np.mean([row.psnr for row in here])), 3),
                gain=round(float(gains.mean()), 3),
                gain_low=round(low, 3),
                gain_high=round(high, 3),
                worst=min(row.worst for row in here),
                losing=sum(row.losing for row in here),
            )
        )
    return means


def shortfalls(rows: Sequence[Row], methods: Sequence[str], against: Sequence[str]) -> str:
    """Compare the first method with the best of the others that `against` names: mean over sources, kind by kind."""
    method = next(name for name in methods if name not in against)
    found = {(row.method, row.kind): row for row in over_sources(rows)}
    lines = []
    for kind in dict.fromkeys(row.kind for row in rows):
        mine, others = found[method, kind], [found[other, kind] for other in against]
        value = "psnr" if kind == CLEAN else "gain"
        best = max(others, key=lambda row: getattr(row, value))
        difference = getattr(mine, value) - getattr(best, value)
        figures = [f"{getattr(mine, value):+.2f}", f"{getattr(best, value):+.2f} ({best.method})", f"{difference:+.2f}"]
        lines.append([kind, *figures, f"{mine.worst:+.2f}", str(mine.losing)])
    return pages.table(["noise", method, "best of the others", "difference", "worst image", "images that lose"], lines)


def markdown(rows: Sequence[Row]) -> str:
    """Return one table per source, with a row per kind and a column per method: the gain with its interval."""
    parts = []
    for source in dict.fromkeys(row.source for row in rows):
        here = [row for row in rows if row.source == source]
        seeds = max(row.seeds for row in here)
        cells = pages.crossed("noise", {(row.kind, row.method): _cell(row) for row in here})
        parts.append(f"`{source}`, {here[0].images} images, {seeds} noise seeds\n\n{cells}")
    return "\n\n".join(parts)


def _cell(row: Row) -> str:
    if row.kind == CLEAN:
        return f"{row.psnr:.1f}, least {row.worst:.1f}"
    return f"{row.gain:+.2f} [{row.gain_low:+.2f}, {row.gain_high:+.2f}], worst {row.worst:+.2f}"


def parser() -> ArgumentParser:
    """Return the command line."""
    common = ("preset", "run", "shared", "seeds", "count", "threads", "out")
    options = command.parser("training.evaluate.kinds", __doc__, *common)
    options.add_argument("--function", action="append", default=[], help="another method, module:name")
    options.add_argument("--against", action="append", default=[], help="presets to compare the first method with")
    options.add_argument("--use", action="append", choices=get_args(split.Use), help="sources by their use (choice)")
    options.add_argument("--source", action="append", choices=list(split.TISSUES), help="only these sources")
    options.add_argument("--kind", action="append", choices=[kind.name for kind in KINDS], help="only these kinds")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure for the command-line options."""
    given = command.parsed(parser(), arguments)
    started = time.monotonic()
    presets = list(dict.fromkeys([*given.preset, *given.against]))
    found = methods.named(presets, given.run, given.function)
    sources = given.source or split.tissues(*(given.use or ["choice"]))
    kinds = [kind for kind in KINDS if kind.name in (given.kind or [kind.name])]
    patches = given.shared / "data" / "patches"
    rows = list(measured(found, patches, sources=sources, kinds=kinds, seeds=given.seeds, count=given.count))
    print(markdown(rows if len(sources) == 1 else [*rows, *over_sources(rows)]))
    if given.against:
        print("", shortfalls(rows, list(found), given.against), sep="\n")
    if given.out:
        pages.write_json(given.out, {**methods.about(presets, started), "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
