"""The Dockerfile's own install steps, in a clean folder and a clean environment. No container engine is needed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOME = "/opt/wsi-denoise"


def instructions():
    """(instruction, arguments) of the Dockerfile, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, arguments = line.partition(" ")
            yield name, arguments.strip()


def of_the_system(step):
    return re.match(r"(apt-get|useradd)\b", step) is not None


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_install_steps_make_a_working_program(tmp_path):
    source, home = tmp_path / "src", tmp_path / "env"
    source.mkdir()
    ran = 0
    for name, arguments in instructions():
        if name == "COPY":
            *files, goal = arguments.split()
            for file in files:
                place = source / (file if goal == "./" else goal)
                copy = shutil.copytree if (ROOT / file).is_dir() else shutil.copy
                copy(ROOT / file, place)
        elif name == "RUN" and not of_the_system(arguments):
            step = arguments.replace(HOME, str(home))
            done = subprocess.run(["sh", "-c", step], check=False, capture_output=True, text=True, cwd=source)
            assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"
            ran += 1
    assert ran >= 2
    shutil.rmtree(source)
    folder = tmp_path / "data"
    folder.mkdir()
    for command in (["--version"], ["models"], ["db", "upgrade"], ["sample", "inbox"]):
        done = subprocess.run([home / "bin" / "wsi-denoise", *command], check=False, capture_output=True, cwd=folder)
        assert done.returncode == 0, done.stderr
    imports = "import wsi_denoise.cli.app, torch, openvino, psycopg, streamlit, openslide"
    assert subprocess.run([home / "bin" / "python", "-c", imports], check=False, cwd=folder).returncode == 0


def test_the_start_is_a_command_that_exists():
    found = dict(instructions())
    assert found["ENTRYPOINT"] == '["wsi-denoise"]'
    assert found["CMD"].startswith('["up"')


def test_nothing_is_copied_that_does_not_exist():
    for name, arguments in instructions():
        if name == "COPY":
            for file in arguments.split()[:-1]:
                assert (ROOT / file).exists(), file
