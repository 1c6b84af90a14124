"""Measurements of a block, their sum over a slide, and the resulting metrics.

``measure`` compares one block before and after denoising. ``Evidence`` objects can be added in any order: sums,
histograms of integers, and small maps per patch. ``Evidence.summary`` returns the job's metrics
(``docs/programs/metrics.md``), from which :func:`wsi_denoise.quality.verdict.judge` derives the verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_denoise.quality import fidelity, noise, structure
from wsi_denoise.quality.patch_map import PatchMap
from wsi_denoise.quality.structure import PATCH, Seam

LAYERS = ("removed_sigma", "lighter", "darker", "low_sigma", "mismatch", "shift")
"""Order of the layers in :attr:`Evidence.maps`; see :class:`wsi_denoise.quality.structure.PatchLayers`."""

LEAST_QUADS = 100
"""Minimum number of values for a sigma, those of 30 x 30 px: with fewer, the random error is a tenth or more."""

_SUMS = (
    "patches",
    "tissue_patches",
    "sse",
    "samples",
    "ssim",
    "cells",
    "residual_r",
    "residual_g",
    "residual_b",
    "shift_r",
    "shift_g",
    "shift_b",
    "h_before",
    "h_after",
    "e_before",
    "e_after",
    "lag_x",
    "lag_y",
    "lag_square",
    "lag_count",
    "edge2_aa",
    "edge2_ba",
    "edge2_bb",
    "edge4_aa",
    "edge4_ba",
    "edge4_bb",
    "on_before",
    "on_after",
    "off_before",
    "off_after",
    "scatter",
    "codec_sse",
    "codec_samples",
)
_AT = {name: index for index, name in enumerate(_SUMS)}

_HISTOGRAMS = {
    **{
        f"{place}_wavelet_{when}": (3, noise.WAVELET_BINS)
        for place in ("tissue", "glass")
        for when in ("before", "after")
    },
    **{f"{place}_flat_{when}": (noise.FLAT_BINS,) for place in ("tissue", "glass") for when in ("before", "after")},
}

STRUCTURE_DEVIATIONS = 6.0
"""Minimum local change that counts as structure, in standard deviations of 8-px means due to noise ..."""

STRUCTURE_LEVELS = 12.0
"""... and in grey levels (mean of red, green and blue): a smaller change is not visible at a nucleus."""

SAMPLE_STEP = 4
"""In a block of which no patch was denoised, every fourth patch along both axes is measured."""

MISMATCH = 0.6
"""Minimum :attr:`PatchLayers.mismatch` of a patch that counts as other tissue."""


@dataclass(frozen=True)
class Evidence:
    """Measurements of a block or of a set of blocks. ``+`` is commutative and associative.

    Parameters
    ----------
    sums : ndarray
        (len(_SUMS),) float64.
    histograms : dict of str to ndarray
        int64.
    maps : dict of (int, int) to ndarray
        From (col, row) of a block's first patch on the slide's lattice to (6, rows, cols) float32, with the layers of
        :data:`LAYERS`.
    seam : Seam
        Lines between blocks.
    """

    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(_SUMS)))
    histograms: dict[str, NDArray[np.int64]] = field(
        default_factory=lambda: {name: np.zeros(shape, np.int64) for name, shape in _HISTOGRAMS.items()}
    )
    maps: dict[tuple[int, int], NDArray[np.float32]] = field(default_factory=dict)
    seam: Seam = field(default_factory=Seam)

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence.merge((self, other))

    @classmethod
    def merge(cls, parts: Iterable[Evidence]) -> Evidence:
        """Return the sum of any number of parts, empty for none. It is faster than ``+`` for thousands of blocks."""
        total = cls()
        seam = Seam()
        for part in parts:
            np.add(total.sums, part.sums, out=total.sums)
            for name, counts in part.histograms.items():
                total.histograms[name] += counts
            total.maps.update(part.maps)
            seam += part.seam
        return replace(total, seam=seam)

    def with_codec(self, sse: float, samples: int) -> Evidence:
        """Add the error of the output's compression: a sum of squared errors over `samples` 8-bit values."""
        sums = self.sums.copy()
        sums[_AT["codec_sse"]] += sse
        sums[_AT["codec_samples"]] += samples
        return replace(self, sums=sums)

    def with_seam(self, seam: Seam) -> Evidence:
        """Add lines between blocks, from :func:`wsi_denoise.quality.structure.seam_lines`."""
        return replace(self, seam=self.seam + seam)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return arrays for ``numpy.savez``, with keys that start with ``evidence_``."""
        arrays: dict[str, NDArray[Any]] = {"evidence_sums": self.sums}
        arrays["evidence_seam"] = np.array(astuple(self.seam))
        arrays.update({f"evidence_histogram_{name}": counts for name, counts in self.histograms.items()})
        arrays.update({f"evidence_map_{col}_{row}": layers for (col, row), layers in self.maps.items()})
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Evidence:
        """Return the evidence for arrays of :meth:`to_arrays`; other keys are ignored."""
        maps = {}
        for key in arrays:
            if key.startswith("evidence_map_"):
                col, row = key.removeprefix("evidence_map_").split("_")
                maps[int(col), int(row)] = arrays[key]
        if any(len(layers) != len(LAYERS) for layers in maps.values()):
            raise ValueError(f"maps of another version: they have {len(LAYERS)} layers now")
        histograms = {name: arrays[f"evidence_histogram_{name}"] for name in _HISTOGRAMS}
        return cls(arrays["evidence_sums"], histograms, maps, Seam(*(float(v) for v in arrays["evidence_seam"])))

    def patch_map(self, shape: tuple[int, int]) -> PatchMap:
        """Return the maps of the whole slide; `shape` is (rows, cols) of its lattice."""
        layers = np.full((len(LAYERS), *shape), np.nan, np.float32)
        for (col, row), block in self.maps.items():
            layers[:, row : row + block.shape[1], col : col + block.shape[2]] = block
        lighter, darker = _deviations(layers)
        return PatchMap(layers[0], np.where(lighter > darker, -lighter, darker).astype(np.float32))

    def summary(self) -> dict[str, float | None]:
        """Return the metrics by name; None if a metric could not be measured."""
        sums = dict(zip(_SUMS, (float(value) for value in self.sums), strict=True))
        metrics: dict[str, float | None] = {
            "patches": sums["patches"],
            "tissue_patches": sums["tissue_patches"],
        }
        metrics |= self._noise()
        metrics |= _fidelity(sums)
        metrics |= _colour(sums)
        metrics |= _sharpness(sums)
        metrics |= self._structure()
        metrics |= _seams(sums, self.seam)
        metrics["codec_psnr"] = fidelity.psnr(sums["codec_sse"], sums["codec_samples"])
        return metrics

    def _noise(self) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for place, prefix in (("tissue", "sigma"), ("glass", "glass_sigma")):
            for when in ("before", "after"):
                fine = self.histograms[f"{place}_wavelet_{when}"]
                if fine[0].sum() < LEAST_QUADS:
                    found |= {f"{prefix}_{when}_wavelet": None, f"{prefix}_{when}_flat": None}
                    continue
                channels = noise.wavelet_sigma(fine)
                found[f"{prefix}_{when}_wavelet"] = None if channels is None else sum(channels) / 3
                found[f"{prefix}_{when}_flat"] = noise.flat_sigma(self.histograms[f"{place}_flat_{when}"])
        return found

    def _structure(self) -> dict[str, float | None]:
        if not self.maps:
            layers = np.zeros((len(LAYERS), 0), np.float32)
        else:
            layers = np.concatenate([block.reshape(len(LAYERS), -1) for block in self.maps.values()], axis=1)
            layers = layers[:, np.isfinite(layers[0])]
        if layers.shape[1] == 0:
            names = ("removed", "added")
            none = {f"structure_{name}{what}": None for name in names for what in ("", "_patches")}
            return {**none, "mismatched_patches": None, "patch_shift": None}
        lighter, darker = _deviations(layers)
        return {
            "structure_removed": float(lighter.max()),
            "structure_removed_patches": float((lighter >= STRUCTURE_DEVIATIONS).sum()),
            "structure_added": float(darker.max()),
            "structure_added_patches": float((darker >= STRUCTURE_DEVIATIONS).sum()),
            "mismatched_patches": float((layers[LAYERS.index("mismatch")] >= MISMATCH).sum()),
            "patch_shift": float(layers[LAYERS.index("shift")].max()),
        }


def _deviations(layers: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the local changes (lighter, darker) in standard deviations, each of at least 2 grey levels."""
    floor = STRUCTURE_LEVELS / STRUCTURE_DEVIATIONS
    unit = np.fmax(layers[LAYERS.index("low_sigma")], floor)
    return layers[LAYERS.index("lighter")] / unit, layers[LAYERS.index("darker")] / unit


