"""Crops of slides for training lie on tissue, do not overlap, and are listed."""

import json

import numpy as np
import pytest
import tifffile

from training.data import slides, sources


@pytest.fixture
def slide(tmp_path, tissue_image):
    """Glass of 1344 x 1152 px with tissue in its right half, as a tiled TIFF; (width, height)."""
    image = np.full((1152, 1344, 3), 243, np.uint8)
    part = tissue_image[:96, :96]
    image[:, 672:] = np.tile(part, (12, 7, 1))
    path = tmp_path / "slide.tiff"
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", compression="deflate")
    return path


@pytest.mark.training
def test_crops_lie_on_tissue_and_are_listed(slide, tmp_path):
    out = tmp_path / "crops"
    assert slides.main([str(slide), "--out", str(out), "--count", "5", "--side", "96", "--licence", "CC0-1.0"]) == 0
    listed = json.loads((out / "crops.json").read_text())
    assert listed["licence"] == "CC0-1.0"
    assert len(listed["slides"]["slide.tiff"]) == 64
    places = [(crop["x"], crop["y"]) for crop in listed["crops"]]
    assert len(places) == 5
    assert all(x + 192 > 672 + 48 for x, _ in places), "on the tissue, or at its border"
    assert all(max(abs(x - u), abs(y - v)) >= 192 for n, (x, y) in enumerate(places) for u, v in places[:n]), (
        "none overlaps another"
    )
    (source,) = [sources.own_source(out)]
    assert [sources.load(file).shape for file in source.files] == [(96, 96, 3)] * 5
    again = tmp_path / "again"
    slides.main([str(slide), "--out", str(again), "--count", "5", "--side", "96"])
    assert json.loads((again / "crops.json").read_text())["crops"] == listed["crops"]


@pytest.mark.training
def test_a_crop_that_is_not_scaled_is_the_slides_own_pixels(slide, tmp_path):
    slides.main([str(slide), "--out", str(tmp_path / "crops"), "--count", "1", "--side", "64", "--scale", "1"])
    crop = json.loads((tmp_path / "crops" / "crops.json").read_text())["crops"][0]
    expected = tifffile.imread(slide)[crop["y"] : crop["y"] + 64, crop["x"] : crop["x"] + 64]
    assert np.array_equal(sources.load(tmp_path / "crops" / crop["file"]), expected)


def test_what_is_no_slide_is_said(tmp_path, capsys):
    file = tmp_path / "notes.svs"
    file.write_text("not a slide")
    assert slides.main([str(file), "--out", str(tmp_path / "crops")]) == 1
    assert "not an image" in capsys.readouterr().err
