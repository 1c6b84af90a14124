"""Fixtures every tier uses: real tissue that ships with a dependency, and the shared folder where there is one."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def shared_folder() -> Path:
    return Path(os.environ.get("WSI_DENOISE_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real slides and reference weights."""
    folder = shared_folder()
    if not (folder / "data").is_dir():
        pytest.skip(f"real slides are not at {folder} (set WSI_DENOISE_SHARED)")
    return folder


@pytest.fixture(scope="session")
def tissue_image() -> np.ndarray:
    """Real H&E, (height, width, 3) uint8, from tiatoolbox's package data (found without importing it)."""
    file = Path(str(find_spec("tiatoolbox").origin)).parent / "data" / "target_image.png"
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))
