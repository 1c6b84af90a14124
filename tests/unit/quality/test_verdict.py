import importlib.util
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from wsi_denoise.quality import evidence, verdict
from wsi_denoise.quality.triage import Triage
from wsi_denoise.quality.verdict import Verdict, judge

ROOT = Path(__file__).parents[3]
GOOD = {
    "tissue_patches": 100.0,
    "psnr": 28.0,
    "residual_rms": 10.0,
    "sigma_before_wavelet": 10.0,
    "sigma_before_flat": 11.0,
    "sigma_after_wavelet": 2.5,
    "sigma_after_flat": 3.0,
    "colour_shift": 0.3,
    "patch_shift": 3.0,
    "hematoxylin_before": 0.3,
    "hematoxylin_after": 0.3,
    "eosin_before": 0.2,
    "eosin_after": 0.2,
    "sharpness_fine": 0.95,
    "sharpness_coarse": 0.99,
    "structure_removed": 2.0,
    "structure_removed_patches": 0.0,
    "structure_added": 2.0,
    "structure_added_patches": 0.0,
    "mismatched_patches": 0.0,
    "seam_patch": 1.0,
    "seam_patch_error": 0.01,
    "seam_block": 1.0,
    "seam_block_error": 0.05,
    "seam_block_worst": -3.0,
    "codec_psnr": 45.0,
}


def codes(metrics: dict) -> list[str]:
    return [reason.split(":")[0] for reason in judge(metrics).reasons]


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("verdict_controls", ROOT / "tests/bench/verdict_controls.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_noise_removed_is_a_pass_and_says_so():
    judgement = judge(GOOD)
    assert judgement.verdict is Verdict.PASS
    assert judgement.reasons[0].startswith("noise_removed: sigma 10.0 before, 2.5 after")


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"mismatched_patches": 9.0}, "misplaced"),
        ({"seam_patch": 1.2}, "seam"),
        ({"seam_block": 1.5}, "seam"),
        ({"seam_block_worst": 20.0}, "seam"),
        ({"sharpness_coarse": 0.8}, "blurred"),
        ({"sharpness_fine": 0.6}, "blurred"),
        ({"colour_shift": 5.0}, "colour_shifted"),
        ({"patch_shift": 13.0}, "colour_shifted"),
        ({"hematoxylin_after": 0.26}, "colour_shifted"),
        ({"eosin_after": 0.24}, "colour_shifted"),
        ({"structure_removed": 20.0, "structure_removed_patches": 1.0}, "structure_removed"),
        ({"structure_added": 20.0, "structure_added_patches": 1.0}, "structure_added"),
        ({"sigma_after_wavelet": 9.0, "sigma_after_flat": 9.0, "residual_rms": 3.0}, "noise_left"),
        ({"residual_rms": 25.0}, "too_much_removed"),
        ({"codec_psnr": 26.0}, "compression_loss"),
        ({"tissue_patches": 0.0}, "no_tissue"),
        ({"psnr": None}, "not_measured"),
    ],
)
def test_each_fault_is_sent_to_review_with_its_reason(changed, code):
    judgement = judge(GOOD | changed)
    assert judgement.verdict is Verdict.REVIEW
    assert codes(GOOD | changed) == [code]
    assert judgement.reasons[0].endswith(".")


def test_no_noise_by_both_estimates_is_not_needed():
    quiet = GOOD | {"sigma_before_wavelet": 2.0, "sigma_before_flat": 3.0, "residual_rms": 1.0, "psnr": 48.0}
    assert judge(quiet).verdict is Verdict.NOT_NEEDED
    assert codes(quiet) == ["low_noise"]
    assert judge(quiet | {"sigma_before_flat": 8.0}).verdict is not Verdict.NOT_NEEDED
    assert judge(quiet | {"sigma_before_wavelet": 6.0}).verdict is not Verdict.NOT_NEEDED


def test_smooth_areas_without_noise_settle_a_textured_slide():
    textured = GOOD | {"sigma_before_wavelet": 5.0, "sigma_after_wavelet": 4.8, "sigma_before_flat": 0.5}
    assert judge(textured | {"residual_rms": 1.0}).verdict is Verdict.NOT_NEEDED
    filled = textured | {"sigma_before_wavelet": 12.0, "sigma_after_wavelet": 3.0}
    assert judge(filled).verdict is Verdict.PASS


def test_compression_is_no_fault_where_there_was_nothing_to_gain():
    quiet = GOOD | {"sigma_before_wavelet": 2.0, "sigma_before_flat": 3.0, "residual_rms": 1.0, "psnr": 48.0}
    assert judge(quiet | {"codec_psnr": 40.0}).verdict is Verdict.NOT_NEEDED


