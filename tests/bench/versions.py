"""Compare two checkouts from the outside, to show that a change of the code changes nothing for users.

    python tests/bench/versions.py OLD NEW --slides a.svs b.tiff ... [--gone setting.name ...]

Each checkout has its environment in ``.venv``. The program compares commands and their options, names of settings,
error codes, the keys in the JSON of ``run``, ``jobs`` and ``job``, the jobs of a database that OLD made and NEW
upgraded, and the outputs of the slides, byte for byte. Outputs with different bytes are compared page by page: pixels,
and the description without the version, times and folders. The exit code is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

COMMANDS = """
import json, typer
try:
    from wsi_denoise.cli.app import app
except ImportError:
    from wsi_denoise.cli import app
def tree(command, name):
    yield name, sorted(option for each in command.params for option in (*each.opts, *each.secondary_opts))
    for below, each in sorted(getattr(command, "commands", {}).items()):
        yield from tree(each, f"{name} {below}".strip())
print(json.dumps(dict(tree(typer.main.get_command(app), ""))))
"""
CODES = """
import json
from wsi_denoise.errors import every_error
print(json.dumps(sorted((each.code, each.retry, each.outlasts) for each in every_error())))
"""
# What a version and a place may change in a description.
VARYING = re.compile(r'"(version|created|seconds|source|path|time)": ("[^"]*"|\{[^}]*\})')


class Checkout:
    """A checkout, and a working folder for its commands."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root.resolve(), folder
        folder.mkdir(parents=True)

    def python(self, code: str) -> Any:
        command = [self.root / ".venv/bin/python", "-c", code]
        done = subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def cli(self, *arguments: str | Path, codes: Sequence[int] = (0,)) -> Any:
        command = [self.root / ".venv/bin/wsi-denoise", *arguments, "--json"]
        done = subprocess.run(command, cwd=self.folder, check=False, capture_output=True, text=True)
        if done.returncode not in codes:
            sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr}")
        return json.loads(done.stdout)


def keys(value: Any, path: str = "") -> set[str]:
    """Return the paths of all keys in JSON; the elements of a list share one path."""
    if isinstance(value, dict):
        return {f"{path}.{key}" for key in value}.union(*(keys(each, f"{path}.{key}") for key, each in value.items()))
    if isinstance(value, list):
        return set[str]().union(*(keys(each, f"{path}[]") for each in value))
    return set()


def differences(old: Any, new: Any) -> str:
    """Return the elements of two collections that only one has; empty where they are equal."""
    one, other = set(map(str, old)), set(map(str, new))
    return "; ".join(
        f"only in {name}: {', '.join(sorted(found))}"
        for name, found in (("OLD", one - other), ("NEW", other - one))
        if found
    )


def outputs(old: Path, new: Path) -> str:
    """Return how two outputs differ; empty where they are equal but for version, times and folders."""
    if hashlib.sha256(old.read_bytes()).digest() == hashlib.sha256(new.read_bytes()).digest():
        return ""
    with tifffile.TiffFile(old) as one, tifffile.TiffFile(new) as other:
        if len(one.pages) != len(other.pages):
            return f"{len(one.pages)} and {len(other.pages)} pages"
        for number, (first, second) in enumerate(zip(one.pages, other.pages, strict=True)):
            if not np.array_equal(first.asarray(), second.asarray()):
                return f"pixels of page {number}"
            texts = [VARYING.sub("", page.description) for page in (first, second)]
            if texts[0] != texts[1]:
                return f"description of page {number}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--slides", type=Path, nargs="+", default=[])
    parser.add_argument("--gone", nargs="*", default=[], help="settings that NEW removed on purpose")
    arguments = parser.parse_args()
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        old, new = (Checkout(root, folder / name) for root, name in ((arguments.old, "old"), (arguments.new, "new")))
        trees = [each.python(COMMANDS) for each in (old, new)]
        found["commands and options"] = differences(*(tree.items() for tree in trees))
        found["error codes"] = differences(*(each.python(CODES) for each in (old, new)))
        settings = [keys(each.cli("config")) for each in (old, new)]
        settings[0] = {key for key in settings[0] if not any(f".{name}" in key for name in arguments.gone)}
        found["settings"] = differences(*settings)
        if arguments.slides:
            slides = folder / "slides"
            slides.mkdir()
            copies = [Path(shutil.copy(slide, slides)) for slide in arguments.slides]
            ran = [each.cli("run", *copies, "--preset", "paper", codes=(0, 1, 2)) for each in (old, new)]
            found["JSON of run"] = differences(*map(keys, ran))
            listed = [each.cli("jobs")["jobs"] for each in (old, new)]
            found["JSON of jobs"] = differences(*map(keys, listed))
            found["JSON of job"] = differences(*(keys(each.cli("job", "1")) for each in (old, new)))
            ends = [
                {(job["relative"], job["state"], job["verdict"], job["error_code"]) for job in jobs} for jobs in listed
            ]
            found["states, verdicts and codes of jobs"] = differences(*ends)
            made = [{job["relative"]: job["output"] for job in jobs if job["output"]} for jobs in listed]
            for name in sorted(made[0].keys() & made[1].keys()):
                found[f"output of {name}"] = outputs(*(Path(each[name]) for each in made))
            upgraded = Checkout(arguments.new, folder / "upgraded")
            shutil.copytree(folder / "old" / ".wsi-denoise", upgraded.folder / ".wsi-denoise")
            upgraded.cli("db", "upgrade", codes=(0, 2))
            kept = upgraded.cli("jobs")["jobs"]
            rows = ([json.dumps(job, sort_keys=True) for job in jobs] for jobs in (listed[0], kept))
            found["jobs of an upgraded database"] = differences(*rows)
    for what, difference in found.items():
        print(f"{what}: {difference or 'equal'}")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
