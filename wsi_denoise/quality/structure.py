"""Measurements of removed or added structure, colour, sharpness, and seams.

Noise averages out over 8 x 8 px and structure does not, so most measurements use means of cells. Clipping at 0 or 255
shifts the mean of the input by a known amount (:func:`wsi_denoise.quality.noise.clip_bias`), which is tolerated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_denoise.quality.fidelity import CELL, Cells, channel_mean
from wsi_denoise.quality.noise import clip_bias

Scalar = TypeVar("Scalar", bound=np.generic)

PATCH = 96
PATCH_CELLS = PATCH // CELL

SEAM_STEP = 16
"""Lattice lines are compared with lines at this distance in px: the same phase of JPEG blocks and of 4:2:0 chroma."""

WHITE = 256.0
"""Transmitted light without stain."""

# Ruifrok and Johnston (2001): optical density of haematoxylin, eosin and DAB in red, green and blue, rows of length 1.
_STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
_UNMIX = np.linalg.inv(_STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True))
# Converts natural logarithms, which are faster, to optical density, which is decadic.
_HAEMATOXYLIN_EOSIN = (_UNMIX[:, :2] / -np.log(10)).astype(np.float32)


def low_residual(cells: Cells, sigma: float) -> NDArray[np.float32]:
    """Return input minus output per cell without the part due to clipping: (rows, cols, 3) float32 grey levels."""
    difference = cells.before - cells.after
    bias = clip_bias(cells.after, sigma)
    return np.asarray(difference - np.clip(difference, np.minimum(bias, 0), np.maximum(bias, 0)))


def stain_density(mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return optical density of haematoxylin and eosin.

    Parameters
    ----------
    mean : ndarray
        (..., 3) float32 RGB grey levels; means of cells, because the logarithm of a noisy pixel is biased.

    Returns
    -------
    ndarray
        (..., 2) float32: H, E.
    """
    density = np.log((np.clip(mean, 0, 255) + np.float32(1)) / np.float32(WHITE))
    return np.asarray(density @ _HAEMATOXYLIN_EOSIN, np.float32)


