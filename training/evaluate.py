"""Measure presets and baselines: ``python -m training.evaluate --preset paper --out table.json``.

PSNR is over RGB and of 8-bit images; SSIM is the true two-dimensional one (Gaussian window of 1.5 px) over RGB; both
are means over the images, after a mean over the seeds of the noise for each image. The interval is a 95 % bootstrap
over the images. All methods see the same noisy pixels. A perfect image has an infinite PSNR, which no mean survives: it
counts as `PERFECT` dB.

Only ``pcam-kaggle/val`` may be looked at to choose something; the other sources are test.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from skimage.metrics import structural_similarity

from training import baselines, checkpoint, corruption, data
from training.train import CHECKPOINT
from wsi_denoise.network import weights
from wsi_denoise.network.irunet import IRUNet

Batch = npt.NDArray[np.uint8]
SIGMAS = (0.0, 5.0, 10.0, 15.0, 25.0, 35.0, 50.0)
PERFECT = 80.0
"""PSNR in dB that stands for infinity."""
SIDE = 96


@dataclass(frozen=True)
class Row:
    """One line of the table: one method on one source at one sigma."""

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


def _pcam(split: str) -> Callable[[Path], Batch]:
    return lambda patches: np.stack([data.load(file) for file in data.images_in(patches / "pcam-kaggle" / split)])


def _authors(patches: Path) -> Batch:
    files = data.images_in(patches / "irunet-author-pairs" / "noise25")
    return np.stack([data.load(file) for file in files if "clean" in file.name])


def _kather(patches: Path) -> Batch:
    _, test = data.kather_split(data.images_in(patches / "kather-crc-20x"))
    return np.stack([data.load(file)[20 : 20 + SIDE, 20 : 20 + SIDE] for file in test])


def _monuseg(patches: Path) -> Batch:
    files = data.images_in(patches / "monuseg" / "test")
    return np.stack([data.load(file)[200 : 200 + SIDE, 200 : 200 + SIDE] for file in files])


def _ihc(_patches: Path) -> Batch:
    image = data.load(Path(str(importlib.resources.files("skimage") / "data" / "ihc.png")))
    tiles = range(0, 512 - SIDE + 1, SIDE)
    return np.stack([image[top : top + SIDE, left : left + SIDE] for top in tiles for left in tiles])


SOURCES: dict[str, Callable[[Path], Batch]] = {
    "pcam-kaggle/val": _pcam("val"),
    "pcam-kaggle/test": _pcam("test"),
    "irunet-author-pairs": _authors,
    "kather-crc-20x, odd positions": _kather,
    "monuseg/test": _monuseg,
    "scikit-image ihc": _ihc,
}
"""Name to a function that takes the folder of patches and gives (images, 96, 96, 3) uint8."""


def noisy_images(clean: Batch, source: str, protocol: str, sigma: float, seed: int) -> Batch:
    """Corrupt a source's images; the noise of an image depends on source, position, sigma and seed only."""
    if protocol == "fixed-map":
        return np.stack([corruption.corrupt_fixed(image, sigma) for image in clean])
    key = [seed, round(10 * sigma), zlib.crc32(source.encode())]
    return np.stack(
        [corruption.corrupt(image, sigma, np.random.default_rng([*key, n])) for n, image in enumerate(clean)]
    )


def psnr(found: Batch, clean: Batch) -> npt.NDArray[np.float64]:
    """Return the PSNR in dB of each image over RGB, at most `PERFECT`."""
    square = ((found.astype(np.float64) - clean) ** 2).mean(axis=(1, 2, 3))
    return np.asarray(10.0 * np.log10(255.0**2 / np.maximum(square, 255.0**2 / 10 ** (PERFECT / 10.0))))


def ssim(found: Batch, clean: Batch) -> npt.NDArray[np.float64]:
    """Return the SSIM of each image, the mean over its channels."""
    options: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return np.array(
        [
            structural_similarity(a, b, channel_axis=2, data_range=255, **options)
            for a, b in zip(found, clean, strict=True)
        ]
    )


def interval(values: npt.NDArray[np.float64], draws: int = 2000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean over images."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def evaluate(
    methods: dict[str, baselines.Method],
    patches: Path,
    *,
    sources: Sequence[str] = tuple(SOURCES),
    sigmas: Sequence[float] = SIGMAS,
    seeds: int = 3,
    count: int | None = None,
    protocol: str = "fresh",
    progress: Callable[[str], None] = lambda _line: None,
) -> list[Row]:
    """Measure methods on sources.

    Parameters
    ----------
    methods : dict of str to method
        The noisy input is added by itself, as the first.
    patches : Path
        Folder ``data/patches`` of the shared data.
    count : int, optional
        Only that many images of each source, the first by name.
    progress : callable
        Is told a line for each source and sigma.
    """
    rows = []
    # The fixed map is one draw: other seeds would be the same pixels again.
    draws = 1 if protocol == "fixed-map" else seeds
    for source in sources:
        clean = SOURCES[source](patches)[:count]
        for sigma in sigmas:
            started = time.monotonic()
            noisy = [noisy_images(clean, source, protocol, sigma, seed) for seed in range(draws if sigma else 1)]
            for name, method in {"noisy input": _unchanged, **methods}.items():
                found = [method(images, sigma) for images in noisy]
                quality = np.mean([psnr(images, clean) for images in found], axis=0)
                likeness = np.mean([ssim(images, clean) for images in found], axis=0)
                low, high = interval(quality)
                rows.append(
                    Row(
                        source,
                        name,
                        protocol,
                        sigma,
                        images=len(clean),
                        seeds=draws,
                        psnr=round(float(quality.mean()), 3),
                        psnr_low=round(low, 3),
                        psnr_high=round(high, 3),
                        ssim=round(float(likeness.mean()), 4),
                    )
                )
            progress(f"{source}, sigma {sigma:g}: {time.monotonic() - started:.1f} s")
    return rows


