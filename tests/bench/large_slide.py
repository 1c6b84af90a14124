"""Make large slides of real tissue, to measure memory and time on.

    python tests/bench/large_slide.py 10000 /tmp/bench/10k.tiff
    python tests/bench/large_slide.py 40000 /tmp/bench/40k.tiff --one-level

A third of the slide is tissue: crops of the H&E picture that ships with tiatoolbox, each from a random place, turned
and mirrored at random. The rest is glass. Noise lies on all of it, so that no codec has an easy time anywhere. The same
side gives the same bytes. Memory stays flat: a band of 256 rows at a time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_denoise.slide import demo
from wsi_denoise.slide.encoding import Encoding, cut
from wsi_denoise.slide.geometry import TILE, count, level_sizes, tile_shape
from wsi_denoise.slide.halving import halve
from wsi_denoise.slide.pyramid import Bands, Header, Level, write_pyramid

Pixels = NDArray[np.uint8]

CELL = 768
"""Side of a crop in pixels: three tiles, eight patches."""

PLACE = 192
"""Side of the squares that are tissue or glass, in pixels."""

GLASS = (243, 242, 245)
SIGMA = 4.0
MPP = 0.25
ENCODING = Encoding("jpeg", 90, "4:2:2")
ELLIPSES = ((0.30, 0.34, 0.22, 0.25), (0.72, 0.30, 0.15, 0.18), (0.62, 0.74, 0.23, 0.105))
"""Centre and half axes (x, y, x, y) in shares of the slide; together a third of it."""

THIRD = 1 / 3
_NOISE = 1024


@dataclass(frozen=True)
class Large:
    """Draws bands of a slide from the top.

    Parameters
    ----------
    side : int
        Width and height in pixels.
    seed : int
    share : float
        How much of it is tissue, 0 to a third, or 1 for all of it.
    """

    side: int
    seed: int = 1
    share: float = THIRD

    def bands(self) -> Iterator[Pixels]:
        """Yield (up to 256, side, 3) uint8 from top to bottom."""
        chance = np.random.default_rng(self.seed)
        picture = demo.tissue()
        crops = [np.rot90(turned, times) for turned in (picture, picture[:, ::-1]) for times in range(4)]
        noise = np.rint(chance.normal(0, SIGMA, (_NOISE, _NOISE, 3))).astype(np.int16)
        columns = count(self.side, CELL)
        for top in range(0, self.side, TILE):
            within = top % CELL
            if not within:
                cells = [(int(chance.integers(8)), *chance.integers(0, len(picture) - CELL, 2)) for _ in range(columns)]
            rows = min(TILE, self.side - top)
            band = np.empty((rows, columns * CELL, 3), np.uint8)
            for number, (turn, y, x) in enumerate(cells):
                crop = crops[turn][y + within : y + within + rows, x : x + CELL]
                band[:, number * CELL : (number + 1) * CELL] = crop
            band = band[:, : self.side]
            if self.share < 1:
                glass = ~self._tissue(top, rows)
                band[glass] = GLASS
            yield self._noisy(band, noise, chance)

    def _tissue(self, top: int, rows: int) -> NDArray[np.bool_]:
        """Return where a band is tissue, (rows, side)."""
        middles = (np.arange(self.side) // PLACE * PLACE + PLACE / 2) / self.side
        across, down = middles[None, :], middles[top : top + rows, None]
        mask = np.zeros((rows, self.side), np.bool_)
        limit = self.share / THIRD
        for x, y, half_x, half_y in ELLIPSES:
            mask |= ((across - x) / half_x) ** 2 + ((down - y) / half_y) ** 2 <= limit
        return mask

    @staticmethod
    def _noisy(band: Pixels, noise: NDArray[np.int16], chance: np.random.Generator) -> Pixels:
        height, width = band.shape[:2]
        result = np.empty_like(band)
        for left in range(0, width, TILE):
            y, x = chance.integers(0, _NOISE - TILE, 2)
            part = band[:, left : left + TILE]
            drawn = noise[y : y + height, x : x + part.shape[1]]
            result[:, left : left + TILE] = np.clip(part + drawn, 0, 255)
        return result


def write(path: Path, side: int, *, one_level: bool = False, share: float = THIRD, seed: int = 1) -> Path:
    """Write a slide of `side` x `side` pixels and return its path.

    Parameters
    ----------
    path : Path
    side : int
    one_level : bool
        Without the smaller levels: then a thumbnail has to be made of level 0.
    share : float
        How much of it is tissue, 0 to a third, or 1 for all of it.
    seed : int
    """
    sizes = level_sizes(side, side)
    part = path.with_name(f".{path.name}.part")
    drawn = Large(side, seed, share).bands()
    header = Header(f"Tiled from tiatoolbox's H&E picture, {side} x {side} px. Research use only.", (MPP, MPP))
    if one_level or len(sizes) == 1:
        tiles = (tile for band in drawn for tile in _encoded(band))
        write_pyramid(part, [Level(sizes[0], tiles)], ENCODING, header)
    else:
        above = Bands(sizes[1:], ENCODING, path.parent)
        try:
            smaller = [Level(size, _later(above, number)) for number, size in enumerate(sizes[1:])]
            write_pyramid(part, [Level(sizes[0], _full(drawn, above)), *smaller], ENCODING, header)
        finally:
            above.close()
    part.replace(path)
    return path


def _encoded(band: Pixels) -> Iterator[bytes]:
    for column in range(tile_shape(band.shape[1], band.shape[0])[1]):
        yield ENCODING.encode(cut(band, 0, column))


def _full(drawn: Iterator[Pixels], above: Bands) -> Iterator[bytes]:
    """Yield the tiles of level 0, and feed the levels above on the way."""
    for band in drawn:
        # Before the tiles: the last one ends the iteration.
        above.feed(halve(band))
        yield from _encoded(band)


def _later(above: Bands, number: int) -> Iterator[bytes]:
    """Yield the tiles of a smaller level; by the time that the first is asked for, it is complete."""
    yield from list(above.levels())[number].tiles


def main() -> None:
    """Make a slide by the command line's wish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", type=int, help="width and height in pixels")
    parser.add_argument("path", type=Path)
    parser.add_argument("--one-level", action="store_true", help="without the smaller levels")
    parser.add_argument("--share", type=float, default=THIRD, help="how much is tissue, 0 to a third, or 1")
    arguments = parser.parse_args()
    begun = time.process_time()
    arguments.path.parent.mkdir(parents=True, exist_ok=True)
    write(arguments.path, arguments.side, one_level=arguments.one_level, share=arguments.share)
    size = arguments.path.stat().st_size / 1e6
    print(f"{arguments.path}: {size:.0f} MB, {time.process_time() - begun:.0f} s of processor time")


if __name__ == "__main__":
    main()