def _ratio(above: float, below: float) -> float | None:
    return above / below if below > 0 else None


def _fidelity(sums: Mapping[str, float]) -> dict[str, float | None]:
    count, lags = sums["samples"], sums["lag_count"]
    rms = (sums["sse"] / count) ** 0.5 if count else None
    found: dict[str, float | None] = {
        "psnr": fidelity.psnr(sums["sse"], count),
        "ssim": _ratio(sums["ssim"], sums["cells"]),
        "residual_rms": rms,
    }
    for channel in "rgb":
        found[f"residual_mean_{channel}"] = _ratio(sums[f"residual_{channel}"], sums["cells"])
    for axis in "xy":
        found[f"residual_lag1_{axis}"] = _ratio(sums[f"lag_{axis}"], sums["lag_square"]) if lags else None
    return found


def _colour(sums: Mapping[str, float]) -> dict[str, float | None]:
    count = sums["cells"]
    found: dict[str, float | None] = {}
    shifts = [_ratio(sums[f"shift_{channel}"], count) for channel in "rgb"]
    found["colour_shift"] = max((abs(shift) for shift in shifts if shift is not None), default=None)
    for name, stain in (("hematoxylin", "h"), ("eosin", "e")):
        for when in ("before", "after"):
            found[f"{name}_{when}"] = _ratio(sums[f"{stain}_{when}"], count)
    return found


