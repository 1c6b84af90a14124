"""Find the slides that a path on the command line stands for. Imports no image libraries."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_denoise.errors import NoSlideInFolder, NoSuchPath, SourceUnavailable, WsiDenoiseError
from wsi_denoise.intake.dicom_files import is_dicom
from wsi_denoise.intake.files import Candidate, Kind, slides_under
from wsi_denoise.intake.slide_files import is_zarr
from wsi_denoise.intake.sniff import shown


@dataclass(frozen=True)
class Found:
    """A slide to run, or the error of a path."""

    path: Path
    error: WsiDenoiseError | None = None


def slides_of(
    path: Path, ignore: Sequence[str], exclude: Collection[Path], *, ignore_system: bool = True
) -> Iterator[Found]:
    """Find the slides that an argument stands for, in the order of a scan.

    A file is one slide. So is the folder of an NGFF image, and a folder with one DICOM series and no other slide. Any
    other folder stands for the slides below it, as an inbox does.

    Parameters
    ----------
    path : Path
        Absolute.
    ignore : sequence of str
        Patterns of names in a folder that are ignored.
    exclude : collection of Path
        Folders below `path` that are not entered, such as the output folder.
    ignore_system : bool
        Whether names of file systems and transfer tools are ignored too.
    """
    # exists() is False for a broken link, which has its own error, and raises for a name that is too long.
    if not os.path.lexists(path):
        yield Found(path, NoSuchPath(shown(path)))
        return
    try:
        if path.is_symlink() or not path.is_dir() or is_zarr(path):
            yield Found(path)
            return
        found = list(slides_under(path, ignore, exclude=exclude, ignore_system=ignore_system))
    except SourceUnavailable as error:
        yield Found(path, error)
        return
    except OSError as error:
        yield Found(path, SourceUnavailable(f"{shown(path)} ({error.strerror or error})"))
        return
    slides = [each for each in found if each.kind in {Kind.SLIDE, Kind.UNREADABLE}]
    if not slides:
        yield Found(path, NoSlideInFolder(f"{shown(path)} {_content(path, found)}"))
    elif len(slides) == 1 and _is_series(path, slides[0]):
        yield Found(path)
    else:
        yield from (Found(each.path, each.problem) for each in slides)


def _is_series(folder: Path, candidate: Candidate) -> bool:
    """Return whether the only slide in a folder is a DICOM series directly in it."""
    try:
        return candidate.problem is None and candidate.path.parent == folder and is_dicom(candidate.path)
    except OSError:
        return False


def _content(folder: Path, found: Sequence[Candidate]) -> str:
    """Return the content of a folder without slides, as the end of a sentence about the folder."""
    outputs = sum(each.kind is Kind.OUTPUT for each in found)
    if found and outputs == len(found):
        return f"holds outputs of wsi-denoise only ({outputs})"
    others = [each for each in found if each.kind is Kind.OTHER]
    if others:
        first = others[0]
        return (
            f"holds {len(others)} other file{'s' * (len(others) > 1)}, such as {shown(first.relative)}: {first.reason}"
        )
    with os.scandir(folder) as listing:
        empty = next(listing, None) is None
    return "is empty" if empty else "holds only names that intake.ignore excludes, or empty folders"