def test_a_slide_with_nothing_to_remove_is_not_needed_although_texture_looks_like_noise():
    textured = {"tissue_patches": 100.0, "sigma_before_wavelet": 18.0, "sigma_before_flat": 9.0, "psnr": None}
    kept = judge(textured, Triage(None, None, {"paper": 0.3, "blind": 0.6}, 64))
    assert kept.verdict is Verdict.NOT_NEEDED
    assert kept.reasons[0].startswith("nothing_to_remove: there is nothing to remove: on 64 patches")
    assert kept.reasons[0].endswith("The output has the pixels of the original.")
    lossy = judge(textured | {"codec_psnr": 44.04}, Triage(None, None, {"paper": 0.3, "blind": 0.6}, 64))
    assert lossy.reasons[0].endswith("compressed again (PSNR 44.0 dB).")
    named = judge(GOOD | {"residual_rms": 0.3}, Triage(None, "paper", {"paper": 0.3, "blind": 0.6}, 64))
    assert named.verdict is Verdict.NOT_NEEDED
    assert named.reasons[0].startswith("low_noise: there is nothing to remove")


def test_noise_that_the_estimates_do_not_see_is_still_noise():
    hidden = GOOD | {"sigma_before_wavelet": 0.9, "sigma_after_wavelet": 1.3, "sigma_before_flat": 2.0}
    assert judge(hidden).verdict is Verdict.REVIEW  # too much was removed for so little noise
    removed = judge(hidden, Triage("blind", "blind", {"paper": 0.1, "blind": 9.5}, 64))
    assert removed.verdict is Verdict.PASS
    assert removed.reasons == ("noise_removed: 10.0 grey levels; no structure found in what was removed.",)


def test_noise_left_names_the_preset_that_removes_more():
    left = judge(GOOD | {"residual_rms": 0.1}, Triage("blind", "paper", {"paper": 0.1, "blind": 9.5}, 64))
    assert left.verdict is Verdict.REVIEW
    assert [reason.split(":")[0] for reason in left.reasons] == ["noise_left"]
    assert left.reasons[0].endswith("Run the slide again with blind.")
    enough = Triage("blind", "scanner", {"paper": 0.1, "blind": 9.5, "scanner": 9.0}, 64)
    assert judge(GOOD, enough).verdict is Verdict.PASS


@pytest.mark.parametrize(("removed", "verdict"), [(4.4, "review"), (5.0, "pass"), (18.0, "pass"), (19.0, "review")])
def test_a_sample_that_does_not_stand_for_the_slide_is_sent_to_review(removed, verdict):
    metrics = GOOD | {"residual_rms": removed, "sigma_before_wavelet": 18.0}
    judgement = judge(metrics, Triage("paper", "paper", {"paper": 9.0, "blind": 9.0}, 64))
    assert judgement.verdict == verdict
    if verdict == "review":
        assert judgement.reasons[0].startswith("uneven_noise: 9.0 grey levels were removed from a sample")


def test_damage_outweighs_not_needed():
    quiet = GOOD | {
        "sigma_before_wavelet": 2.0,
        "sigma_before_flat": 3.0,
        "residual_rms": 1.0,
        "mismatched_patches": 30.0,
    }
    assert judge(quiet).verdict is Verdict.REVIEW


def test_other_tissue_hides_what_follows_from_it_but_not_the_seam():
    swapped = GOOD | {"mismatched_patches": 9.0, "seam_block_worst": 30.0, "colour_shift": 9.0, "sharpness_coarse": 0.5}
    assert codes(swapped) == ["misplaced", "seam"]


def test_few_lines_are_not_taken_for_a_seam():
    assert judge(GOOD | {"seam_patch": 1.2, "seam_patch_error": 0.1}).verdict is Verdict.PASS


def test_judging_needs_no_numpy():
    script = "import sys, wsi_denoise.quality.verdict; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_controls_from_real_tissue(bench, tissue_image):
    made = list(bench.controls([("tiatoolbox", tissue_image)], 3, bench.stand_in, 5))
    assert {control.kind for control in made} == set(bench.EXPECTED)
    for control in made:
        # The stand-in blurs a little, also what is clean; that is its fault and not the verdict's.
        after = control.before if control.kind == "clean" else control.after
        judgement = judge(bench.measured(bench.Control(control.kind, "", control.before, after, "")))
        assert bench.right(control.kind, judgement)[:2] == (True, True), (control.kind, control.note, judgement)


def test_wilson_interval_of_no_error_in_two_hundred(bench):
    assert bench.wilson(0, 200) == pytest.approx((0.0, 0.0188), abs=1e-4)
    assert bench.wilson(10, 200) == pytest.approx((0.0274, 0.0896), abs=1e-4)


def test_every_threshold_is_documented_with_its_value():
    text = (ROOT / "docs/lab/verdict.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", text, re.MULTILINE))
    assert rows == {field.name: f"{getattr(verdict.DEFAULT, field.name):g}" for field in fields(verdict.Thresholds)}


def test_every_metric_is_documented():
    text = (ROOT / "docs/programs/metrics.md").read_text("utf-8")
    assert set(re.findall(r"`([a-z0-9_]+)`", text)) >= set(evidence.Evidence().summary())


def test_every_reason_is_documented():
    source = (ROOT / "wsi_denoise/quality/verdict.py").read_text("utf-8")
    given = set(re.findall(r'f?"([a-z_]+): ', source)) - {"structure_"} | {"structure_removed", "structure_added"}
    assert len(given) >= 12
    text = (ROOT / "docs/lab/verdict.md").read_text("utf-8")
    assert {code for code in given if f"`{code}`" not in text} == set()
