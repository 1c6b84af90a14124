"""The recipe for a machine without a GPU: what it resolves to where newer PyTorch wheels exist."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
#: Versions of an index of CPU wheels: the newest ones are outside of tiatoolbox's pins.
WHEELS = {"torch": ("2.11.0", "2.12.1", "2.13.0", "2.14.1"), "torchvision": ("0.26.0", "0.27.1", "0.28.0", "0.29.1")}


def recipe() -> list[str]:
    """Return what the first pip command for CPU wheels in docs/start/install.md installs."""
    text = (ROOT / "docs" / "start" / "install.md").read_text("utf-8")
    (command,) = re.findall(r"^pip install .*whl/cpu$", text, re.MULTILINE)
    words = shlex.split(command)[2:]
    return words[: words.index("--index-url")]


def write_wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    """Write a wheel without modules."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (
        requires and f"Requires-Dist: {requires}\n"
    )
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path) -> Path:
    """A folder with CPU builds, each torchvision made for one torch."""
    for torch, torchvision in zip(WHEELS["torch"], WHEELS["torchvision"], strict=True):
        write_wheel(tmp_path, "torch", f"{torch}+cpu")
        write_wheel(tmp_path, "torchvision", f"{torchvision}+cpu", f"torch=={torch}")
    return tmp_path


def resolve(index: Path, *requirements: str) -> dict[str, str]:
    """Return the version that pip chooses for each package, from this folder only."""
    options = ["--dry-run", "--ignore-installed", "--no-index", "--find-links", str(index), "--quiet", "--report", "-"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, *requirements], capture_output=True, text=True, check=True
    )
    chosen = json.loads(done.stdout[done.stdout.index("{") :])["install"]
    return {package["metadata"]["name"]: package["metadata"]["version"] for package in chosen}


def pinned() -> dict[str, Requirement]:
    """Return the project's requirements by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return {(parsed := Requirement(text)).name: parsed for text in project["dependencies"]}


def test_the_second_command_keeps_the_cpu_wheel_that_the_first_one_installed(index):
    chosen = resolve(index, *recipe())
    assert chosen == {"torch": "2.12.1+cpu", "torchvision": "0.27.1+cpu"}
    assert pinned()["torch"].specifier.contains(chosen["torch"])


def test_without_the_range_the_wheel_would_be_replaced(index):
    chosen = resolve(index, "torch", "torchvision")
    assert not pinned()["torch"].specifier.contains(chosen["torch"])


def test_the_recipe_has_the_projects_own_range():
    (torch,) = [Requirement(text) for text in recipe() if Requirement(text).name == "torch"]
    assert torch.specifier == pinned()["torch"].specifier
