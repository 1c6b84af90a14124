"""The table of methods by source and strength: measurement, storage as JSON, and output as Markdown.

PSNR is that of 8-bit RGB images. Values are means over the images, after a mean over the noise seeds of each image. The
interval is a 95 % bootstrap over the images. All methods get the same noisy pixels, even in different programs: rows
with the same :func:`key_of` were measured on the same pixels. A perfect image counts as `PERFECT` dB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training import pages
from training.evaluate import baselines
from training.evaluate.conditions import noisy_images
from training.evaluate.measures import PERFECT, Batch, interval, psnr, ssim, ssim_columns, ssim_grey
from training.evaluate.split import SOURCES

SIGMAS = (0.0, 5.0, 10.0, 15.0, 25.0, 35.0, 50.0)
NOISY = "noisy input"


@dataclass(frozen=True)
class Row:
    """One line of the table: one method on one source at one strength of one kind of noise.

    Parameters
    ----------
    protocol : str
        Name of the noise, as in :data:`training.evaluate.conditions.CONDITIONS`.
    images, seeds : int
        Number of images, and of noise seeds.
    psnr, psnr_low, psnr_high : float
        dB: mean and its interval.
    ssim, ssim_grey, ssim_columns : float
        See :mod:`training.evaluate.measures`; the last is the paper's. The last two are for the first seed only.
    """

    source: str
    method: str
    protocol: str
    sigma: float
    images: int
    seeds: int
    psnr: float
    psnr_low: float
    psnr_high: float
    ssim: float
    ssim_grey: float | None = None
    ssim_columns: float | None = None


def key_of(row: Mapping[str, Any] | Row) -> tuple[Any, ...]:
    """Return a key that is equal for rows that were measured on the same pixels."""
    values = asdict(row) if isinstance(row, Row) else row
    return tuple(values[name] for name in ("source", "protocol", "sigma", "images", "seeds"))


def measured(
    methods: Mapping[str, baselines.Method],
    patches: Path,
    *,
    sources: Sequence[str] = tuple(SOURCES),
    protocols: Sequence[str] = ("fresh",),
    sigmas: Sequence[float] = SIGMAS,
    seeds: int = 3,
    count: int | None = None,
) -> Iterator[Row]:
    """Measure methods on sources, and yield one row after another.

    Parameters
    ----------
    methods : dict of str to method
        The noisy input is added automatically as the first.
    patches : Path
        Folder ``data/patches`` of the shared data.
    count : int, optional
        Number of images of each source, the first by name; all by default.
    """
    for source in sources:
        clean = SOURCES[source](patches)[:count]
        for protocol in protocols:
            # The fixed map does not depend on the seed.
            draws = 1 if protocol == "fixed-map" else seeds
            for sigma in sigmas:
                without = sigma == 0 and protocol in {"fresh", "fixed-map"}
                noisy = [noisy_images(clean, source, protocol, sigma, seed) for seed in range(1 if without else draws)]
                for name, method in {NOISY: _unchanged, **methods}.items():
                    yield _row(source, name, protocol, sigma, draws, clean, [method(n, sigma) for n in noisy])


def _unchanged(noisy: Batch, _sigma: float) -> Batch:
    return noisy


def _row(
    source: str, method: str, protocol: str, sigma: float, seeds: int, clean: Batch, found: Sequence[Batch]
) -> Row:
    quality = np.mean([psnr(images, clean) for images in found], axis=0)
    low, high = interval(quality)
    likeness = float(np.mean([ssim(images, clean) for images in found]))
    return Row(
        source,
        method,
        protocol,
        sigma,
        images=len(clean),
        seeds=seeds,
        psnr=round(float(quality.mean()), 3),
        psnr_low=round(low, 3),
        psnr_high=round(high, 3),
        ssim=round(likeness, 4),
        ssim_grey=round(float(ssim_grey(found[0], clean).mean()), 4),
        ssim_columns=round(float(ssim_columns(found[0], clean).mean()), 4),
    )


def save(path: Path, rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Write rows as JSON with facts about the measurement, such as the ``sha256`` of the preset."""
    pages.write_json(path, {**facts, "rows": [asdict(row) for row in rows]})


