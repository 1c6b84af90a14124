"""Derivation of a verdict with reasons from metrics. Without NumPy, because dashboard and command line import it.

Examples
--------
>>> judge({"tissue_patches": 0.0}).reasons[0].split(":")[0]
'no_tissue'
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from wsi_denoise.quality.triage import Triage


class Verdict(StrEnum):
    """The result of a slide's evidence."""

    PASS = "pass"  # noqa: S105 - noise was found and removed, and no other change was found
    REVIEW = "review"  # a user should check the slide, for the stated reasons
    NOT_NEEDED = "not_needed"  # the input has too little noise for denoising


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the verdict. They were chosen on other tissue than the error rates in docs/evidence/verdict.md.

    Parameters
    ----------
    low_noise_wavelet, low_noise_flat : float
        Grey levels. If neither estimate is above its limit, the input has no noise worth removing.
    no_noise_wavelet, no_noise_flat : float
        Grey levels. The same for a finely textured slide whose smooth cells have almost no noise.
    noise_left : float
        Maximum share of the input's sigma that may remain in the output, by the lower of both estimates. After triage,
        minimum share that is removed of what the best preset removes.
    sample : float
        Maximum ratio of what was removed from the slide and from the sample, either way.
    removed_excess : float
        Maximum root mean square of the residual, in units of the input's sigma (the greater estimate).
    removed_floor : float
        Root mean square of the residual that is always accepted, grey levels.
    colour_shift : float
        Maximum change of a channel's mean, grey levels.
    patch_shift : float
        The same for a single patch, in which noise and its removal change the mean by a few grey levels.
    stain_shift, stain_floor : float
        Maximum relative change of the mean optical density of H or E; densities below the floor count as the floor.
    sharpness_fine, sharpness_coarse : float
        Minimum share of edge strength that is kept, on means of 2 and of 4 px.
    structure : float
        Minimum local change that is reported, in standard deviations of the change due to noise.
    structure_patches : int
        Minimum number of patches with such a change.
    mismatched_patches : int
        Minimum number of patches with other tissue.
    seam_patch, seam_block : float
        Maximum gradient energy on lattice lines and on block lines relative to other lines, compared with the input.
    seam_errors : float
        Number of standard errors by which these must be exceeded, because a small slide has few lines.
    seam_worst : float
        Maximum increase of the steps across one line between blocks, grey levels.
    """

    low_noise_wavelet: float = 4.9
    low_noise_flat: float = 6.2
    no_noise_wavelet: float = 6.5
    no_noise_flat: float = 2.0
    noise_left: float = 0.6
    sample: float = 2.0
    removed_excess: float = 1.6
    removed_floor: float = 8.0
    colour_shift: float = 3.5
    patch_shift: float = 12.0
    stain_shift: float = 0.08
    stain_floor: float = 0.08
    sharpness_fine: float = 0.7
    sharpness_coarse: float = 0.88
    structure: float = 8.0
    structure_patches: int = 1
    mismatched_patches: int = 3
    seam_patch: float = 1.05
    seam_block: float = 1.2
    seam_errors: float = 3.0
    seam_worst: float = 12.0


DEFAULT = Thresholds()


@dataclass(frozen=True)
class Judgement:
    """A verdict with its reasons.

    Parameters
    ----------
    reasons : tuple of str
        ``code: sentence.`` each; the codes are stable.
    """

    verdict: Verdict
    reasons: tuple[str, ...]


def judge(
    metrics: Mapping[str, float | None], triage: Triage | None = None, thresholds: Thresholds = DEFAULT
) -> Judgement:
    """Derive the verdict from the metrics of :meth:`wsi_denoise.quality.evidence.Evidence.summary`.

    Parameters
    ----------
    metrics : mapping of str to float or None
        A metric that is missing or None was not measured.
    triage : Triage, optional
        The decision before the work. With it, noise is what a preset removes from a sample. Without it, two
        estimates of sigma decide, which take fine texture for noise and miss noise that went through JPEG.
    """
    unmeasured = _unmeasured(metrics, triage)
    if unmeasured is not None:
        return unmeasured
    against = tuple(_against(metrics, triage, thresholds))
    if against:
        return Judgement(Verdict.REVIEW, against)
    wavelet, flat = _number(metrics, "sigma_before_wavelet"), _number(metrics, "sigma_before_flat")
    if not _noisy(metrics, triage, thresholds):
        sentence = f"low_noise: the input's noise is {wavelet:.1f} and {flat:.1f} grey levels by two estimates."
        if triage is not None:
            sentence = f"low_noise: {triage}."
        return Judgement(Verdict.NOT_NEEDED, (sentence,))
    codec = tuple(_codec(metrics))
    if codec:
        return Judgement(Verdict.REVIEW, codec)
    after, removed = _number(metrics, "sigma_after_wavelet"), _number(metrics, "residual_rms")
    # The estimate of sigma does not see all noise; then it hardly changes.
    noise = f"sigma {wavelet:.1f} before, {after:.1f} after" if after < 0.8 * wavelet else f"{removed:.1f} grey levels"
    sentence = f"noise_removed: {noise}; no structure found in what was removed."
    return Judgement(Verdict.PASS, (sentence,))


def _unmeasured(metrics: Mapping[str, float | None], triage: Triage | None) -> Judgement | None:
    """Return the verdict of a slide of which nothing was denoised, or too little to be measured."""
    if not metrics.get("tissue_patches"):
        return Judgement(Verdict.REVIEW, ("no_tissue: no tissue was found, so none was denoised or measured.",))
    if triage is not None and triage.used is None:
        return Judgement(Verdict.NOT_NEEDED, (f"nothing_to_remove: {triage}. {_written(metrics)}",))
    if metrics.get("psnr") is None or metrics.get("sigma_before_wavelet") is None:
        return Judgement(Verdict.REVIEW, ("not_measured: the tissue is too small to be measured.",))
    return None


def _written(metrics: Mapping[str, float | None]) -> str:
    """Say what happened to the pixels of a slide on which no network ran."""
    codec = metrics.get("codec_psnr")
    if codec is None:
        return "The output has the pixels of the original."
    return f"The output has the pixels of the original, compressed again (PSNR {codec:.1f} dB)."


def _noisy(m: Mapping[str, float | None], triage: Triage | None, t: Thresholds) -> bool:
    return not _low_noise(m, t) if triage is None else triage.preset is not None


def _low_noise(m: Mapping[str, float | None], t: Thresholds) -> bool:
    """Return whether the input has no noise worth removing.

    Both estimates must be low. Texture raises them, so a very low flat-area estimate permits a higher wavelet estimate:
    noise would also be in the smooth cells.
    """
    wavelet, flat = _number(m, "sigma_before_wavelet"), m.get("sigma_before_flat")
    if flat is None:
        return wavelet <= t.low_noise_wavelet
    return (wavelet <= t.low_noise_wavelet and flat <= t.low_noise_flat) or (
        wavelet <= t.no_noise_wavelet and flat <= t.no_noise_flat
    )


def _patches(count: float) -> str:
    return f"{count:.0f} patch{'' if round(count) == 1 else 'es'}"


def _number(metrics: Mapping[str, float | None], name: str) -> float:
    return metrics.get(name) or 0.0


def _against(m: Mapping[str, float | None], triage: Triage | None, t: Thresholds) -> Iterator[str]:
    """Yield every reason for a review, most serious first."""
    mismatched = _number(m, "mismatched_patches")
    if mismatched >= t.mismatched_patches:
        # Other tissue also differs in structure, colour and sharpness; these reasons would hide the cause.
        shows = "shows" if mismatched == 1 else "show"
        yield f"misplaced: {_patches(mismatched)} {shows} other tissue than the input at the same place."
        yield from _seams(m, t)
        return
    yield from _seams(m, t)
    yield from _sharpness(m, t)
    yield from _colour(m, t)
    yield from _structure(m, t)
    yield from _noise_left(m, t) if triage is None else _disagreements(m, triage, t)
    yield from _excess(m, triage, t)


def _seams(m: Mapping[str, float | None], t: Thresholds) -> Iterator[str]:
    worst = m.get("seam_block_worst")
    for name, limit, what in (("seam_patch", t.seam_patch, "patches"), ("seam_block", t.seam_block, "blocks")):
        value = _number(m, name)
        if value - t.seam_errors * _number(m, f"{name}_error") > limit:
            yield f"seam: steps on lines between {what} are {value:.2f} times those elsewhere, relative to the input."
    if worst is not None and worst > t.seam_worst:
        yield f"seam: one line between blocks has steps {worst:.0f} grey levels greater than the input has."


def _structure(m: Mapping[str, float | None], t: Thresholds) -> Iterator[str]:
    for name, what in (("removed", "is missing from the output"), ("added", "is in the output but not in the input")):
        count, peak = _number(m, f"structure_{name}_patches"), _number(m, f"structure_{name}")
        if count >= t.structure_patches and peak >= t.structure:
            yield f"structure_{name}: something stained {what}, in {_patches(count)} (up to {peak:.0f} deviations)."


def _colour(m: Mapping[str, float | None], t: Thresholds) -> Iterator[str]:
    shift = _number(m, "colour_shift")
    stains = []
    for stain in ("hematoxylin", "eosin"):
        before, after = m.get(f"{stain}_before"), m.get(f"{stain}_after")
        if before is not None and after is not None:
            stains.append((abs(after - before) / max(before, t.stain_floor), stain))
    change, stain = max(stains, default=(0.0, "stain"))
    patch = _number(m, "patch_shift")
    if shift > t.colour_shift or change > t.stain_shift or patch > t.patch_shift:
        yield (
            f"colour_shifted: a channel's mean moved by {shift:.1f} grey levels, {stain} by {change:.0%}; "
            f"in one patch a channel moved by {patch:.0f}."
        )


def _sharpness(m: Mapping[str, float | None], t: Thresholds) -> Iterator[str]:
    fine, coarse = m.get("sharpness_fine"), m.get("sharpness_coarse")
    if fine is None or coarse is None:
        return
    if fine < t.sharpness_fine or coarse < t.sharpness_coarse:
        yield f"blurred: {fine:.0%} of edge strength is kept over 2 px and {coarse:.0%} over 4 px."


def _disagreements(m: Mapping[str, float | None], triage: Triage, t: Thresholds) -> Iterator[str]:
    """Compare what was removed with what the presets removed from the sample."""
    if triage.preset is None or triage.used is None or not triage.removed:
        return
    used, best = (triage.removed[name] for name in (triage.used, triage.preset))
    if used < t.noise_left * best:
        yield (
            f"noise_left: {triage.used} removes {used:.1f} grey levels from a sample, and {triage.preset} {best:.1f}. "
            f"Run the slide again with {triage.preset}."
        )
        return
    removed = _number(m, "residual_rms")
    if removed > t.sample * used or used > t.sample * removed:
        yield f"uneven_noise: {used:.1f} grey levels were removed from a sample, and {removed:.1f} from the slide."


def _noise_left(m: Mapping[str, float | None], t: Thresholds) -> Iterator[str]:
    wavelet, flat = _number(m, "sigma_before_wavelet"), _number(m, "sigma_before_flat")
    removed = _number(m, "residual_rms")
    left = [
        _number(m, f"sigma_after_{name}") / before for name, before in (("wavelet", wavelet), ("flat", flat)) if before
    ]
    if left and not _low_noise(m, t) and min(left) > t.noise_left and removed < t.noise_left * wavelet:
        after = _number(m, "sigma_after_wavelet")
        yield f"noise_left: sigma was {wavelet:.1f} grey levels and still is {after:.1f}."


def _excess(m: Mapping[str, float | None], triage: Triage | None, t: Thresholds) -> Iterator[str]:
    removed = _number(m, "residual_rms")
    found = [_number(m, "sigma_before_wavelet"), _number(m, "sigma_before_flat")]
    if triage is not None and triage.preset is not None:
        found.append(triage.removed[triage.preset])
    sigma = max(found)
    if removed > max(t.removed_excess * sigma, t.removed_floor):
        yield f"too_much_removed: {removed:.1f} grey levels were changed, and the input's noise is {sigma:.1f}."


def _codec(m: Mapping[str, float | None]) -> Iterator[str]:
    codec, change = m.get("codec_psnr"), m.get("psnr")
    if codec is not None and change is not None and codec < change:
        yield (
            f"compression_loss: output compression lost more than the denoising gained "
            f"({codec:.1f} dB against a change of {change:.1f} dB)."
        )
