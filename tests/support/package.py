"""The program under another path, with presets beside those that ship."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def add_preset(folder: Path, name: str, **card: Any) -> dict[str, str]:
    """Link the package below `folder`, with a copy of the preset ``paper``; return the variables of its processes."""
    source = Path(find_spec("wsi_denoise").origin).parent
    package = folder / "packages" / "wsi_denoise"
    package.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.name not in {"weights", "__pycache__"}:
            (package / entry.name).symlink_to(entry)
    (package.parent / "migrations").symlink_to(source.parent / "migrations")
    weights = shutil.copytree(source / "weights", package / "weights")
    paper = json.loads((weights / "paper.json").read_text())
    (weights / f"{name}.json").write_text(json.dumps({**paper, "name": name, **card}))
    shutil.copyfile(weights / "paper.safetensors", weights / f"{name}.safetensors")
    return {"PYTHONPATH": str(package.parent)}
