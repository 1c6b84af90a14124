"""A file that is replaced under a job, or a program under a worker: no block of the wrong kind is kept."""

import json
import os
import shutil

import numpy as np
import pytest
import tifffile

from wsi_denoise.errors import SlideChanged, WorkerDiffers
from wsi_denoise.network import denoiser as network
from wsi_denoise.network import weights
from wsi_denoise.processing.dask import tasks
from wsi_denoise.processing.plan import plan_slide
from wsi_denoise.processing.spool import Spool
from wsi_denoise.settings import load
from wsi_denoise.slide.base import as_found
from wsi_denoise.slide.verify import sha256


def _write(path, colour, *, age):
    """Write a slide of two blocks in one colour, last changed so many seconds ago."""
    tifffile.imwrite(path, np.full((96, 1632, 3), colour, np.uint8), photometric="rgb", tile=(256, 256))
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))


@pytest.fixture
def settings(tmp_path):
    given = {"output.compression": "deflate", "compute.precision": "fp32", "compute.window": 2}
    return load(overrides=given, folder=tmp_path, environ={}).settings


@pytest.fixture
def slides(tmp_path):
    """The slide in its place, and beside it what it is replaced by."""
    live, other = tmp_path / "a.tiff", tmp_path / "other.tiff"
    _write(live, (200, 120, 160), age=3600)
    _write(other, (90, 60, 200), age=60)
    return live, other


def _plan(path, settings, tmp_path):
    files = (as_found(path),)
    return plan_slide(path, sha256(path), settings, "paper", tmp_path / "spool", None, files)


def _do(plan, number):
    index = list(plan.work.lattice.blocks())[number]
    return tasks.block(plan.work, index, plan.tissue[plan.work.lattice.patches(index)])


def test_a_block_of_other_content_is_not_kept(slides, settings, tmp_path):
    live, other = slides
    plan = _plan(live, settings, tmp_path)
    _do(plan, 0)
    shutil.copy2(other, live)
    with pytest.raises(SlideChanged):
        _do(plan, 1)
    assert len(list(plan.work.spool.glob("*.block"))) == 1
    with pytest.raises(SlideChanged):
        plan_slide(live, plan.facts["fingerprint"], settings, "paper", tmp_path / "spool", None, plan.work.files)


def test_what_is_replaced_between_reading_and_writing_is_not_kept(slides, settings, tmp_path, monkeypatch):
    live, other = slides
    plan = _plan(live, settings, tmp_path)
    read = type(tasks.reader.open_cached(live)).read

    def replaced(slide, *region):
        pixels = read(slide, *region)
        shutil.copy2(other, live)
        return pixels

    monkeypatch.setattr(type(tasks.reader.open_cached(live)), "read", replaced)
    with pytest.raises(SlideChanged):
        _do(plan, 0)
    assert set(Spool(plan.work.spool).finished()) == set()


def test_times_that_a_share_rounds_are_no_change(slides, settings, tmp_path):
    live, _ = slides
    plan = _plan(live, settings, tmp_path)
    status = live.stat()
    rounded = status.st_mtime_ns // 10**9 * 10**9
    os.utime(live, ns=(rounded, rounded))
    _do(plan, 0)


def test_a_worker_of_another_version_is_refused(slides, settings, tmp_path, monkeypatch):
    plan = _plan(slides[0], settings, tmp_path)
    monkeypatch.setattr(tasks, "__version__", "99.0")
    with pytest.raises(WorkerDiffers, match=r"version 99\.0"):
        _do(plan, 0)


def test_weights_replaced_under_a_worker_are_noticed_and_the_next_plan_has_the_new_ones(
    slides, settings, tmp_path, monkeypatch
):
    place = tmp_path / "weights"
    shutil.copytree(weights.folder(), place)
    monkeypatch.setattr(weights, "folder", lambda: place)
    network._cached.cache_clear()
    plan = _plan(slides[0], settings, tmp_path)
    _do(plan, 0)
    card = json.loads((place / "reproduce-paper.json").read_text())
    old = json.loads((place / "paper.json").read_text())
    kept = {key: card[key] for key in ("filters", "residual", "full_skip", "parameters", "sha256", "protocol")}
    (place / "paper.json").write_text(json.dumps(old | kept))
    shutil.copy2(place / "reproduce-paper.safetensors", place / "paper.safetensors")
    # The loaded weights are still those of the plan; those of a new worker are not.
    again = _plan(slides[0], settings, tmp_path)
    assert again.model_sha256 == card["sha256"] != plan.model_sha256
    assert again.work.spool != plan.work.spool
    _do(again, 0)
    first, second = (next(each.work.spool.glob("*.block")).read_bytes() for each in (plan, again))
    assert first != second
    network._cached.cache_clear()
    with pytest.raises(WorkerDiffers, match="weights"):
        _do(plan, 1)
    network._cached.cache_clear()
