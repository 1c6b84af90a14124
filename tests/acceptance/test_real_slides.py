"""Every real slide, dropped at once into one daemon: what becomes of each, and that no original changes."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile

from support.slides import pixels_of
from wsi_denoise.jobs.states import OVER, JobState
from wsi_denoise.slide import provenance
from wsi_denoise.slide.reader import open_slide

pytestmark = [pytest.mark.shared, pytest.mark.slow, pytest.mark.timeout(2400)]

CMU = "CMU-1-Small-Region"
DONE: dict[str, tuple[tuple[int, int], int, float | None]] = {
    # path under slides/: (width, height), least levels, mpp
    f"{CMU}.svs": ((2220, 2967), 3, 0.499),
    f"derived/{CMU}.aperio-like-2level.svs": ((2220, 2967), 3, 0.499),
    f"derived/{CMU}.dicom": ((2220, 2967), 3, 0.499),
    f"derived/{CMU}.generic-pyramid-deflate.tif": ((2220, 2967), 3, 0.499),
    f"derived/{CMU}.generic-pyramid-jpeg.tif": ((2220, 2967), 3, 0.499),
    f"derived/{CMU}.ome.tif": ((2220, 2967), 3, 0.499),
    "TCGA-CR-7395-01A-01-TS1.histolab.svs": ((4443, 3567), 3, None),
    "OS-1-detail.ome.tif": ((1101, 1101), 1, 0.227),
    "generic-CropBreastSlide.tiff": ((2033, 1525), 1, None),
    "camelyon-jpeg2000.dicom": ((1696, 812), 1, 28.97),
    "camelyon-jpeg.dicom": ((1152, 700), 1, 28.97),
    "highdicom-sm.dicom": ((50, 50), 1, 0.499),
    "negative/small.svs": ((16, 16), 1, 0.499),
}
REFUSED = {
    "hamamatsu-test3-DAPI-2-387.ndpi": ("not_brightfield", "fluorescence"),
    "hamamatsu-test3-TRITC-2-560.ndpi": ("not_brightfield", "fluorescence"),
    "akoya-small_vectra.qptiff": ("not_rgb", "multiplex"),
    "negative/broken.svs": ("not_a_slide", "no reader knows its content"),
    "negative/unopenable.tiff": ("unsupported_slide", "codec 52479"),
    "negative/unreadable.svs": ("unreadable_tile", "level 0, x 0, y 0"),
}
FLUORESCENCE = "hamamatsu-test3-DAPI-2-387.ndpi"


def checksums(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def slides(shared) -> Path:
    return shared / "data" / "slides"


@pytest.fixture(scope="module")
def before(slides) -> dict[str, str]:
    return checksums(slides)


@pytest.fixture(scope="module")
def ended(open_workplace, slides, before, copy_in):
    """A workplace whose daemon has seen all slides through."""
    with open_workplace({"compute": {"workers": 2}}) as place:
        for entry in sorted(slides.iterdir()):
            copy_in(entry, place.inbox / entry.name)
        place.start()
        names = {*DONE, *REFUSED}
        place.wait(
            lambda: {job.relative for job in place.jobs() if job.state in OVER} >= names, "all slides are over", 900
        )
        place.stop()
        yield place


def test_each_slide_is_one_job(ended):
    assert sorted(job.relative for job in ended.jobs()) == sorted([*DONE, *REFUSED])


@pytest.mark.parametrize("name", sorted(DONE))
def test_slide_is_done(ended, slides, name):
    size, least_levels, mpp = DONE[name]
    job = ended.job(name)
    assert job.state is JobState.DONE, job.error
    assert job.verdict in {"pass", "review", "not_needed"}
    assert job.reasons
    assert job.progress == 1
    output = Path(job.output)
    assert output == ended.output / f"{name}.denoised.tiff"
    assert hashlib.sha256(output.read_bytes()).hexdigest() == job.output_sha256
    assert (job.width, job.height) == size

    with openslide.OpenSlide(output) as slide, tifffile.TiffFile(output) as tiff:
        assert slide.dimensions == size
        assert slide.level_count == len(tiff.pages) >= least_levels
        assert (tiff.pages[0].imagewidth, tiff.pages[0].imagelength) == size
        for level, page in enumerate(tiff.pages):
            assert slide.level_dimensions[level] == (page.imagewidth, page.imagelength)
            assert page.is_tiled
        check_resolution(slide.properties, tiff.pages[0], mpp)
        facts = provenance.parse(tiff.pages[0].description)
        assert facts["fingerprint"] == job.fingerprint
        assert "research use only" in tiff.pages[0].description
        drawn = np.asarray(slide.read_region((0, 0), 0, size).convert("RGB"), np.int16)
        stored = tiff.pages[0].asarray().astype(np.int16)
    if mpp is None:
        assert job.mpp is None
        assert any("resolution" in note for note in job.facts["notes"])
    else:
        assert job.mpp == pytest.approx((mpp, mpp), rel=2e-3)
    # Two decoders agree, and it is the picture of this slide: no colours swapped, nothing shifted.
    assert np.abs(drawn - stored).mean() < 1
    with open_slide(slides / name) as source:
        original = source.read(0, 0, *size).astype(np.int16)
    assert np.abs(stored - original).mean() < 4


def check_resolution(properties: Any, page: tifffile.TiffPage, mpp: float | None) -> None:
    tags = page.tags
    if mpp is None:
        assert "openslide.mpp-x" not in properties
        assert "XResolution" not in tags or tags["ResolutionUnit"].value == 1  # none: a ratio and no scale
        return
    for axis in "XY":
        assert float(properties[f"openslide.mpp-{axis.lower()}"]) == pytest.approx(mpp, rel=2e-3)
        pixels, centimetres = tags[f"{axis}Resolution"].value
        assert 1e4 * centimetres / pixels == pytest.approx(mpp, rel=2e-3)
    assert tags["ResolutionUnit"].value == 3  # centimetre


@pytest.mark.parametrize("name", ["TCGA-CR-7395-01A-01-TS1.histolab.svs", "highdicom-sm.dicom"])
def test_colour_profile_is_kept(ended, slides, name):
    with open_slide(slides / name) as source:
        profile = source.info.icc_profile
    assert profile
    with tifffile.TiffFile(ended.job(name).output) as tiff:
        assert all(page.tags[34675].value == profile for page in tiff.pages)
    with openslide.OpenSlide(ended.job(name).output) as slide:
        assert slide.color_profile is not None


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_slide_is_quarantined_with_its_own_reason(ended, name):
    code, word = REFUSED[name]
    job = ended.job(name)
    assert (job.state, job.error_code) == (JobState.QUARANTINED, code)
    assert word in job.error
    assert job.output is None
    note = ended.folder / "quarantine" / f"{name}.txt"
    assert code in note.read_text()
    link = ended.folder / "quarantine" / name
    assert link.resolve() == (ended.inbox / name).resolve()
    assert not (ended.output / f"{name}.denoised.tiff").exists()


READ_BY_TIATOOLBOX = """
import json, sys
from tiatoolbox.wsicore.wsireader import WSIReader
reader = WSIReader.open(sys.argv[1])
info = reader.info
print(json.dumps({
    "size": [int(side) for side in info.slide_dimensions],
    "levels": int(info.level_count),
    "mpp": [float(value) for value in info.mpp],
    "read": list(reader.read_rect((100, 200), (64, 32), resolution=0, units="level").shape),
}))
"""


def test_tiatoolbox_reads_an_output(ended):
    # In a process of its own: it imports SimpleITK, which crashes where warnings are errors.
    command = [sys.executable, "-c", READ_BY_TIATOOLBOX, ended.job(f"{CMU}.svs").output]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    assert found["size"] == [2220, 2967]
    assert found["levels"] >= 3
    assert found["mpp"] == pytest.approx([0.499, 0.499], abs=0.002)
    assert found["read"] == [32, 64, 3]


def test_nothing_but_outputs_is_in_the_output_folder(ended):
    files = {str(file.relative_to(ended.output)) for file in ended.output.rglob("*") if not file.is_dir()}
    assert files == {f"{name}.denoised.tiff" for name in DONE}
    assert not list((ended.folder / ".wsi-denoise").glob("spool/*"))


def test_originals_are_unchanged(ended, slides, before):
    assert checksums(ended.inbox) == before
    assert checksums(slides) == before


def test_cli_tells_the_same(ended):
    told = ended.json("jobs", "--state", "done", "--limit", "0")
    assert told["total"] == len(told["jobs"]) == len(DONE)
    assert {job["relative"] for job in told["jobs"]} == set(DONE)
    assert all(job["finished"].endswith("Z") and job["metrics"] for job in told["jobs"])


def test_fluorescence_is_done_when_asked_for(workplace, slides, copy_in):
    place = workplace({"compute": {"workers": 2}, "tissue": {"mode": "all"}})
    copy_in(slides / FLUORESCENCE, place.inbox / FLUORESCENCE)
    place.start()
    job = place.done(FLUORESCENCE, 900)
    assert (job.width, job.height) == (3968, 4864)
    assert job.mpp == pytest.approx((0.228, 0.228), abs=0.002)
    with openslide.OpenSlide(job.output) as slide:
        assert slide.dimensions == (3968, 4864)
        assert slide.level_count >= 3
    assert pixels_of(job.output).mean() < 60  # still dark
    place.stop()
