"""Measure presets by kind of noise: ``python -m training.evaluate.kinds --preset blind --out FILE``.

A row is one preset, one source and one kind of noise: the gain in dB of the PSNR to the clean image over the noisy
input, as mean over images with its 95 % bootstrap interval, the worst image, and the number of images. The gain of an
image is a mean over the seeds of the noise. Where nothing was added (``clean``) the figures are the PSNR to the image
itself.

The noise is made here, apart from the training corruption: demosaicking and blur are OpenCV's.
Sources are those that choices may be made on: ``pcam-kaggle/val``, the even positions of ``kather-crc-20x`` (nine of
the twelve are trained on by every preset), and ``val`` recoloured to other stains.
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from training import pages
from training.data import sources
from training.data.bank import recoloured
from training.evaluate import baselines
from training.evaluate.conditions import Condition
from training.evaluate.measures import interval, psnr
from training.evaluate.strengths import run_network
from training.noise import codecs
from wsi_denoise.network import weights

Image = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]
CLEAN = "clean"
NO_LESS = 0.3
"""Maximum loss in dB of a single image compared with its input."""


@dataclass(frozen=True)
class Kind:
    """A kind of noise.

    Parameters
    ----------
    sigma : float
        Strength in grey levels, for the name and for methods that need it.
    make : callable
        Takes a clean image, sigma and a generator, and returns the noisy image.
    """

    name: str
    sigma: float
    make: Condition


def _bytes(values: Values) -> Image:
    return np.asarray(np.rint(np.clip(values, 0, 255)), dtype=np.uint8)


def _phase(rng: np.random.Generator) -> tuple[int, int]:
    row, column = rng.integers(16, size=2).tolist()
    return row, column


def white(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add independent normal noise to every pixel and channel."""
    return _bytes(image + sigma * rng.standard_normal(image.shape))


def then_jpeg(quality: int, before: Condition = white, sampling: codecs.Sampling = "4:2:0") -> Condition:
    """Return noise followed by JPEG, with the JPEG grid at any phase."""

    def make(image: Image, sigma: float, rng: np.random.Generator) -> Image:
        return codecs.jpeg(before(image, sigma, rng), quality, sampling, _phase(rng))

    return make


def then_jpeg2000(level: float) -> Condition:
    """Return white noise followed by JPEG 2000."""

    def make(image: Image, sigma: float, rng: np.random.Generator) -> Image:
        return codecs.jpeg2000(white(image, sigma, rng), level, _phase(rng))

    return make


def between_channels(correlation: float) -> Condition:
    """Return noise with one correlation between any two channels: 1 is luminance grain."""

    def make(image: Image, sigma: float, rng: np.random.Generator) -> Image:
        own, common = rng.standard_normal(image.shape), rng.standard_normal((*image.shape[:2], 1))
        return _bytes(image + sigma * (np.sqrt(1.0 - correlation) * own + np.sqrt(correlation) * common))

    return make


def blurred(spread: float) -> Condition:
    """Return white noise, blurred by a Gaussian of `spread` pixels and rescaled to sigma."""

    def make(image: Image, sigma: float, rng: np.random.Generator) -> Image:
        soft = cv2.GaussianBlur(rng.standard_normal(image.shape), (0, 0), spread)
        return _bytes(image + sigma * soft / soft.std())

    return make


_BAYER = (
    (cv2.COLOR_BayerRGGB2RGB, cv2.COLOR_BayerRGGB2RGB_EA, cv2.COLOR_BayerRGGB2RGB_VNG),
    (cv2.COLOR_BayerGRBG2RGB, cv2.COLOR_BayerGRBG2RGB_EA, cv2.COLOR_BayerGRBG2RGB_VNG),
    (cv2.COLOR_BayerGBRG2RGB, cv2.COLOR_BayerGBRG2RGB_EA, cv2.COLOR_BayerGBRG2RGB_VNG),
    (cv2.COLOR_BayerBGGR2RGB, cv2.COLOR_BayerBGGR2RGB_EA, cv2.COLOR_BayerBGGR2RGB_VNG),
)
"""OpenCV's codes by phase; within a phase bilinear, edge-aware and variable number of gradients."""
_CHANNELS = (((0, 1), (1, 2)), ((1, 0), (2, 1)), ((1, 2), (0, 1)), ((2, 1), (1, 0)))
"""Channel sampled at [row % 2][column % 2], by phase."""


