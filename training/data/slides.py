"""Crops of whole slides, sampled on their tissue mask: ``python -m training.data.slides SLIDE... --out crops``.

To train on the folder: ``python -m training.run.train --also crops``. Most slides were compressed as JPEG, so crops are
reduced first (``--scale``, 0.5 by default, which destroys blocks of 8 x 8 px). Reader and mask are those of the daemon.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image

from training import command, pages
from training.data.sources import Image, checksum
from wsi_denoise.errors import WsiDenoiseError
from wsi_denoise.slide import reader, tissue
from wsi_denoise.slide.base import Slide
from wsi_denoise.slide.geometry import PATCH, Lattice


def crops(
    slide: Slide, count: int, side: int, scale: float, rng: np.random.Generator
) -> Iterator[tuple[int, int, Image]]:
    """Sample crops with tissue, from different places if possible.

    Parameters
    ----------
    count, side : int
        Number of crops, and their width and height in pixels after scaling.
    scale : float
        At most 1; a crop has side / scale pixels before scaling.

    Yields
    ------
    x, y : int
        Upper left corner at level 0.
    image : (side, side, 3) uint8
    """
    width, height = slide.info.width, slide.info.height
    wanted = min(round(side / scale), width, height)
    lattice = Lattice(width, height)
    thumbnail = slide.thumbnail(tissue.thumbnail_side(lattice.patch_shape))
    mask = tissue.tissue_patches(thumbnail, lattice.patch_shape, (width, height), dilate=0)
    places = np.argwhere(mask.patches)
    rng.shuffle(places)
    taken: list[tuple[int, int]] = []
    for row, column in places:
        x = int(np.clip(column * PATCH + PATCH // 2 - wanted // 2, 0, width - wanted))
        y = int(np.clip(row * PATCH + PATCH // 2 - wanted // 2, 0, height - wanted))
        if any(max(abs(x - there[0]), abs(y - there[1])) < wanted for there in taken):
            continue
        taken.append((x, y))
        piece = PIL.Image.fromarray(slide.read(x, y, wanted, wanted))
        yield x, y, np.asarray(piece.resize((side, side), PIL.Image.Resampling.BOX if scale < 1 else None))
        if len(taken) == count:
            return


def main(arguments: list[str] | None = None) -> int:
    """Write crops for the command-line options."""
    options = command.parser("training.data.slides", __doc__)
    options.add_argument("slide", type=Path, nargs="+")
    options.add_argument("--out", type=Path, required=True, help="folder for the crops, as lossless WebP")
    options.add_argument("--count", type=int, default=60, help="crops of each slide at most")
    options.add_argument("--side", type=int, default=192, help="width and height of a crop in pixels")
    options.add_argument("--scale", type=float, default=0.5, help="made smaller by this; 1 only without JPEG")
    options.add_argument("--licence", default="not stated", help="of the slides; goes into the list")
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args(arguments)
    if not 0 < given.scale <= 1:
        options.error("--scale is above 0 and at most 1")
    found = []
    for path in given.slide:
        rng = np.random.default_rng([given.seed, len(found)])
        try:
            with reader.open_slide(path) as slide:
                for x, y, image in crops(slide, given.count, given.side, given.scale, rng):
                    name = f"{path.name}.{x}.{y}.webp"
                    pages.write_image(given.out / name, image)
                    found.append({"file": name, "slide": path.name, "x": x, "y": y})
        except WsiDenoiseError as error:
            print(error, file=sys.stderr)
            return 1
    checksums = {path.name: checksum(path) for path in given.slide if path.is_file()}
    about = {"licence": given.licence, "scale": given.scale, "seed": given.seed, "slides": checksums, "crops": found}
    pages.write_json(given.out / "crops.json", about)
    print(f"{len(found)} crops of {given.side} px in {given.out}; their list is crops.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
