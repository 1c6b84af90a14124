"""Which blocks workers run at this moment."""

import contextlib
import os
from pathlib import Path

from wsi_denoise.slide.geometry import BlockIndex

MARKS = Path(__file__).parent / "marks"


def environment() -> dict[str, str]:
    """Return the variable with which processes mark the blocks that they run; see :mod:`support.marks`."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(MARKS), os.environ.get("PYTHONPATH", "")]))}


def mark(spool: Path, block: BlockIndex) -> Path:
    """Return the file that exists while a worker runs a block."""
    return spool / f"{block}.started"


def started(folder: Path) -> dict[Path, int]:
    """Return the marks below a folder with the processes that made them, dead ones too."""
    found = {}
    for file in folder.rglob("*.started"):
        with contextlib.suppress(FileNotFoundError, ValueError):
            found[file] = int(file.read_text("ascii"))
    return found
