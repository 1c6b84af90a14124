"""The decision of triage on a real cluster: what is denoised, with which preset, and what is kept."""

import json

import imagecodecs
import numpy as np
import pytest

from support.slide_case import Case, noisy, psnr, settings_in, write_slide
from wsi_denoise.cli import app
from wsi_denoise.network import candidates
from wsi_denoise.slide import provenance


def through_jpeg(pixels: np.ndarray) -> np.ndarray:
    return imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(pixels, level=90, subsampling="420"))


@pytest.fixture
def strip(cluster, clean, tmp_path):
    """Make a slide of two blocks of one kind: clean, with white noise, or with noise behind JPEG."""

    def make(kind: str) -> Case:
        made = {"clean": clean, "white": noisy(clean, 20), "jpeg": through_jpeg(noisy(clean, 20))}[kind]
        return Case(cluster, tmp_path, write_slide(tmp_path / "a.tiff", made[:400]), settings_in(tmp_path))

    return make


def test_a_clean_slide_keeps_every_pixel(strip, clean):
    case = strip("clean")
    result = case.run(preset="auto")
    np.testing.assert_array_equal(case.pixels(), clean[:400])
    assert result.judgement.verdict == "not_needed"
    assert result.judgement.reasons[0].startswith("nothing_to_remove: ")
    assert result.judgement.reasons[0].endswith("The output has the pixels of the original.")
    assert result.metrics["tissue_patches"] == case.plan.tissue.sum()
    assert result.metrics["sigma_before_wavelet"] == result.metrics["sigma_after_wavelet"] is not None
    assert result.facts["triage"]["used"] is None


@pytest.mark.parametrize(("kind", "preset", "least"), [("white", "paper", 5.0), ("jpeg", "blind", 2.0)])
def test_a_noisy_slide_is_denoised_with_the_preset_for_its_noise(strip, clean, kind, preset, least):
    case = strip(kind)
    result = case.run(preset="auto")
    facts = provenance.of_file(case.output)
    assert (facts["preset"], facts["used"], facts["triage"]["preset"]) == ("auto", preset, preset)
    assert facts["model_sha256"] == result.model_sha256 == candidates.checksum("auto")
    before = {"white": noisy(clean, 20), "jpeg": through_jpeg(noisy(clean, 20))}[kind][:400]
    assert psnr(case.pixels(), clean[:400]) - psnr(before, clean[:400]) > least
    # A repetition decides the same, and resumes the same work.
    again = case.plan.work.spool
    case.output.unlink()
    case.run(preset="auto")
    assert case.plan.work.spool == again
    assert {key: case.plan.facts["triage"][key] for key in ("preset", "removed")} == {
        key: facts["triage"][key] for key in ("preset", "removed")
    }


def test_a_named_preset_is_used_as_named_and_the_verdict_names_the_better_one(strip):
    case = strip("jpeg")
    result = case.run(preset="paper")
    assert result.facts["used"] == "paper"
    assert result.judgement.verdict == "review"
    assert any(
        reason.startswith("noise_left: paper removes") and reason.endswith("Run the slide again with blind.")
        for reason in result.judgement.reasons
    )


def test_the_command_prints_the_decision_and_stops(strip, tmp_path, monkeypatch, capsys):
    slide = strip("white").slide
    monkeypatch.chdir(tmp_path)
    assert app.run(["run", str(slide), str(tmp_path / "none.svs"), "--triage", "--json"]) == 1
    found, missing = json.loads(capsys.readouterr().out)["slides"]
    assert (found["triage"]["preset"], found["error"]) == ("paper", None)
    assert (missing["triage"], missing["error_code"]) == (None, "no_such_path")
    assert not (tmp_path / "denoised").exists()
    assert not (tmp_path / ".wsi-denoise").exists()
