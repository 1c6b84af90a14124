"""The overview of a slide without smaller levels: when one is made, and that it shows the slide."""

import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from wsi_denoise.network.plan import Plan
from wsi_denoise.processing.assemble import assemble
from wsi_denoise.processing.block import run_block
from wsi_denoise.processing.spool import Spool
from wsi_denoise.processing.values import SlidePlan, SlideWork
from wsi_denoise.quality.triage import Triage
from wsi_denoise.slide import overview
from wsi_denoise.slide.encoding import Encoding
from wsi_denoise.slide.geometry import level_sizes
from wsi_denoise.slide.halving import halve
from wsi_denoise.slide.reader import open_slide


def write(path, *levels):
    with tifffile.TiffWriter(path) as tiff:
        for number, pixels in enumerate(levels):
            tiff.write(pixels, tile=(256, 256), photometric="rgb", subfiletype=1 if number else 0, metadata=None)
    return path


def smaller(pixels, step):
    return np.ascontiguousarray(pixels[::step, ::step])


@pytest.fixture
def strip(tissue_image):
    return np.concatenate([tissue_image[:320]] * 5, axis=1)[:, :4800]


@pytest.mark.parametrize(
    ("steps", "width", "expected"),
    [
        ((), 4800, True),
        ((), 4000, False),
        ((4,), 4800, False),
        ((8,), 4800, False),
        ((16,), 4800, True),
        ((4, 16), 4800, False),
    ],
)
def test_it_is_needed_where_the_levels_leave_a_gap(tmp_path, strip, steps, width, expected):
    full = strip[:, :width]
    file = write(tmp_path / "a.tiff", full, *(smaller(full, step) for step in steps))
    with open_slide(file) as slide:
        assert len(slide.info.levels) == 1 + len(steps)
        assert overview.needed(slide) is expected


def test_a_level_of_other_colours_does_not_count(tmp_path, strip):
    with open_slide(write(tmp_path / "a.tiff", strip, 255 - smaller(strip, 4))) as slide:
        assert len(slide.info.levels) == 2
        assert overview.true_levels(slide) == (0,)
        assert overview.needed(slide)


@pytest.fixture
def assembled(tmp_path, tissue_image):
    """A slide of two blocks through the tasks' own code; only the network is left out."""
    before = np.concatenate([tissue_image, tissue_image[:, ::-1]], axis=1)[:900, :1701]
    height, width = before.shape[:2]
    work = SlideWork(
        path=tmp_path / "none", width=width, height=height, offset=(0, 0), preset="paper",
        plan=Plan("cpu", "torch", "fp32", 2, 2), halo=0, background="keep", glass=(255, 255, 255),
        encoding=Encoding("deflate"), spool=tmp_path / "spool", max_megapixels=1e4, model_sha256="",
        version="", overview=True,
    )  # fmt: skip
    nothing = np.zeros(work.lattice.patch_shape, np.bool_)
    read = lambda x, y, width, height: before[y : y + height, x : x + width]  # noqa: E731
    for block in work.lattice.blocks():
        run_block(work, block, nothing[work.lattice.patches(block)], read, denoiser=None)
    info = SimpleNamespace(mpp=None, icc_profile=None)
    return before, SlidePlan(work, info, nothing, "", "none", {}, Triage(None, None, {}, 0))


def test_it_is_the_source_at_a_quarter(tmp_path, assembled):
    before, plan = assembled
    file = tmp_path / "overviews" / "7.tiff"
    assemble(plan, tmp_path / "a.part", None, file)
    expected = halve(halve(before))
    with open_slide(file) as slide:
        assert slide.info.levels == level_sizes(1701, 900)[overview.FIRST :]
        seen = slide.read(0, 0, slide.info.width, slide.info.height)
    assert np.abs(seen.astype(int) - expected).mean() < 3
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_two_that_write_one_overview_do_not_meet(tmp_path, tissue_image, monkeypatch):
    """A daemon that lost its lease may still be at it."""
    file, size = tmp_path / "7.tiff", (900, 900)
    rows = halve(halve(tissue_image[:900, :900]))
    write_pyramid = overview.write_pyramid

    def slowly(*args):
        write_pyramid(*args)
        monkeypatch.setattr(overview, "write_pyramid", write_pyramid)
        overview.write(file, size, [255 - rows])

    monkeypatch.setattr(overview, "write_pyramid", slowly)
    overview.write(file, size, [rows])
    with tifffile.TiffFile(file) as tiff:
        assert np.abs(tiff.pages.first.asarray().astype(int) - rows).mean() < 3
    assert list(tmp_path.iterdir()) == [file]


def test_blocks_spooled_without_it_cost_the_overview_and_nothing_else(tmp_path, assembled):
    _, plan = assembled
    spool = Spool(plan.work.spool)
    for block in plan.work.lattice.blocks():
        with spool.open(block) as stored:
            kept = {name: stored._archive.read(name) for name in stored._archive.namelist() if name != "source"}
        with zipfile.ZipFile(spool._file(block), "w") as archive:
            for name, data in kept.items():
                archive.writestr(name, data)
    file = tmp_path / "overviews" / "7.tiff"
    assemble(plan, tmp_path / "a.part", None, file)
    assert (tmp_path / "a.part").is_file()
    assert not file.exists()
