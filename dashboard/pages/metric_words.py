"""Each metric in one sentence for a new user, and its limit; the words of docs/programs/metrics.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wsi_denoise.quality.verdict import DEFAULT

Metrics = Mapping[str, float | None]


@dataclass(frozen=True)
class Shown:
    """One line of the table on Compare.

    Parameters
    ----------
    keys : tuple of str
        Of the metrics that it is made from, as in docs/programs/metrics.md.
    text : callable
        Metrics to what is shown; only called when the first key has a value.
    limit : str
        What the verdict takes for suspicious; empty where it has no limit.
    """

    name: str
    keys: tuple[str, ...]
    sentence: str
    text: Callable[[Metrics], str]
    limit: str = ""


def _value(metrics: Metrics, key: str) -> float:
    return metrics.get(key) or 0.0


def _one(key: str, digits: int = 1, unit: str = "") -> Callable[[Metrics], str]:
    return lambda metrics: f"{_value(metrics, key):,.{digits}f}{unit}"


def _change(before: str, after: str, digits: int = 1) -> Callable[[Metrics], str]:
    def text(metrics: Metrics) -> str:
        last = metrics.get(after)
        return f"{_value(metrics, before):.{digits}f} → {'–' if last is None else f'{last:.{digits}f}'}"

    return text


def _error(key: str) -> Callable[[Metrics], str]:
    return lambda metrics: f"{_value(metrics, key):.3f} ± {_value(metrics, f'{key}_error'):.3f}"


def _most(*keys: str) -> Callable[[Metrics], str]:
    return lambda metrics: f"{max((_value(metrics, key) for key in keys), key=abs):+.2f}"


def _share(key: str) -> Callable[[Metrics], str]:
    return lambda metrics: f"{_value(metrics, key):.0%}"


def _structure(kind: str) -> Callable[[Metrics], str]:
    def text(metrics: Metrics) -> str:
        patches = _value(metrics, f"structure_{kind}_patches")
        where = f"{patches:,.0f} patch{'' if patches == 1 else 'es'}"
        return f"{_value(metrics, f'structure_{kind}'):.1f} in {where}"

    return text


GROUPS: tuple[tuple[str, tuple[Shown, ...]], ...] = (
    ("Noise", (
        Shown("Noise, fine part (grey levels)", ("sigma_before_wavelet", "sigma_after_wavelet"),
              "Standard deviation of the noise before and after, from the finest detail of every third pixel; "
              "blind to noise without a fine part, too high on fine texture.",
              _change("sigma_before_wavelet", "sigma_after_wavelet"),
              f"{DEFAULT.low_noise_wavelet:g} or less before: no noise worth removing"),
        Shown("Noise, smooth areas (grey levels)", ("sigma_before_flat", "sigma_after_flat"),
              "The same, from the smoothest twentieth of the tissue: sees more of correlated noise, too high "
              "where nothing is smooth.",
              _change("sigma_before_flat", "sigma_after_flat"),
              f"{DEFAULT.low_noise_flat:g} or less before: no noise worth removing"),
        Shown("Noise on glass, fine part (grey levels)", ("glass_sigma_before_wavelet", "glass_sigma_after_wavelet"),
              "The first estimate on patches without tissue; low on glass that is nearly white, where clipping "
              "takes half of the noise away.",
              _change("glass_sigma_before_wavelet", "glass_sigma_after_wavelet")),
        Shown("Noise on glass, smooth areas (grey levels)", ("glass_sigma_before_flat", "glass_sigma_after_flat"),
              "The second estimate on patches without tissue.",
              _change("glass_sigma_before_flat", "glass_sigma_after_flat")),
    )),
    ("How much was changed", (
        Shown("PSNR between before and after", ("psnr",),
              "The higher, the less was changed; 100 dB: unchanged. It does not measure quality.",
              _one("psnr", 1, " dB")),
        Shown("SSIM between before and after", ("ssim",),
              "Likeness of before and after in windows of 8 px: 1 is the same.",
              _one("ssim", 3)),
        Shown("Removed, root mean square (grey levels)", ("residual_rms",),
              "How large the difference between before and after is; it should be about the noise before.",
              _one("residual_rms"),
              f"more than {DEFAULT.removed_excess:g} times the noise, and more than {DEFAULT.removed_floor:g}"),
        Shown("Mean of what was removed (grey levels)", ("residual_mean_r", "residual_mean_g", "residual_mean_b"),
              "Largest mean difference of red, green and blue: noise has a mean of 0.",
              _most("residual_mean_r", "residual_mean_g", "residual_mean_b")),
        Shown("Correlation of what was removed", ("residual_lag1_x", "residual_lag1_y"),
              "With itself one pixel on: 0 for white noise, more where noise is correlated or structure was "
              "removed.",
              _most("residual_lag1_x", "residual_lag1_y")),
    )),
    ("Was tissue harmed", (
        Shown("Structure removed (deviations)", ("structure_removed", "structure_removed_patches"),
              "Largest local change towards lighter, where something stained may be gone, in units of what "
              "noise explains; and the patches with 6 or more.",
              _structure("removed"), f"{DEFAULT.structure:g} or more"),
        Shown("Structure added (deviations)", ("structure_added", "structure_added_patches"),
              "Largest local change towards darker, where something stained may be new, in units of what noise "
              "explains; and the patches with 6 or more.",
              _structure("added"), f"{DEFAULT.structure:g} or more"),
        Shown("Edges kept, 2 px", ("sharpness_fine",),
              "Strength of edges kept on means of 2 px: 100 % keeps every edge, less is blur.",
              _share("sharpness_fine"), f"under {DEFAULT.sharpness_fine:.0%}"),
        Shown("Edges kept, 4 px", ("sharpness_coarse",),
              "Strength of edges kept on means of 4 px.",
              _share("sharpness_coarse"), f"under {DEFAULT.sharpness_coarse:.0%}"),
        Shown("Edges in what was removed", ("edge_leak",),
              "How far what was removed follows the output's edges: 0 when no structure went with the noise.",
              _one("edge_leak", 3)),
        Shown("Mismatched patches", ("mismatched_patches",),
              "Patches whose output does not resemble the input at the same place: other tissue.",
              _one("mismatched_patches", 0), f"{DEFAULT.mismatched_patches} or more"),
    )),
    ("Colour", (
        Shown("Colour shift (grey levels)", ("colour_shift",),
              "Largest change of a channel's mean, less what clipping at white or black explains.",
              _one("colour_shift", 2), f"more than {DEFAULT.colour_shift:g}"),
        Shown("Colour shift of one patch (grey levels)", ("patch_shift",),
              "Largest change of a channel's mean in any one patch, less what clipping explains.",
              _one("patch_shift", 1), f"more than {DEFAULT.patch_shift:g}"),
        Shown("Haematoxylin (optical density)", ("hematoxylin_before", "hematoxylin_after"),
              "Mean density of the blue stain of nuclei, before and after.",
              _change("hematoxylin_before", "hematoxylin_after", 3),
              f"a change of more than {DEFAULT.stain_shift:.0%}"),
        Shown("Eosin (optical density)", ("eosin_before", "eosin_after"),
              "Mean density of the pink stain, before and after.",
              _change("eosin_before", "eosin_after", 3), f"a change of more than {DEFAULT.stain_shift:.0%}"),
    )),
    ("Seams and file", (
        Shown("Seams between patches", ("seam_patch", "seam_patch_error"),
              "Steps across the lines of the lattice, output relative to input, with its standard error: 1 "
              "means that no seam shows.",
              _error("seam_patch"), f"more than {DEFAULT.seam_patch:g} by {DEFAULT.seam_errors:g} errors"),
        Shown("Seams between blocks", ("seam_block", "seam_block_error"),
              "The same for the lines between blocks, which are worked on apart.",
              _error("seam_block"), f"more than {DEFAULT.seam_block:g} by {DEFAULT.seam_errors:g} errors"),
        Shown("Worst line between blocks (grey levels)", ("seam_block_worst",),
              "Largest rise of the step across any one line between two blocks.",
              _one("seam_block_worst"), f"more than {DEFAULT.seam_worst:g}"),
        Shown("What compression cost", ("codec_psnr",),
              "What the output's compression did to the denoised pixels; higher is better; not measured where "
              "it is lossless.",
              _one("codec_psnr", 1, " dB"), "under the PSNR between before and after"),
        Shown("Patches with tissue", ("tissue_patches", "patches"),
              "Patches of 96 × 96 px that were denoised and measured, of all patches.",
              lambda metrics: f"{_value(metrics, 'tissue_patches'):,.0f} of {_value(metrics, 'patches'):,.0f}",
              "none"),
    )),
)  # fmt: skip
"""Heading to what is shown under it."""
