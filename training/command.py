"""Options that several command-line programs have in common."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def shared_folder() -> Path:
    """Return the folder of ``data`` and ``reference``: ``WSI_DENOISE_SHARED``, or ``../shared``."""
    return Path(os.environ.get("WSI_DENOISE_SHARED", "../shared"))


def parser(name: str, about: str | None, *common: str) -> argparse.ArgumentParser:
    """Return a parser for ``python -m NAME``.

    Parameters
    ----------
    about : str
        The docstring of the program.
    common : str
        Names of options in the list below.
    """
    known: dict[str, dict[str, Any]] = {
        "shared": {"type": Path, "default": shared_folder(), "help": "folder with data/ and reference/"},
        "threads": {"type": int, "default": 0, "help": "threads of torch; 0 leaves it to torch"},
        "preset": {"action": "append", "default": [], "help": "a shipped preset; may be repeated"},
        "run": {"type": Path, "action": "append", "default": [], "help": "folder of a training run; may be repeated"},
        "seeds": {"type": int, "default": 3, "help": "draws of noise per image"},
        "count": {"type": int, "help": "only the first images of each source"},
        "out": {"type": Path, "help": "JSON to write"},
    }
    options = argparse.ArgumentParser(prog=f"python -m {name}", description=about)
    for option in common:
        options.add_argument(f"--{option}", **known[option])
    return options


def parsed(options: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments, or those of the process, and set the threads of torch."""
    given = options.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    return given
