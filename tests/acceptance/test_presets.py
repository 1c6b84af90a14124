"""Presets that are not for slides are refused as a user meets them."""

from pathlib import Path

from support.package import add_preset
from support.slides import tiled_tissue, write_slide


def test_a_preset_that_is_not_for_slides_needs_a_word(workplace, tmp_path):
    place = workplace(variables=add_preset(tmp_path, "only-a-table", not_for_slides=True))
    slide = write_slide(tmp_path / "one.tiff", tiled_tissue(420, 300))
    (job,) = place.json("run", slide, "--preset", "only-a-table", code=1)["jobs"]
    assert (job["state"], job["error_code"], job["output"]) == ("failed", "preset_not_for_slides", None)
    assert "model.allow_unsafe" in job["error"]
    assert not list(place.output.rglob("*.tiff"))
    (job,) = place.json("run", slide, "--preset", "only-a-table", "--set", "model.allow_unsafe=true")["jobs"]
    assert (job["state"], job["preset"]) == ("done", "only-a-table")
    assert Path(job["output"]).name == "one.tiff.only-a-table.denoised.tiff"
    assert "not for slides" in place.cli("models").split("only-a-table", 1)[1]
