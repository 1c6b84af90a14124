"""Presets that are not for slides are refused as a user meets them."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.fixture
def with_unsafe_preset(tmp_path) -> dict[str, str]:
    """The environment of a package with a preset whose card says that it is not for slides."""
    source = Path(find_spec("wsi_denoise").origin).parent
    package = tmp_path / "packages" / "wsi_denoise"
    package.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.name not in {"weights", "__pycache__"}:
            (package / entry.name).symlink_to(entry)
    (package.parent / "migrations").symlink_to(source.parent / "migrations")
    weights = shutil.copytree(source / "weights", package / "weights")
    card = json.loads((weights / "paper.json").read_text())
    (weights / "only-a-table.json").write_text(json.dumps({**card, "name": "only-a-table", "not_for_slides": True}))
    shutil.copyfile(weights / "paper.safetensors", weights / "only-a-table.safetensors")
    return {"PYTHONPATH": str(package.parent)}


def test_a_preset_that_is_not_for_slides_needs_a_word(
    workplace, tmp_path, save_slide, tiled_tissue, with_unsafe_preset
):
    place = workplace(variables=with_unsafe_preset)
    slide = save_slide(tmp_path / "one.tiff", tiled_tissue(420, 300))
    (job,) = place.json("run", slide, "--preset", "only-a-table", code=1)["jobs"]
    assert (job["state"], job["error_code"], job["output"]) == ("failed", "preset_not_for_slides", None)
    assert "model.allow_unsafe" in job["error"]
    assert not list(place.output.rglob("*.tiff"))
    (job,) = place.json("run", slide, "--preset", "only-a-table", "--set", "model.allow_unsafe=true")["jobs"]
    assert (job["state"], job["preset"]) == ("done", "only-a-table")
    assert Path(job["output"]).name == "one.tiff.only-a-table.denoised.tiff"
    assert "not for slides" in place.cli("models").split("only-a-table", 1)[1]