def _unchanged(noisy: Batch, _sigma: float) -> Batch:
    return noisy


def markdown(rows: Sequence[Row]) -> str:
    """Return one table per source: methods down, sigma across, PSNR in dB (SSIM)."""
    lines = []
    for source in dict.fromkeys(row.source for row in rows):
        here = [row for row in rows if row.source == source]
        sigmas = sorted({row.sigma for row in here})
        first = here[0]
        drawn = f"{first.seeds} noise seed{'s' if first.seeds > 1 else ''}"
        lines += [
            f"**{source}**: {first.images} images, {drawn}, `{first.protocol}`; PSNR in dB [95 % interval] (SSIM)",
            "",
            "| method | " + " | ".join(f"sigma {sigma:g}" for sigma in sigmas) + " |",
            "|---" * (len(sigmas) + 1) + "|",
        ]
        for method in dict.fromkeys(row.method for row in here):
            cells = []
            for sigma in sigmas:
                row = next(row for row in here if row.method == method and row.sigma == sigma)
                perfect = row.psnr >= PERFECT
                span = f"[{row.psnr_low:.2f}, {row.psnr_high:.2f}] "
                cells.append("unchanged" if perfect else f"{row.psnr:.2f} {span}({row.ssim:.3f})")
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def classical_methods(patches: Path, sigmas: Sequence[float], count: int = 12) -> dict[str, baselines.Method]:
    """Return the classical baselines, each tuned on the first validation patches."""
    clean = SOURCES["pcam-kaggle/val"](patches)[:count]

    def corrupt(images: Batch, sigma: float) -> Batch:
        return noisy_images(images, "tuning", "fresh", sigma, 0)

    return {name: baselines.tuned(name, clean, corrupt, sigmas) for name in baselines.GRIDS}


def run_network(run: Path) -> IRUNet:
    """Return the averaged network of a training run that is not shipped."""
    averaged, state = checkpoint.averaged_weights(run / CHECKPOINT)
    options = {name: state["configuration"][name] for name in ("filters", "residual", "full_skip")}
    network = IRUNet(**options)
    network.load_state_dict(averaged)
    return network.eval()


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    options = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    options.add_argument("--preset", action="append", default=[], help="a preset that ships; may be repeated")
    options.add_argument("--run", type=Path, action="append", default=[], help="folder of a training run")
    options.add_argument("--shared", type=Path, default=data.shared_folder(), help="folder with data/ and reference/")
    options.add_argument("--source", action="append", choices=list(SOURCES), help="only these sources")
    options.add_argument("--sigma", type=float, action="append", help="only these sigmas")
    options.add_argument("--seeds", type=int, default=3, help="draws of noise per image")
    options.add_argument("--count", type=int, help="only the first images of each source")
    options.add_argument("--protocol", choices=("fresh", "fixed-map"), default="fresh")
    options.add_argument("--classical", action="store_true", help="with non-local means, wavelets, total variation")
    options.add_argument("--anchors", action="store_true", help="with the pretrained networks of the shared folder")
    options.add_argument("--threads", type=int, default=0, help="threads of torch; 0 leaves it to torch")
    options.add_argument("--out", type=Path, help="JSON to write; the Markdown tables go beside it")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Evaluate as the command line says."""
    given = parser().parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    patches = given.shared / "data" / "patches"
    sigmas = tuple(given.sigma or SIGMAS)
    methods: dict[str, baselines.Method] = {}
    for name in given.preset:
        methods[name] = baselines.network(weights.load(name))
    for folder in given.run:
        methods[folder.name] = baselines.network(run_network(folder))
    if given.classical:
        methods |= classical_methods(patches, sigmas)
    if given.anchors:
        methods |= baselines.anchors(given.shared / "reference")
    rows = evaluate(
        methods,
        patches,
        sources=given.source or tuple(SOURCES),
        sigmas=sigmas,
        seeds=given.seeds,
        count=given.count,
        protocol=given.protocol,
        progress=lambda line: print(line, flush=True),
    )
    table = markdown(rows)
    print(table)
    if given.out:
        checksum = weights.card(given.preset[0]).sha256 if given.preset else ""
        found = {"sha256": checksum, "threads": torch.get_num_threads(), "rows": [asdict(row) for row in rows]}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        given.out.with_suffix(".md").write_text(table + "\n", "utf-8")


if __name__ == "__main__":
    main()
