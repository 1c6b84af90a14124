"""Count nuclei before and after denoising: ``python -m training.evaluate.nuclei --preset paper --out FILE``.

The same detector runs on the clean, the noisy and the denoised image. Nuclei of the clean image are the reference: a
nucleus is found again if a centre lies within 6 px of its own, one to one. F1 is the harmonic mean of precision and
recall, as mean over images with its 95 % bootstrap interval. A preset loses nuclei in an image where it
leaves more than 5 % fewer than the clean image has.

Detector: haematoxylin density by colour deconvolution (Ruifrok and Johnston 2001, scikit-image's ``rgb2hed``), a
Gaussian of 1 px, Otsu's threshold, holes filled, and a watershed of the distance to the border. Objects of at least
30 px count. Nothing is random. It is simple on purpose: its counts are consistent, not accurate. None of its values
was chosen on the images that are measured.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from skimage.color import rgb2hed
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from training import command, pages
from training.evaluate import baselines, methods, split
from training.evaluate.measures import interval
from training.evaluate.noises import KINDS, Kind, noisy_images

Image = npt.NDArray[np.uint8]
Centres = npt.NDArray[np.float64]

SOURCE = "monuseg/test"
SPREAD, APART, SMALLEST = 1.0, 7, 30
"""Spread of the Gaussian, least distance of two centres, both in pixels, and least size of a nucleus."""
REACH = 6.0
"""Pixels: largest distance of a nucleus that is found again."""
LOST = 0.05
"""Share of the nuclei of a clean image. With fewer by more than this, nuclei are lost."""
SHOWN = (
    *("white 10", "white 25", "white 50", "white 10, JPEG 80 4:2:0", "white 20, JPEG 80 4:2:0", "luminance grain 15"),
    *("channel correlation 0.8, 15", "white 15 blurred 0.8 px", "shot noise 15", "colour mosaic 10, JPEG 80 4:2:0"),
    *("salt and pepper 2 %", "column stripes 8"),
)
"""The measured kinds of noise; the clean image is measured too."""


def centres_of(image: Image) -> Centres:
    """Return the centres of the nuclei of an image, (height, width, 3), as (count, 2) rows and columns."""
    density = ndimage.gaussian_filter(rgb2hed(image)[..., 0], SPREAD)
    if np.ptp(density) < 1e-6:
        return np.empty((0, 2))
    mask = ndimage.binary_fill_holes(density > threshold_otsu(density))
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.0)
    peaks = (distance == ndimage.maximum_filter(distance, size=2 * APART + 1)) & mask
    markers, _ = ndimage.label(peaks)
    labels = watershed(-distance, markers, mask=mask)
    large = np.flatnonzero(np.bincount(labels.ravel())[1:] >= SMALLEST) + 1
    return np.array(ndimage.center_of_mass(mask, labels, large)).reshape(-1, 2)


def found_again(reference: Centres, found: Centres) -> int:
    """Return how many nuclei of the reference have a partner within reach, one to one."""
    if not len(reference) or not len(found):
        return 0
    distance = cdist(reference, found)
    # A pair out of reach costs more than any number of pairs within it.
    pairs = linear_sum_assignment(np.where(distance <= REACH, distance, 1e6))
    return int((distance[pairs] <= REACH).sum())


def f1(reference: Centres, found: Centres) -> float:
    """Return the F1 of nuclei; 1 if both images have none."""
    total = len(reference) + len(found)
    return 2.0 * found_again(reference, found) / total if total else 1.0


@dataclass(frozen=True)
class Row:
    """Nuclei of one source at one kind of noise.

    Parameters
    ----------
    clean, noisy, denoised : float
        Mean number of nuclei per image.
    f1_noisy, f1_denoised : float
        Mean F1 against the clean image; the second with its interval.
    losing_noisy, losing : int
        Number of images with more than 5 % fewer nuclei than the clean one, before and after denoising.
    """

    source: str
    method: str
    kind: str
    images: int
    clean: float
    noisy: float
    denoised: float
    f1_noisy: float
    f1_denoised: float
    f1_low: float
    f1_high: float
    losing_noisy: int
    losing: int


def measured(found: Mapping[str, baselines.Method], clean: Image, source: str, kinds: Sequence[Kind]) -> Iterator[Row]:
    """Measure methods on the images of a source, with one draw of noise each."""
    truth = [centres_of(image) for image in clean]
    for kind in kinds:
        noisy = noisy_images(clean, source, kind, 0)
        before = [centres_of(image) for image in noisy]
        for name, method in found.items():
            yield _row(source, name, kind.name, truth, before, [centres_of(one) for one in method(noisy, kind.sigma)])


def _row(source: str, method: str, kind: str, truth: list[Centres], before: list[Centres], after: list[Centres]) -> Row:
    clean, noisy, denoised = (np.array([len(one) for one in images]) for images in (truth, before, after))
    f1_noisy, f1_denoised = (np.array(list(map(f1, truth, images))) for images in (before, after))
    low, high = interval(f1_denoised)
    return Row(
        source,
        method,
        kind,
        images=len(truth),
        clean=round(float(clean.mean()), 1),
        noisy=round(float(noisy.mean()), 1),
        denoised=round(float(denoised.mean()), 1),
        f1_noisy=round(float(f1_noisy.mean()), 3),
        f1_denoised=round(float(f1_denoised.mean()), 3),
        f1_low=round(low, 3),
        f1_high=round(high, 3),
        losing_noisy=int((noisy < (1.0 - LOST) * clean).sum()),
        losing=int((denoised < (1.0 - LOST) * clean).sum()),
    )


def markdown(rows: Sequence[Row]) -> str:
    """Return a table with a line per kind of noise: F1 and count without and with each method, and the losses."""
    cells: dict[tuple[str, str], str] = {}
    for row in rows:
        cells[row.kind, "noisy"] = _cell(row.f1_noisy, row.noisy, row.losing_noisy, row)
        after = _cell(row.f1_denoised, row.denoised, row.losing, row)
        cells[row.kind, row.method] = f"**{after}**" if row.losing > row.losing_noisy else after
    some, worst = rows[0], {row.method: row for row in sorted(rows, key=lambda row: row.losing)}
    about = f"F1 of nuclei on {some.images} images of `{some.source}` with {some.clean:.0f} nuclei each, on average."
    count = "In brackets: nuclei against the clean image, and the number of images with more than 5 % fewer."
    bold = "Bold: more such images than before denoising."
    losses = [
        f"`{name}` leaves more than 5 % fewer nuclei in up to {row.losing} of {row.images} images ({row.kind})."
        for name, row in worst.items()
        if row.losing
    ]
    return "\n".join([pages.crossed("noise", cells), "", f"{about} {count} {bold}", *losses])


def _cell(quality: float, count: float, losing: int, row: Row) -> str:
    return f"{quality:.2f} ({100.0 * (count / max(row.clean, 1.0) - 1.0):+.0f} %, {losing})"


def parser() -> ArgumentParser:
    """Return the command line."""
    options = command.parser("training.evaluate.nuclei", __doc__, "preset", "run", "shared", "count", "threads", "out")
    options.add_argument("--source", choices=list(split.FIELDS), default=SOURCE)
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure for the command-line options."""
    given = command.parsed(parser(), arguments)
    started = time.monotonic()
    clean = split.FIELDS[given.source](given.shared / "data" / "patches")[: given.count]
    kinds = [kind for kind in KINDS if kind.name in {"clean", *SHOWN}]
    rows = list(measured(methods.named(given.preset, given.run), clean, given.source, kinds))
    print(markdown(rows))
    if given.out:
        about = methods.about(given.preset, started)
        pages.write_json(given.out, {**about, "rows": [asdict(row) for row in rows]})


def read(folder: Path, presets: Sequence[str]) -> list[Row]:
    """Read the rows of the presets' tables in a folder."""
    files = [folder / f"{preset}-nuclei.json" for preset in presets]
    return [Row(**row) for file in files if file.is_file() for row in pages.read_json(file)["rows"]]


if __name__ == "__main__":
    main()
