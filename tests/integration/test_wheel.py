"""The wheel: built, installed elsewhere and used from an empty folder, without the checkout."""

import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def program(wheel, tmp_path_factory):
    """The installed command, in an environment of its own that borrows only the libraries of this one."""
    place = tmp_path_factory.mktemp("elsewhere") / "env"
    venv.create(place, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    # A folder named in a .pth is searched, but its own .pth files are not read: the checkout stays unknown.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    start = place / "bin" / "wsi-denoise"
    start.write_text(f"#!{place}/bin/python\nfrom wsi_denoise.cli.app import main\nmain()\n")
    start.chmod(0o755)
    return start


@pytest.fixture
def call(program, tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WSI_DENOISE", "PYTHON"))}

    def run(*arguments):
        done = subprocess.run(
            [program, *arguments], check=False, capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_nothing_with_a_general_name_lands_in_site_packages(wheel):
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"wsi_denoise"}


def test_the_packages_of_a_lab_with_their_data_are_in_it(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "wsi_denoise", "dashboard", "migrations"],
        check=False, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert {
        "wsi_denoise/weights/paper.safetensors",
        "wsi_denoise/weights/paper.json",
        "wsi_denoise/bundled/migrations/env.py",
        "wsi_denoise/bundled/migrations/versions/0001_first.py",
        "wsi_denoise/bundled/dashboard/pages/frame/main.py",
        "wsi_denoise/bundled/dashboard/viewer/library/openseadragon.min.js",
        "wsi_denoise/bundled/dashboard/viewer/library/LICENSE.txt",
    } <= names
    assert {
        name if name.startswith("wsi_denoise/") else f"wsi_denoise/bundled/{name}" for name in tracked.stdout.split()
    } <= names
    assert not [name for name in names if "training" in Path(name).parts]


def test_it_works_from_an_empty_folder(call, tmp_path, program):
    code, out, err = call("--version")
    assert (code, err) == (0, "")
    code, out, err = call("models", "--json")
    assert (code, err) == (0, "")
    assert "paper" in [card["name"] for card in json.loads(out)["presets"]]
    assert call("db", "upgrade")[0] == 0
    assert call("db", "check")[0] == 0
    assert json.loads(call("jobs", "--json")[1]) == {"jobs": [], "total": 0}
    # None of it came from the checkout.
    code = """
import wsi_denoise
from wsi_denoise.system import bundled
print(wsi_denoise.__file__, bundled.module("dashboard.app").__file__)
"""
    found = subprocess.run(
        [program.with_name("python"), "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert str(ROOT) not in found.stdout.replace(str(tmp_path), "")
    weights = "from wsi_denoise.network import weights; weights.load('paper')"
    assert subprocess.run([program.with_name("python"), "-c", weights], check=False, cwd=tmp_path).returncode == 0


def test_the_page_is_served(program, tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [program, "dashboard", "--port", str(port)], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        pages = {path: get(process, f"http://127.0.0.1:{port}{path}") for path in ("/healthz", "/api/jobs", "/")}
    finally:
        process.terminate()
        process.wait(30)
    assert json.loads(pages["/healthz"]) == {"status": "ok"}
    assert json.loads(pages["/api/jobs"]) == {"jobs": [], "total": 0}
    assert b"<html" in pages["/"]


def get(process, url):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, f"the page ended with {process.returncode}"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.read()
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"no answer from {url}")
