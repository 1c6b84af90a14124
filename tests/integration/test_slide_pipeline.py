"""One slide on a real Dask cluster: from a noisy TIFF of real tissue to a verified, published one."""

from itertools import pairwise

import numpy as np
import openslide
import pytest
import tifffile

from support.slide_case import ICC, MPP, Case, noisy, psnr, settings_in, write_slide
from wsi_denoise.errors import (
    NoSuchPreset,
    NotASlide,
    OutputExists,
    SlideChanged,
    SlideError,
)
from wsi_denoise.processing.slide import Result
from wsi_denoise.quality import patch_map
from wsi_denoise.slide import provenance
from wsi_denoise.slide.geometry import level_sizes
from wsi_denoise.slide.verify import sha256


@pytest.fixture(scope="module")
def finished(cluster, clean, tmp_path_factory) -> tuple[Case, Result]:
    """A slide of four blocks with noise of sigma 25, done once for several tests."""
    folder = tmp_path_factory.mktemp("finished")
    slide = write_slide(folder / "a.tiff", noisy(clean, 25))
    case = Case(cluster, folder, slide, settings_in(folder, tissue__mode="auto"))
    before = sha256(slide), slide.stat().st_mtime_ns
    result = case.run()
    assert (sha256(slide), slide.stat().st_mtime_ns) == before
    return case, result


def test_the_output_is_closer_to_the_clean_image(finished, clean):
    case, _ = finished
    after = case.pixels()
    assert after.shape == clean.shape
    assert psnr(after, clean) - psnr(noisy(clean, 25), clean) > 5


def test_the_output_opens_with_all_that_the_source_had(finished):
    case, result = finished
    assert result.output == case.output
    assert sha256(case.output) == result.sha256
    with openslide.OpenSlide(case.output) as slide:
        assert slide.level_dimensions == level_sizes(1700, 1600)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(MPP, rel=1e-3)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(MPP, rel=1e-3)
        assert slide.color_profile.tobytes() == ICC
    assert case.left_over() == []


def test_every_level_is_the_one_before_halved(finished):
    case, _ = finished
    with tifffile.TiffFile(case.output) as tiff:
        levels = [page.asarray() for page in tiff.pages]
    for larger, smaller in pairwise(levels):
        padded = np.pad(larger.astype(int), ((0, larger.shape[0] % 2), (0, larger.shape[1] % 2), (0, 0)), mode="edge")
        sums = padded[0::2, 0::2] + padded[1::2, 0::2] + padded[0::2, 1::2] + padded[1::2, 1::2]
        np.testing.assert_array_equal(smaller, (sums + 2) // 4)


def test_the_output_says_what_made_it(finished):
    case, result = finished
    facts = provenance.of_file(case.output)
    assert facts["fingerprint"] == sha256(case.slide)
    assert facts["preset"] == "paper"
    assert facts["model_sha256"] == result.model_sha256
    assert facts["settings"] == case.settings.pixel_settings()
    assert facts["numerics"] == case.plan.work.plan.numerics
    assert facts["region"] is None
    assert {key: facts[key] for key in result.facts} == result.facts
    # File names carry patients' numbers: nothing of the path is written down.
    assert b"a.tiff" not in case.output.read_bytes()[:4096]
    assert str(case.folder) not in str(facts)


def test_evidence_is_measured(finished):
    case, result = finished
    metrics = result.metrics
    assert metrics["sigma_before_wavelet"] == pytest.approx(25, rel=0.2)
    assert metrics["sigma_after_wavelet"] < 10
    assert metrics["tissue_patches"] == int(case.plan.tissue.sum())
    assert result.judgement.verdict in {"pass", "review"}
    patches = patch_map.load(case.maps)
    assert patches.sigma_removed.shape == case.plan.work.lattice.patch_shape == (17, 18)
    assert np.nanmedian(patches.sigma_removed) == pytest.approx(25, rel=0.25)
    assert set(result.seconds) == {"read", "network", "measure", "encode", "total"}
    assert all(seconds > 0 for seconds in result.seconds.values())


def test_progress_goes_up_to_the_end(finished):
    case, _ = finished
    done = [progress.done for progress in case.seen]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 4)
    assert {progress.total for progress in case.seen} == {4}
    assert {progress.resumed for progress in case.seen} == {0}
    assert case.seen[-1].seconds_left == pytest.approx(0)
    assert case.seen[-1].rate > 0


