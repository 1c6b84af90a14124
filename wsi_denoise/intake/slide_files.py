"""Find the files that form one slide, with their size and modification time. Imports no image libraries."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from wsi_denoise.errors import SlideVanished, SourceError, SourceUnavailable
from wsi_denoise.intake.dicom_files import dicom_files, dicom_links, header, is_dicom, same_series
from wsi_denoise.intake.sniff import open_regular, shown

_KEY_FILE_LIMIT = 1 << 20
_KEYS = ("imagefile", "mapfile", "optimisationfile", "macroimage")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Size and modification time of a slide's files. Equal snapshots mean that nothing has changed.

    Parameters
    ----------
    size_bytes : int
        Sum over all files of the slide.
    mtime_ns : int
        Newest modification time of all files, in nanoseconds since 1970.
    """

    size_bytes: int
    mtime_ns: int


ZARR_METADATA = frozenset({".zattrs", ".zgroup", ".zarray", "zarr.json"})
"""Files that make a folder a Zarr group or array, and so perhaps an NGFF image under any name."""

NOTHING = Snapshot(0, 0)
"""Snapshot of an entry that cannot be read."""


def slide_files(path: Path) -> tuple[Path, ...]:
    """Return every regular file that a slide is made of, sorted.

    Parameters
    ----------
    path : Path
        As in :class:`Candidate`: a file, a key file, or the folder of a DICOM series or NGFF image.

    Raises
    ------
    SlideVanished
        When the file, or everything in the folder, is missing.
    SourceUnavailable
        When a folder of the slide cannot be listed.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            inside = _regular_below(path) if is_zarr(path) else dicom_files(path)
            if not inside:
                raise SlideVanished(shown(path))
            return tuple(sorted(inside))
        path.lstat()  # lexists() would report a share that does not answer as a missing file
        if is_dicom(path):
            return tuple(sorted(same_series(path)))
        return tuple(sorted([path, *companions(path)]))
    except FileNotFoundError as error:
        raise SlideVanished(shown(path)) from error
    except OSError as error:
        raise SourceUnavailable(f"{shown(path)} ({error.strerror})") from error


def snapshot(files: Iterable[Path]) -> Snapshot:
    """Return the total size and the newest modification time of files.

    Raises
    ------
    SlideVanished
        When one of them is missing.
    SourceUnavailable
        When the status of one cannot be read.
    """
    size, newest = 0, 0
    for file in files:
        try:
            status = file.lstat()
        except FileNotFoundError as error:
            raise SlideVanished(shown(file)) from error
        except OSError as error:
            raise SourceUnavailable(f"{shown(file)} ({error.strerror})") from error
        size, newest = size + status.st_size, max(newest, status.st_mtime_ns)
    return Snapshot(size, newest)


def is_zarr(path: Path) -> bool:
    """Return whether a folder is an NGFF image, by its name or its metadata files; False for anything else."""
    if not path.is_dir():
        return False
    return path.suffix.lower() == ".zarr" or any(os.path.lexists(path / name) for name in ZARR_METADATA)


def has_parts(path: Path) -> bool:
    """Return whether a slide is of a kind that consists of several files, even if they have not arrived."""
    return path.suffix.lower() in {".mrxs", ".vms", ".vmu"} or path.is_dir() or _is_dicom_now(path)


def _is_dicom_now(path: Path) -> bool:
    try:
        return is_dicom(path)
    except OSError:
        return False


def is_unchanged(path: Path, size_bytes: int, mtime_ns: int) -> bool:
    """Return whether a slide is unchanged since its content was fingerprinted.

    Raises
    ------
    SlideVanished, SourceUnavailable
    """
    return snapshot(slide_files(path)) == Snapshot(size_bytes, mtime_ns)


def below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield everything below a folder, without following links."""
    pending = [str(folder)]
    while pending:
        with os.scandir(pending.pop()) as listing:
            for entry in listing:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)


def _regular_below(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in below(folder) if entry.is_file(follow_symlinks=False)]


def companion_folders(path: Path) -> list[Path]:
    """Return the folders that belong to one slide with all they contain."""
    if path.suffix.lower() == ".mrxs":
        folder = path.with_suffix("")
        return [folder] if folder.is_dir() and not folder.is_symlink() else []
    return [path] if is_zarr(path) else []


def strange_part(path: Path) -> Path | None:
    """Return a part of a slide that is a link or not a regular file, or None.

    The target of a link is neither in the snapshot nor in the fingerprint, so its changes would not be detected.

    Raises
    ------
    SlideVanished, SourceUnavailable
        As :func:`slide_files`.
    """
    try:
        return next(_strange_parts(path), None)
    except FileNotFoundError as error:
        raise SlideVanished(shown(path)) from error
    except OSError as error:
        raise SourceUnavailable(f"{shown(path)} ({error.strerror})") from error


def _strange_parts(path: Path) -> Iterator[Path]:
    suffix = path.suffix.lower()
    if suffix == ".mrxs" and path.with_suffix("").is_symlink():
        yield path.with_suffix("")
    for folder in companion_folders(path):
        for entry in below(folder):
            if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                yield Path(entry.path)
    if suffix in {".vms", ".vmu"}:
        yield from (part for part in companions(path) if part.is_symlink())
    elif path.is_dir() and not is_zarr(path):
        yield from dicom_links(path)


def companions(path: Path) -> list[Path]:
    """Return the files that belong to a key file, without the key file. Files that have not arrived are omitted."""
    suffix = path.suffix.lower()
    if suffix == ".mrxs":
        return [file for folder in companion_folders(path) for file in _regular_below(folder)]
    if suffix in {".vms", ".vmu"}:
        status = path.lstat()
        names = _named_files(str(path), status.st_size, status.st_mtime_ns)
        return [path.parent / name for name in names if (path.parent / name).is_file()]
    return []


@lru_cache(maxsize=1024)
def _named_files(path: str, _size: int, _mtime_ns: int) -> tuple[str, ...]:
    """Return the file names in a Hamamatsu key file (``ImageFile(1,0)=name.jpg``), never one outside its folder."""
    with open_regular(Path(path)) as file:
        text = file.read(_KEY_FILE_LIMIT).decode("utf-8", "surrogateescape")
    names = set()
    for line in text.splitlines():
        key, _, value = line.partition("=")
        name = value.strip()
        if key.strip().lower().startswith(_KEYS) and name not in {"", ".", ".."} and not set("/\\\0") & set(name):
            names.add(name)
    return tuple(sorted(names - {Path(path).name}))


def lacks_original(path: Path) -> bool:
    """Return whether only reduced copies of a DICOM series are there, according to its files.

    A copy brings the instances one after another, and each of them opens as a slide. ImageType states whether a level
    was made by resampling. The result is False if one of the volume instances does not state that.
    """
    if is_zarr(path) or not (path.is_dir() or _is_dicom_now(path)):
        return False
    try:
        types = [header(file).image_type for file in slide_files(path)]
    except (OSError, SourceError):
        return False
    volumes = [words for words in types if words[2:3] == ("VOLUME",)]
    return bool(volumes) and all(words[3:4] == ("RESAMPLED",) for words in volumes)