def mosaic(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add noise to the samples of a colour mosaic, and demosaic by any of OpenCV's methods."""
    border = 4
    whole = np.pad(image, ((border, border), (border, border), (0, 0)), mode="reflect")
    phase, method = int(rng.integers(4)), int(rng.integers(3))
    channels = np.array(_CHANNELS[phase])
    rows, columns = np.indices(whole.shape[:2])
    kept = whole[rows, columns, channels[rows % 2, columns % 2]]
    noisy = _bytes(kept + sigma * rng.standard_normal(kept.shape))
    found = cv2.cvtColor(noisy, _BAYER[phase][method])
    return np.ascontiguousarray(found[border:-border, border:-border], dtype=np.uint8)


def shot(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add shot noise in linear light (gamma 2.2), about sigma grey levels at mid-grey, three chips."""
    light = (image / 255.0) ** 2.2
    middle = (128 / 255.0) ** 2.2
    slope = 2.2 * (128 / 255.0) ** 1.2
    noise = sigma / 255.0 * slope * np.sqrt(np.maximum(light, 0.002) / middle) * rng.standard_normal(image.shape)
    return _bytes(255.0 * np.clip(light + noise, 0.0, 1.0) ** (1 / 2.2))


def salt_and_pepper(image: Image, _sigma: float, rng: np.random.Generator) -> Image:
    """Set 2 % of the pixels to black or white."""
    drawn = rng.random(image.shape[:2])
    noisy = image.copy()
    noisy[drawn < 0.01] = 0
    noisy[drawn > 0.99] = 255
    return noisy


def columns(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add one normal offset to each column, equal in all channels."""
    return _bytes(image + sigma * rng.standard_normal((1, image.shape[1], 1)))


def unchanged(image: Image, _sigma: float, _rng: np.random.Generator) -> Image:
    """Return the image."""
    return image


KINDS = (
    Kind(CLEAN, 0, unchanged),
    Kind("white 5", 5, white),
    Kind("white 10", 10, white),
    Kind("white 25", 25, white),
    Kind("white 50", 50, white),
    Kind("white 10, JPEG 80 4:2:0", 10, then_jpeg(80)),
    Kind("white 20, JPEG 80 4:2:0", 20, then_jpeg(80)),
    Kind("white 15, JPEG 98 4:2:0", 15, then_jpeg(98)),
    Kind("white 15, JPEG 2000 36 dB", 15, then_jpeg2000(36.0)),
    Kind("luminance grain 15", 15, between_channels(1.0)),
    Kind("channel correlation 0.4, 15", 15, between_channels(0.4)),
    Kind("channel correlation 0.8, 15", 15, between_channels(0.8)),
    Kind("white 15 blurred 0.4 px", 15, blurred(0.4)),
    Kind("white 15 blurred 0.6 px", 15, blurred(0.6)),
    Kind("white 15 blurred 0.8 px", 15, blurred(0.8)),
    Kind("white 10 blurred 1.5 px", 10, blurred(1.5)),
    Kind("shot noise 15", 15, shot),
    Kind("colour mosaic 10", 10, mosaic),
    Kind("colour mosaic 10, JPEG 80 4:2:0", 10, then_jpeg(80, mosaic)),
    Kind("salt and pepper 2 %", 25, salt_and_pepper),
    Kind("column stripes 8", 8, columns),
)
"""The measured kinds, in the order of the table."""


def _validation(patches: Path) -> Image:
    return np.stack([sources.load(file) for file in sources.images_in(patches / "pcam-kaggle" / "val")])


def _kather(patches: Path) -> Image:
    files = sorted(sources.images_in(patches / "kather-crc-20x"))[0::2]
    return np.stack([sources.load(file)[3:147, 3:147] for file in files])


def _recoloured(patches: Path) -> Image:
    clean = torch.from_numpy(_validation(patches)[200:]).permute(0, 3, 1, 2).float() / 255.0
    found = recoloured(clean, np.random.default_rng(20))
    return np.asarray((found * 255.0).round().byte().permute(0, 2, 3, 1).contiguous().numpy())


SOURCES: dict[str, Callable[[Path], Image]] = {
    "pcam-kaggle/val": _validation,
    "kather-crc-20x, even positions": _kather,
    "pcam-kaggle/val, recoloured": _recoloured,
}
"""Functions by name that take the folder of patches and return (images, side, side, 3) uint8."""


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


def noisy_images(clean: Image, source: str, kind: Kind, seed: int) -> Image:
    """Corrupt a source's images. The noise depends only on source, position, kind and seed."""
    key = [seed, zlib.crc32(source.encode()), zlib.crc32(kind.name.encode())]
    return np.stack([kind.make(image, kind.sigma, np.random.default_rng([*key, n])) for n, image in enumerate(clean)])


def measured(
    methods: Mapping[str, baselines.Method],
    patches: Path,
    *,
    sources: Sequence[str] = tuple(SOURCES),
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
        clean = SOURCES[source](patches)[:count]
        for kind in kinds:
            draws = 1 if kind.name == CLEAN else seeds
            noisy = [noisy_images(clean, source, kind, seed) for seed in range(draws)]
            before = np.stack([psnr(images, clean) for images in noisy])
            for name, method in methods.items():
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
        losing=int((single < (50.0 if kind == CLEAN else -NO_LESS)).sum()),
    )


def markdown(rows: Sequence[Row]) -> str:
    """Return one table per source, with a row per kind and a column per method: the gain with its interval."""
    parts = []
    for source in dict.fromkeys(row.source for row in rows):
        here = [row for row in rows if row.source == source]
        methods = list(dict.fromkeys(row.method for row in here))
        images = "/".join(str(n) for n in dict.fromkeys(row.images for row in here))
        seeds = "/".join(str(n) for n in dict.fromkeys(row.seeds for row in here if row.kind != CLEAN))
        about = f"`{source}`, {images} images, {seeds} noise seeds"
        lines = [about, "", f"| noise | {' | '.join(methods)} |", "|---" * (len(methods) + 1) + "|"]
        for kind in dict.fromkeys(row.kind for row in here):
            found = {row.method: row for row in here if row.kind == kind}
            cells = [_cell(found[method]) if method in found else "" for method in methods]
            lines.append(f"| {kind} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _cell(row: Row) -> str:
    if row.kind == CLEAN:
        return f"{row.psnr:.1f}, least {row.worst:.1f}"
    return f"{row.gain:+.2f} [{row.gain_low:+.2f}, {row.gain_high:+.2f}], worst {row.worst:+.2f}"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    options = argparse.ArgumentParser(prog="python -m training.evaluate.kinds", description=__doc__)
    options.add_argument("--preset", action="append", default=[], help="a preset that ships; may be repeated")
    options.add_argument("--run", type=Path, action="append", default=[], help="folder of a training run")
    options.add_argument("--shared", type=Path, default=sources.shared_folder(), help="folder with data/")
    options.add_argument("--source", action="append", choices=list(SOURCES), help="only these sources")
    options.add_argument("--seeds", type=int, default=3, help="draws of noise per image")
    options.add_argument("--count", type=int, help="only the first images of each source")
    options.add_argument("--threads", type=int, default=0, help="threads of torch; 0 leaves it to torch")
    options.add_argument("--out", type=Path, help="JSON to write")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure for the command-line options."""
    given = parser().parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    started = time.monotonic()
    presets = {name: baselines.network(weights.load(name)) for name in given.preset}
    runs = {folder.name: baselines.network(run_network(folder)) for folder in given.run}
    sources = given.source or tuple(SOURCES)
    methods = {**presets, **runs}
    patches = given.shared / "data" / "patches"
    rows = list(measured(methods, patches, sources=sources, seeds=given.seeds, count=given.count))
    print(markdown(rows))
    if given.out:
        checksums = {name: weights.card(name).sha256 for name in given.preset}
        first = next(iter(checksums.values()), "")
        minutes = round((time.monotonic() - started) / 60.0, 1)
        about = {"sha256": first, "presets": checksums, "threads": torch.get_num_threads(), "minutes": minutes}
        pages.write_json(given.out, {**about, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
