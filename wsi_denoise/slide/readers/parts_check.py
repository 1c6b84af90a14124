"""Check that all files of a slide of several files exist, before a library opens it.

A copy writes one file after another, and the first may open without the others. OpenSlide opens the data files of a
MIRAX slide only when it reads one of their tiles.
"""

from __future__ import annotations

from pathlib import Path

from wsi_denoise.errors import IncompleteSlide

#: Suffixes of files that need other files.
KEY_SUFFIXES = (".mrxs", ".vms", ".vmu")

_INDEX_LIMIT = 4 << 20


def check_mirax(path: Path) -> None:
    """Check that the folder of a MIRAX slide exists, with every file that its Slidedat.ini lists.

    Parameters
    ----------
    path : Path
        The ``.mrxs`` file.

    Raises
    ------
    IncompleteSlide
    """
    folder = path.with_suffix("")
    if not folder.is_dir():
        raise IncompleteSlide(f"the folder {folder.name} that belongs to {path.name} is not there")
    table = folder / "Slidedat.ini"
    if not table.is_file():
        raise IncompleteSlide(f"{folder.name} holds no Slidedat.ini")
    with table.open("rb") as file:
        text = file.read(_INDEX_LIMIT).decode("utf-8-sig", "replace")
    missing = [name for name in _named(text) if not (folder / name).is_file()]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise IncompleteSlide(f"{folder.name} lacks {missing[0]}{others}")


def _named(text: str) -> list[str]:
    """Return the names of the index and data files in ``Slidedat.ini``, without those outside its folder."""
    names, section = set(), ""
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        if key.startswith("["):
            section = key.upper()
        index = section == "[HIERARCHICAL]" and key.upper() == "INDEXFILE"
        data = section == "[DATAFILE]" and key.upper().startswith("FILE_") and key[5:].isdigit()
        if (index or data) and value not in {"", ".", ".."} and not set("/\\\0") & set(value):
            names.add(value)
    return sorted(names)