def test_a_second_run_takes_all_blocks_from_the_spool_and_gives_the_same(finished):
    case, result = finished
    before = case.pixels()
    again = case.run()
    assert [(progress.done, progress.resumed) for progress in case.seen] == [(4, 4)]
    np.testing.assert_array_equal(case.pixels(), before)
    assert again.metrics == result.metrics


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (97, 95), (300, 200)])
def test_small_slides_as_jpeg(size, cluster, clean, tmp_path):
    slide = write_slide(tmp_path / "a.tiff", noisy(clean[: size[1], : size[0]], 15))
    case = Case(cluster, tmp_path, slide, settings_in(tmp_path, output__compression="jpeg", tissue__mode="auto"))
    result = case.run()
    assert sha256(case.output) == result.sha256
    with openslide.OpenSlide(case.output) as written:
        assert written.level_dimensions == level_sizes(*size)


def test_somebody_elses_file_is_not_overwritten(strip):
    strip.output.parent.mkdir()
    strip.output.write_bytes(b"a thesis")
    for overwrite in (False, True):
        strip.settings = settings_in(strip.folder, output__overwrite=overwrite)
        with pytest.raises(OutputExists):
            strip.run()
        assert strip.output.read_bytes() == b"a thesis"
        assert strip.left_over() == []


def test_an_output_of_other_settings_is_replaced_only_when_asked(strip):
    strip.run()
    first = strip.output.read_bytes()
    strip.settings = settings_in(strip.folder, output__compression="jpeg")
    with pytest.raises(OutputExists):
        strip.run()
    assert strip.output.read_bytes() == first
    strip.settings = settings_in(strip.folder, output__compression="jpeg", output__overwrite=True)
    strip.run()
    assert provenance.of_file(strip.output)["settings"]["output.compression"] == "jpeg"
    assert strip.left_over() == []


def test_the_output_of_another_slide_is_never_replaced(strip, clean):
    strip.run()
    first = strip.output.read_bytes()
    tifffile.imwrite(strip.slide, np.ascontiguousarray(clean[:600, ::-1]), photometric="rgb", tile=(256, 256))
    strip.settings = settings_in(strip.folder, output__overwrite=True)
    with pytest.raises(OutputExists):
        strip.run()
    assert strip.output.read_bytes() == first
    assert strip.left_over() == []


def test_a_folder_that_cannot_be_flushed_does_not_undo_what_is_published(strip, monkeypatch):
    flushed = []

    def refuse(handle):
        flushed.append(handle)
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("wsi_denoise.system.files.os.fsync", refuse)
    strip.run()
    assert flushed
    assert strip.output.is_file()


def test_a_source_that_changed_meanwhile_is_not_published(strip):
    def changed() -> None:
        raise SlideChanged("a.tiff")

    with pytest.raises(SlideChanged):
        strip.run(check_source=changed)
    assert not strip.output.exists()
    assert strip.left_over() == []


def test_what_is_wrong_with_a_slide_is_told_by_the_worker(strip):
    with pytest.raises(NoSuchPreset):
        strip.run(preset="nonsense")
    whole = strip.slide.read_bytes()
    strip.slide.write_bytes(b"no slide at all" * 100)
    with pytest.raises(NotASlide):
        strip.run()
    strip.slide.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SlideError):
        strip.run()
    assert not strip.output.exists()


def test_a_region_is_done_at_its_place(strip):
    strip.run(region=(1500, 50, 5000, 100))
    assert strip.pixels().shape == (100, 200, 3)
    with tifffile.TiffFile(strip.slide) as tiff:
        source = tiff.pages.first.asarray()[50:150, 1500:1700]
    # The same field: what was changed is noise of sigma 15, not another place.
    assert psnr(strip.pixels(), source) > 20
    assert provenance.of_file(strip.output)["region"] == [1500, 50, 5000, 100]
