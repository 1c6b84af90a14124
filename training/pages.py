"""Storage of results: JSON tables beside the programs, pictures and pages in ``docs``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "training" / "tables"
DOCS = ROOT / "docs" / "evidence"
IMAGES = DOCS / "images"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a table."""
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content


def write_image(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write a picture as PNG or lossless WebP, which is smaller, by its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(image).save(path, lossless=True, optimize=True)


def grid(
    lines: Sequence[Sequence[npt.NDArray[np.uint8]]], *, enlarge: int = 1, border: int = 4
) -> npt.NDArray[np.uint8]:
    """Arrange images of one size in rows with white between them, enlarged `enlarge` times."""

    def framed(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        larger = image.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
        return np.pad(larger, ((0, border), (0, border), (0, 0)), constant_values=255)

    whole = np.concatenate([np.concatenate([framed(image) for image in line], axis=1) for line in lines])
    return np.ascontiguousarray(whole[:-border, :-border])


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in (heads, *rows)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])


def crossed(corner: str, cells: Mapping[tuple[str, str], str]) -> str:
    """Return a table in Markdown with a line per first key and a column per second key, in their order."""
    lines, columns = (list(dict.fromkeys(key[axis] for key in cells)) for axis in (0, 1))
    rows = [[line, *(cells.get((line, column), "") for column in columns)] for line in lines]
    return table([corner, *columns], rows)


def filled(text: str, parts: Mapping[str, str]) -> str:
    """Insert generated parts into a page, each between ``<!-- made: NAME -->`` and ``<!-- end -->``.

    Raises
    ------
    KeyError
        For a mark without a part.
    """

    def part(found: re.Match[str]) -> str:
        return f"<!-- made: {found[1]} -->\n\n{parts[found[1]].strip()}\n\n<!-- end -->"

    return re.sub(r"<!-- made: (.*?) -->\n.*?<!-- end -->", part, text, flags=re.DOTALL)
