"""Find DICOM files by name or first bytes, and the files of one series. Imports no image libraries."""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from pathlib import Path

from wsi_denoise.intake.sniff import DicomHeader, cached_format, dicom_header, image_format

DICOM_SUFFIXES = (".dcm", ".dicom")


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM: by its suffix, or by its first bytes if its name has no suffix.

    Archives name instances ``00000001``, ``IM_0001`` or by their UID, so a numeric last part does not count as suffix.
    Any other suffix decides: ``1.dcm.part`` is an unfinished copy.

    Raises
    ------
    OSError
        When a file without suffix cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in DICOM_SUFFIXES:
        return True
    if not _may_be_dicom(path.name):
        return False
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and cached_format(str(path), status.st_size, status.st_mtime_ns) == "DICOM"


def dicom_files(folder: Path) -> list[Path]:
    """Return the regular DICOM files in a folder.

    A file without suffix that this program may not read is omitted, since its type is unknown.
    """
    found = []
    with os.scandir(folder) as listing:
        for entry in listing:
            if entry.name.startswith(".") or not entry.is_file(follow_symlinks=False):
                continue
            try:
                if is_dicom(folder / entry.name):
                    found.append(folder / entry.name)
            except (FileNotFoundError, PermissionError):
                continue
    return found


def dicom_links(folder: Path) -> list[Path]:
    """Return the links in a folder that a DICOM library would follow."""
    with os.scandir(folder) as listing:
        links = [folder / entry.name for entry in listing if entry.is_symlink()]
    return [link for link in links if link.suffix.lower() in DICOM_SUFFIXES or _leads_to_dicom(link)]


def same_series(path: Path) -> list[Path]:
    """Return a DICOM file and the others of its series in its folder."""
    series = series_of(path)
    if series is None:
        return [path]
    same = [path]
    for other in dicom_files(path.parent):
        try:
            if other != path and series_of(other) == series:
                same.append(other)
        except OSError:
            continue  # its series is unknown, so it is a candidate of its own
    return same


def series_of(path: Path) -> str | None:
    """Return the series of a DICOM file, or None. The header is read once per content."""
    return header(path).series


def header(path: Path) -> DicomHeader:
    """Return values of the header of a DICOM file. The header is read once per content."""
    status = path.lstat()
    return _cached_header(str(path), status.st_size, status.st_mtime_ns)


def _may_be_dicom(name: str) -> bool:
    """Return whether the name of a file leaves the decision to its first bytes."""
    suffix = Path(name).suffix
    return name.upper() != "DICOMDIR" and (not suffix or suffix[1:].isdecimal())


def _leads_to_dicom(link: Path) -> bool:
    if not _may_be_dicom(link.name):
        return False
    target = Path(os.path.realpath(link))
    try:
        return stat.S_ISREG(target.lstat().st_mode) and image_format(target) == "DICOM"
    except OSError:
        return False


# One opening per content, as for the format.
@lru_cache(maxsize=65536)
def _cached_header(path: str, _size: int, _mtime_ns: int) -> DicomHeader:
    return dicom_header(Path(path))