def _sharpness(sums: Mapping[str, float]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for scale, name in ((2, "fine"), (4, "coarse")):
        own, cross = sums[f"edge{scale}_aa"], sums[f"edge{scale}_ba"]
        found[f"sharpness_{name}"] = _ratio(own, cross)
    own, cross = sums["edge2_aa"], sums["edge2_ba"]
    found["edge_leak"] = _ratio(cross - own, own)
    return found


def _seams(sums: Mapping[str, float], seam: Seam) -> dict[str, float | None]:
    names = ("seam_patch", "seam_patch_error", "seam_block", "seam_block_error", "seam_block_worst")
    found: dict[str, float | None] = dict.fromkeys(names)
    if min(sums[name] for name in ("on_before", "on_after", "off_before", "off_after")) <= 0:
        return found
    relative = sums["off_after"] / sums["off_before"]
    found["seam_patch"] = sums["on_after"] / sums["on_before"] / relative
    found["seam_patch_error"] = sums["scatter"] ** 0.5 / sums["off_after"]
    if seam.before > 0 and seam.after > 0:
        found["seam_block"] = seam.after / seam.before / relative
        found["seam_block_error"] = seam.scatter**0.5 / seam.after
        found["seam_block_worst"] = seam.worst
    return found


def measure(
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    tissue: NDArray[np.bool_],
    *,
    denoised: NDArray[np.bool_] | None = None,
    origin: tuple[int, int] = (0, 0),
) -> Evidence:
    """Measure one block.

    Parameters
    ----------
    before, after : ndarray
        (height, width, 3) uint8 RGB: the input and output of the block without halo, before compression.
    tissue : ndarray
        (rows, cols) bool, one per 96-px patch of the block; the last ones may be partial. Counts and means of the slide
        are over these patches: glass, which may be ten times as much, would hide changes of tissue.
    denoised : ndarray, optional
        The same for patches that the network processed, which may include glass: the maps cover all of them.
    origin : tuple of int
        (x, y) px of the block on the slide at level 0; multiples of 96.

    Raises
    ------
    ValueError
        If shapes do not match, or the origin is off the lattice.
    """
    height, width = before.shape[:2]
    grid = structure.patch_grid(height, width)
    if before.shape != after.shape or before.ndim != 3 or before.shape[2] != 3:
        raise ValueError(f"before {before.shape} and after {after.shape} must both be (height, width, 3)")
    denoised = tissue if denoised is None else denoised
    if tissue.shape != grid or denoised.shape != grid:
        raise ValueError(f"the masks are {tissue.shape}, {denoised.shape}, the block has {grid} patches (rows, cols)")
    if origin[0] % PATCH or origin[1] % PATCH:
        raise ValueError(f"the origin {origin} is not on the {PATCH}-px lattice")
    sums = dict.fromkeys(_SUMS, 0.0)
    sums["patches"], sums["tissue_patches"] = float(tissue.size), float(tissue.sum())
    if not denoised.any():
        return Evidence(np.array([sums[name] for name in _SUMS]), _sampled_histograms(before, after, tissue))
    cells = fidelity.cells(before, after)
    chosen = structure.cell_values(tissue, cells.before.shape)
    histograms, sigma = _noise_histograms(before, after, tissue, chosen)
    low = structure.low_residual(cells, sigma)
    _measure_cells(sums, cells, low, chosen)
    layers = structure.patch_layers(cells, low, grid, structure.cell_values(denoised, cells.before.shape))
    stack = np.stack([getattr(layers, name) for name in LAYERS])
    stack[:, ~denoised] = np.nan
    _measure_grey(sums, before, after, chosen)
    maps = {(origin[0] // PATCH, origin[1] // PATCH): stack}
    return Evidence(np.array([sums[name] for name in _SUMS]), histograms, maps)


def _sampled_histograms(
    before: NDArray[np.uint8], after: NDArray[np.uint8], tissue: NDArray[np.bool_]
) -> dict[str, NDArray[np.int64]]:
    """Return the histograms of a block that was not denoised. A sample suffices, because it may be most of a slide."""
    if min(before.shape[:2]) >= PATCH:
        rows, cols = before.shape[0] // PATCH, before.shape[1] // PATCH
        before, after = _thinned(before), _thinned(after)
        tissue = tissue[:rows:SAMPLE_STEP, :cols:SAMPLE_STEP]
    cells = (before.shape[0] // fidelity.CELL, before.shape[1] // fidelity.CELL)
    return _noise_histograms(before, after, tissue, structure.cell_values(tissue, cells))[0]


def _thinned(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return every fourth complete patch along both axes, side by side."""
    rows, cols = image.shape[0] // PATCH, image.shape[1] // PATCH
    patches = image[: rows * PATCH, : cols * PATCH].reshape(rows, PATCH, cols, PATCH, 3)[
        ::SAMPLE_STEP, :, ::SAMPLE_STEP
    ]
    return np.ascontiguousarray(patches).reshape(patches.shape[0] * PATCH, patches.shape[2] * PATCH, 3)


def _noise_histograms(
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    tissue: NDArray[np.bool_],
    chosen: NDArray[np.bool_],
) -> tuple[dict[str, NDArray[np.int64]], float]:
    """Return the histograms, and a rough sigma of the input on tissue, or on glass without tissue."""
    histograms = {name: np.zeros(shape, np.int64) for name, shape in _HISTOGRAMS.items()}
    rough = 0.0
    per_patch = PATCH // noise.QUAD_STEP
    on_tissue = np.repeat(np.repeat(tissue, per_patch, axis=0), per_patch, axis=1)
    for when, image in (("before", before), ("after", after)):
        quads = noise.diagonal(image)
        of_quads = on_tissue[: quads.shape[0], : quads.shape[1]]
        for place, patches, quad_mask, cell_mask in (
            ("tissue", tissue, of_quads, chosen),
            ("glass", ~tissue, ~of_quads, ~chosen),
        ):
            if not patches.any():
                continue
            fine = noise.wavelet_histogram(quads if patches.all() else quads[quad_mask])
            sigmas = noise.wavelet_sigma(fine)
            level = 0.0 if sigmas is None else sum(sigmas) / 3
            histograms[f"{place}_wavelet_{when}"] = fine
            histograms[f"{place}_flat_{when}"] = noise.flat_histogram(image, cell_mask, level)
            if when == "before" and (place == "tissue" or not tissue.any()):
                rough = level
    return histograms, rough


def _measure_cells(
    sums: dict[str, float], cells: fidelity.Cells, low: NDArray[np.float32], chosen: NDArray[np.bool_]
) -> None:
    count = float(chosen.sum())
    if not count:
        return
    sums["cells"] = count
    sums["samples"] = count * fidelity.CELL**2 * 3
    sums["sse"] = sum(_totals(cells.residual_square[chosen])) * fidelity.CELL**2
    sums["ssim"] = float(cells.ssim()[chosen].sum(dtype=np.float64))
    before, after, forgiven = cells.before[chosen], cells.after[chosen], low[chosen]
    for name, values in (("residual", before - after), ("shift", forgiven)):
        for channel, total in zip("rgb", _totals(values), strict=True):
            sums[f"{name}_{channel}"] = total
    for when, mean in (("before", after + forgiven), ("after", after)):
        sums[f"h_{when}"], sums[f"e_{when}"] = _totals(structure.stain_density(mean))


def _totals(values: NDArray[np.float32]) -> tuple[float, ...]:
    """Return the sum of each column in double precision; separately, because NumPy is slow on rows of three."""
    return tuple(float(column.sum(dtype=np.float64)) for column in values.T)


def _measure_grey(
    sums: dict[str, float], before: NDArray[np.uint8], after: NDArray[np.uint8], chosen: NDArray[np.bool_]
) -> None:
    def put(names: str, values: tuple[float, ...]) -> None:
        sums.update(zip(names.split(), values, strict=True))

    put("lag_x lag_y lag_square lag_count", fidelity.lag_one(before, after, chosen))
    grey_before, grey_after = structure.luma(before), structure.luma(after)
    for scale, products in structure.gradients(grey_before, grey_after, chosen).items():
        put(f"edge{scale}_aa edge{scale}_ba edge{scale}_bb", products)
    lines = structure.lattice_lines(grey_before, grey_after)
    for name in ("on_before", "on_after", "off_before", "off_after", "scatter"):
        sums[name] = getattr(lines, name)