def read(path: Path) -> list[Row]:
    """Read the rows of a file of :func:`save`."""
    return [Row(**row) for row in pages.read_json(path)["rows"]]


def joined(rows: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    """Add the rows of other methods on the same pixels, in the order of `rows`.

    For a method in both, the row of `rows` is used.
    """
    by_pixels: dict[tuple[Any, ...], list[Row]] = {}
    for row in (*rows, *others):
        here = by_pixels.setdefault(key_of(row), [])
        if all(row.method != known.method for known in here):
            here.append(row)
    known = {key_of(row) for row in rows}
    return [row for key, here in by_pixels.items() if key in known for row in here]


def _tables(rows: Sequence[Row], about: str, cell: Callable[[Row | None], str]) -> str:
    """Return a table per source and noise, with a row per method and a column per sigma, below a line about it."""
    lines = []
    for source, protocol in dict.fromkeys((row.source, row.protocol) for row in rows):
        here = {(row.method, row.sigma): row for row in rows if (row.source, row.protocol) == (source, protocol)}
        first = next(iter(here.values()))
        drawn = "1 noise seed" if first.seeds == 1 else f"{first.seeds} noise seeds"
        sigmas = sorted({sigma for _, sigma in here})
        methods = dict.fromkeys(method for method, _ in here)
        cells = {(name, f"sigma {sigma:g}"): cell(here.get((name, sigma))) for name in methods for sigma in sigmas}
        lines += [f"**{source}**: {first.images} images, {drawn}{about.format(protocol)}", ""]
        lines += [pages.crossed("method", cells), ""]
    return "\n".join(lines)


def markdown(rows: Sequence[Row]) -> str:
    """Return a table per source and noise: PSNR in dB [95 % interval] (SSIM)."""
    return _tables(rows, ", `{}`; PSNR in dB [95 % interval] (SSIM)", _cell)


def _cell(row: Row | None) -> str:
    if row is None:
        return "not measured"
    if row.psnr >= PERFECT:
        return "unchanged"
    return f"{row.psnr:.2f} [{row.psnr_low:.2f}, {row.psnr_high:.2f}] ({row.ssim:.3f})"


def likeness(rows: Sequence[Row]) -> str:
    """Return the three kinds of SSIM, one table per source: ``RGB / grey / the paper's`` in each cell."""
    return _tables(rows, "; SSIM over RGB / of grey / the paper's way", _likeness)


def _likeness(row: Row | None) -> str:
    return "" if row is None else f"{row.ssim:.3f} / {row.ssim_grey:.3f} / {row.ssim_columns:.3f}"


def compact(rows: Sequence[Row], methods: Sequence[str]) -> str:
    """Return one table for several kinds of noise: a line per source and noise, with each method's PSNR in a cell.

    Parameters
    ----------
    methods : sequence of str
        Order of the values in a cell, which " / " separates.
    """
    sigmas = sorted({row.sigma for row in rows})
    found = {(row.source, row.protocol, row.method, row.sigma): f"{row.psnr:.2f}" for row in rows}
    lines = []
    for source, protocol in dict.fromkeys((row.source, row.protocol) for row in rows):
        first = next(row for row in rows if (row.source, row.protocol) == (source, protocol))
        cells = [" / ".join(found.get((source, protocol, name, sigma), "-") for name in methods) for sigma in sigmas]
        lines.append([f"{source} ({first.images} x {first.seeds})", protocol, *cells])
    about = f"PSNR in dB: {' / '.join(methods)}. In brackets: images x noise seeds."
    return f"{about}\n\n{pages.table(['images', 'noise', *(f'sigma {sigma:g}' for sigma in sigmas)], lines)}\n"