def patch_grid(height: int, width: int) -> tuple[int, int]:
    """Return (rows, cols) of the 96-px patches that cover an image; the last ones may be partial."""
    return -(-height // PATCH), -(-width // PATCH)


def cell_values(patches: NDArray[Scalar], shape: tuple[int, ...]) -> NDArray[Scalar]:
    """Repeat values of patches, (rows, cols), for their cells; `shape` is (cell rows, cell cols)."""
    spread = np.repeat(np.repeat(patches, PATCH_CELLS, axis=0), PATCH_CELLS, axis=1)
    return np.asarray(spread[: shape[0], : shape[1]])


def by_patch(values: NDArray[np.float32], grid: tuple[int, int], *, fill: float) -> NDArray[np.float32]:
    """Arrange values of cells by patches.

    Parameters
    ----------
    values : ndarray
        (cell rows, cell cols) float32.
    grid : tuple of int
        (rows, cols) of patches.
    fill : float
        Value for missing cells of a patch at the border.

    Returns
    -------
    ndarray
        (rows, cols, 144) float32.
    """
    full = np.full((grid[0] * PATCH_CELLS, grid[1] * PATCH_CELLS), fill, np.float32)
    rows, cols = min(full.shape[0], values.shape[0]), min(full.shape[1], values.shape[1])
    full[:rows, :cols] = values[:rows, :cols]
    split = full.reshape(grid[0], PATCH_CELLS, grid[1], PATCH_CELLS).swapaxes(1, 2)
    return split.reshape(grid[0], grid[1], PATCH_CELLS * PATCH_CELLS)


@dataclass(frozen=True)
class PatchLayers:
    """Measurements per 96-px patch, each (rows, cols) float32 in grey levels; NaN if not measured.

    Parameters
    ----------
    removed_sigma : ndarray
        Root mean square of the residual.
    lighter, darker : ndarray
        Largest change of a mean of 8 x 8 or 16 x 16 px relative to the patch's median change. A lighter output lacks
        stained structure, a darker one has new structure. Means of 16 x 16 px count double, because their noise is
        halved.
    low_sigma : ndarray
        Robust standard deviation of the residual of 8 x 8 means, due to noise (white or correlated) and small errors.
    mismatch : ndarray
        1 - covariance of input and output (means of 8 x 8 px) divided by the lesser of their variances. It is 0 for the
        same tissue, even if a part of it is missing or new, and about 1 for other tissue. No unit.
    shift : ndarray
        Greatest change of a channel's mean over the patch, without the part due to clipping. It is 0 if less than a
        quarter of the patch is on the slide, because noise shifts the mean of a small area.
    """

    removed_sigma: NDArray[np.float32]
    lighter: NDArray[np.float32]
    darker: NDArray[np.float32]
    low_sigma: NDArray[np.float32]
    mismatch: NDArray[np.float32]
    shift: NDArray[np.float32]


MISMATCH_FLOOR = 36.0
"""Minimum variance (grey levels squared) for a mismatch: patches with less have too little contrast."""


def patch_layers(
    cells: Cells, residual: NDArray[np.float32], grid: tuple[int, int], chosen: NDArray[np.bool_]
) -> PatchLayers:
    """Measure every patch of a block.

    Parameters
    ----------
    cells : Cells
    residual : ndarray
        Result of :func:`low_residual`, (rows, cols, 3) float32.
    grid : tuple of int
        (rows, cols) of patches.
    chosen : ndarray
        (cell rows, cell cols) bool: cells of denoised patches. Other cells do not affect their results.
    """
    nan = float("nan")
    empty = by_patch(np.zeros(residual.shape[:2], np.float32), grid, fill=1.0).min(axis=2) > 0
    grey = _without_gain(channel_mean(residual), channel_mean((cells.before + cells.after) / np.float32(2)), chosen)
    power = _nanmean(by_patch(channel_mean(cells.residual_square), grid, fill=nan), empty)
    low = by_patch(grey, grid, fill=nan)
    centre = _nanmedian(low, empty)
    spread = _nanmedian(np.abs(low - centre[..., None]), empty) / np.float32(0.67449)
    lowest, highest = _extremes(grey - cell_values(centre, grey.shape), grid)
    mismatch = _mismatch(cells, grid, empty)
    means = [_nanmean(by_patch(residual[..., channel], grid, fill=nan), empty) for channel in range(3)]
    there = by_patch(np.ones(residual.shape[:2], np.float32), grid, fill=0.0).sum(axis=2)
    shift = np.where(there >= PATCH_CELLS**2 / 4, np.abs(np.stack(means)).max(axis=0), np.float32(0))
    layers = (np.sqrt(power), np.maximum(-lowest, 0), np.maximum(highest, 0), spread, mismatch, shift)
    for layer in layers:
        layer[empty] = nan
    return PatchLayers(*(np.asarray(layer, np.float32) for layer in layers))


def _mismatch(cells: Cells, grid: tuple[int, int], empty: NDArray[np.bool_]) -> NDArray[np.float32]:
    nan = float("nan")
    before = by_patch(channel_mean(cells.before), grid, fill=nan)
    after = by_patch(channel_mean(cells.after), grid, fill=nan)
    lesser = np.minimum(_nanvar(before, empty), _nanvar(after, empty))
    both = (_nanvar(before + after, empty) - _nanvar(before - after, empty)) / 4
    plain = lesser < MISMATCH_FLOOR
    return np.where(plain, np.float32(0), 1 - both / np.where(plain, np.float32(1), lesser)).astype(np.float32)


GAIN = 0.3
"""Maximum share of a block's contrast that is attributed to a change of colour, and not to structure."""


def _without_gain(
    grey: NDArray[np.float32], level: NDArray[np.float32], chosen: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Remove a change of contrast from the residual: paler stain everywhere is colour, not missing nuclei."""
    x, y = level[chosen], grey[chosen]
    if not x.size:
        return grey
    weight = np.ones_like(x)
    slope = offset = 0.0
    for _ in range(4):  # least absolute deviations, which a few cells with missing or new structure do not bias
        total = float(weight.sum())
        offset_x, offset_y = float(np.vdot(weight, x)) / total, float(np.vdot(weight, y)) / total
        spread = weight * (x - offset_x)
        power = float(np.vdot(spread, x - offset_x))
        slope = float(np.vdot(spread, y - offset_y)) / power if power > 0 else 0.0
        offset = offset_y - slope * offset_x
        weight = np.asarray(1 / np.maximum(np.abs(y - offset - slope * x), 0.5), np.float32)
    rest = grey - np.float32(np.clip(slope, -GAIN, GAIN)) * (level - np.float32(x.mean()))
    return np.where(chosen, rest, np.float32(0)).astype(np.float32)


def _extremes(grey: NDArray[np.float32], grid: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the least and greatest residual per patch over 8-px means and twice the sliding 16-px means."""
    lows, highs = by_patch(grey, grid, fill=np.inf).min(axis=2), by_patch(grey, grid, fill=-np.inf).max(axis=2)
    if min(grey.shape) >= 2:
        wide = np.asarray((grey[:-1, :-1] + grey[1:, :-1] + grey[:-1, 1:] + grey[1:, 1:]) / 2, np.float32)
        lows = np.minimum(lows, by_patch(wide, grid, fill=np.inf).min(axis=2))
        highs = np.maximum(highs, by_patch(wide, grid, fill=-np.inf).max(axis=2))
    return lows, highs


def _nanmean(values: NDArray[np.float32], empty: NDArray[np.bool_]) -> NDArray[np.float32]:
    filled = np.where(empty[..., None], np.float32(0), values)
    return np.asarray(np.nanmean(filled, axis=2), np.float32)


def _nanvar(values: NDArray[np.float32], empty: NDArray[np.bool_]) -> NDArray[np.float32]:
    filled = np.where(empty[..., None], np.float32(0), values)
    return np.asarray(np.nanvar(filled, axis=2), np.float32)


def _nanmedian(values: NDArray[np.float32], empty: NDArray[np.bool_]) -> NDArray[np.float32]:
    filled = np.where(empty[..., None], np.float32(0), values)
    if np.isnan(filled).any():
        return np.asarray(np.nanmedian(filled, axis=2), np.float32)
    return np.asarray(np.median(filled, axis=2), np.float32)


def luma(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the grey image, (height, width) uint8, of an RGB image."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), np.uint8)


_STRIP = 64
"""Number of rows that fit into the processor's cache."""


def gradients(
    before: NDArray[np.uint8], after: NDArray[np.uint8], chosen: NDArray[np.bool_]
) -> dict[int, tuple[float, float, float]]:
    """Return sums of gradient products on means of 2 and of 4 px.

    Parameters
    ----------
    before, after : ndarray
        (height, width) uint8.
    chosen : ndarray
        (height // 8, width // 8) bool: the cells to use.

    Returns
    -------
    dict of int to tuple of float
        By scale, 2 and 4 px, at which noise is a half and a quarter of its sigma per pixel. Sum of output . output, of
        input . output, and of input . input. Noise in the input is independent of the output's edges, so the second sum
        is free of noise. input . output / output . output is 1 if the output keeps the strength of every edge, and
        greater if it weakens edges.
    """
    if not chosen.any():
        return {2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)}
    rows, cols = chosen.shape[0] * CELL, chosen.shape[1] * CELL
    fine = _halved(before[:rows, :cols]), _halved(after[:rows, :cols])
    coarse = _halved(fine[0]), _halved(fine[1])
    return {scale: _gradient_products(*means, chosen, scale) for scale, means in ((2, fine), (4, coarse))}


def _halved(image: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Return means of 2 x 2 px of a grey image with even sides."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    result = np.empty((height, width), np.float32)
    for top in range(0, height, _STRIP):
        part = result[top : top + _STRIP]
        strip = image[2 * top : 2 * (top + len(part))].astype(np.float32, copy=False)
        cv2.resize(strip, (width, len(part)), dst=part, interpolation=cv2.INTER_AREA)
    return result


def _gradient_products(
    before: NDArray[np.float32], after: NDArray[np.float32], chosen: NDArray[np.bool_], scale: int
) -> tuple[float, float, float]:
    repeat = CELL // scale
    weight = None
    if not chosen.all():
        weight = np.repeat(np.repeat(chosen, repeat, axis=0), repeat, axis=1).astype(np.float32)
    sums = np.zeros(3)
    for top in range(0, len(before), _STRIP):
        across = slice(top, top + _STRIP)
        down = slice(max(top - 1, 0), top + _STRIP)
        for part, axis in ((across, 1), (down, 0)):
            gb, ga = np.diff(before[part], axis=axis), np.diff(after[part], axis=axis)
            ga_w, gb_w = ga, gb
            if weight is not None:
                w = weight[part][1:] if axis == 0 else weight[part][:, 1:]
                ga_w, gb_w = ga * w, gb * w
            sums += (np.vdot(ga_w, ga), np.vdot(ga_w, gb), np.vdot(gb_w, gb))
    return (float(sums[0]), float(sums[1]), float(sums[2]))


@dataclass(frozen=True)
class LatticeLines:
    """Gradient energy across the patch lines inside a block, and across the lines 16 px to both sides of them.

    The values are sums of squared steps, in grey levels squared, over pieces of the length of a patch's side.

    Parameters
    ----------
    on_before, on_after : float
        On the lattice (multiples of 96), in input and output.
    off_before, off_after : float
        Beside the lattice: mean of the two neighbours of each line.
    scatter : float
        Sum over pieces of (on_after - off_after) squared, for the standard error.
    """

    on_before: float = 0.0
    on_after: float = 0.0
    off_before: float = 0.0
    off_after: float = 0.0
    scatter: float = 0.0


def lattice_lines(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> LatticeLines:
    """Measure the patch lines of a block; `before`, `after`: (height, width) uint8 grey, origin on the lattice."""
    sums = np.zeros(5)
    for turned in (False, True):
        b, a = (before.T, after.T) if turned else (before, after)
        lines = np.arange(PATCH, b.shape[1] - SEAM_STEP, PATCH)
        if not lines.size or not b.shape[0]:
            continue
        on_b, on_a = _step_energy(b, lines), _step_energy(a, lines)
        off_b = (_step_energy(b, lines - SEAM_STEP) + _step_energy(b, lines + SEAM_STEP)) / 2
        off_a = (_step_energy(a, lines - SEAM_STEP) + _step_energy(a, lines + SEAM_STEP)) / 2
        sums += (on_b.sum(), on_a.sum(), off_b.sum(), off_a.sum(), np.square(on_a - off_a).sum())
    return LatticeLines(*(float(value) for value in sums))


def _step_energy(image: NDArray[np.uint8], lines: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum the squared steps across columns, in pieces of 96 rows: (pieces, lines)."""
    step = image[:, lines].astype(np.float32) - image[:, lines - 1]
    pieces = np.arange(0, image.shape[0], PATCH)
    return np.asarray(np.add.reduceat(step * step, pieces, axis=0), np.float64)


@dataclass(frozen=True)
class Edges:
    """A block's border pixels, stored in its spool to measure the lines between blocks later.

    Parameters
    ----------
    before, after : tuple of ndarray
        Left column, right column (height,), top row, bottom row (width,): uint8 grey.
    """

    before: tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
    after: tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]

    def to_arrays(self) -> dict[str, NDArray[np.uint8]]:
        """Return arrays for ``numpy.savez``."""
        names = ("left", "right", "top", "bottom")
        return {
            f"edge_{when}_{name}": strip
            for when, strips in (("before", self.before), ("after", self.after))
            for name, strip in zip(names, strips, strict=True)
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.uint8]]) -> Edges:
        """Return the edges for arrays of :meth:`to_arrays`; other keys are ignored."""

        def side(when: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
            left, right = arrays[f"edge_{when}_left"], arrays[f"edge_{when}_right"]
            return (left, right, arrays[f"edge_{when}_top"], arrays[f"edge_{when}_bottom"])

        return cls(side("before"), side("after"))


def edges(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Edges:
    """Return the border pixels of one block; `before` and `after` are (height, width, 3) uint8."""

    def strips(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
        left, right = luma(image[:, :1])[:, 0], luma(image[:, -1:])[:, 0]
        return (left, right, luma(image[:1])[0], luma(image[-1:])[0])

    left, right, top, bottom = strips(before)
    left_after, right_after, top_after, bottom_after = strips(after)
    return Edges((left, right, top, bottom), (left_after, right_after, top_after, bottom_after))


@dataclass(frozen=True)
class Seam:
    """Gradient energy across lines between blocks.

    Parameters
    ----------
    before, after, samples : float
        Energy of input and output in grey levels squared, as sums over `samples` pixels.
    scatter : float
        Sum over lines of the output's energy squared, for the standard error.
    worst : float
        Greatest difference on a line between the root mean square steps of output and input, grey levels.
    """

    before: float = 0.0
    after: float = 0.0
    samples: float = 0.0
    scatter: float = 0.0
    worst: float = -255.0

    def __add__(self, other: Seam) -> Seam:
        return Seam(
            self.before + other.before,
            self.after + other.after,
            self.samples + other.samples,
            self.scatter + other.scatter,
            max(self.worst, other.worst),
        )


def block_seam(first: Edges, second: Edges, *, below: bool = False) -> Seam:
    """Measure the line between two adjacent blocks.

    Parameters
    ----------
    first, second : Edges
        The left and the right block, or with `below` the upper and the lower one.
    below : bool
        `second` is below `first`.
    """
    one, two = (3, 2) if below else (1, 0)
    length = min(first.before[one].size, second.before[two].size)
    if length == 0:
        return Seam()

    def energy(end: NDArray[np.uint8], start: NDArray[np.uint8]) -> float:
        step = end[:length].astype(np.float64) - start[:length]
        return float(np.dot(step, step))

    before, after = energy(first.before[one], second.before[two]), energy(first.after[one], second.after[two])
    worst = (after / length) ** 0.5 - (before / length) ** 0.5
    return Seam(before, after, float(length), after**2, worst)


def seam_lines(strips: Mapping[tuple[int, int], Edges], where: Iterable[tuple[int, int]] | None = None) -> Seam:
    """Measure the lines between all adjacent blocks.

    Parameters
    ----------
    strips : mapping
        From (col, row) of a block to its border pixels. The mapping may read the spool at each access.
    where : iterable of tuple of int, optional
        (col, row) of the blocks whose left and upper lines are measured, such as those with tissue; all of `strips` by
        default.
    """
    total = Seam()
    for col, row in where if where is not None else strips:
        if (col, row) not in strips:
            continue
        if (col - 1, row) in strips:
            total += block_seam(strips[col - 1, row], strips[col, row])
        if (col, row - 1) in strips:
            total += block_seam(strips[col, row - 1], strips[col, row], below=True)
    return total
