"""Find the slides in a folder tree. Imports no image libraries.

Every entry below an inbox is classified. It is a slide (perhaps with a problem), part of a slide, an output of this
program, or ignored by a pattern of the settings. Any other entry is "other", with the reason why it is not a slide.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatch
from functools import lru_cache, partial
from pathlib import Path

from wsi_denoise.errors import (
    NotARegularFile,
    NotASlide,
    SlideVanished,
    SourceUnavailable,
    UnsupportedSlide,
    WsiDenoiseError,
)
from wsi_denoise.intake.dicom_files import is_dicom, series_of
from wsi_denoise.intake.ignored import is_system_name
from wsi_denoise.intake.slide_files import (
    NOTHING,
    ZARR_METADATA,
    Snapshot,
    companions,
    slide_files,
    snapshot,
    strange_part,
)
from wsi_denoise.intake.sniff import cached_format, is_own_output, is_zarr_array, shown

SUFFIXES = (
    *(".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm", ".qptiff"),
    *(".czi", ".jp2", ".j2k", ".png", ".jpg", ".jpeg", ".zarr", ".dicom"),
    *(".btf", ".tf2", ".tf8", ".ptif", ".ptiff", ".avs"),
)
"""Suffixes of files, and for ``.zarr`` of folders, that could be slides."""

UNSUPPORTED = {
    ".i2syntax": "Philips iSyntax",
    ".isyntax": "Philips iSyntax",
    ".kfb": "KFBIO",
    ".lif": "Leica LIF",
    ".nd2": "Nikon ND2",
    ".ozx": "NGFF in a ZIP file (unpack it into a folder)",
    ".sdpc": "Sqray SDPC",
    ".vsi": "Olympus VSI",
    ".zvi": "Zeiss ZVI",
}
"""Suffixes of slides that no reader here opens. They are reported at once instead of being ignored."""


class Kind(StrEnum):
    """Kind of an entry below an inbox."""

    SLIDE = "slide"  # could be a slide; a problem says why it cannot be processed
    OTHER = "other"  # not a slide, with the reason
    OUTPUT = "output"  # made by this program
    UNREADABLE = "unreadable"  # a folder or file that cannot be read: its content is unknown, not gone


@dataclass(frozen=True, slots=True)
class Candidate:
    """One entry below an inbox.

    Parameters
    ----------
    path : Path
        The file; for a DICOM series or NGFF, its folder; for MRXS, VMS and VMU, the key file.
    relative : Path
        `path`, from its inbox.
    snapshot : Snapshot
        Over all files of the slide; zeros where it is unknown.
    problem : WsiDenoiseError, optional
        Why it cannot be processed, if that is known without opening it.
    reason : str
        Why it is not a slide; empty for slides.
    """

    path: Path
    relative: Path
    kind: Kind
    snapshot: Snapshot = NOTHING
    problem: WsiDenoiseError | None = None
    reason: str = ""


def slides_under(
    inbox: Path, ignore: Sequence[str], *, exclude: Collection[Path] = (), ignore_system: bool = True
) -> Iterator[Candidate]:
    """Scan a folder tree, in a fixed order: the files of a folder by name, then its folders by name.

    Parameters
    ----------
    inbox : Path
        Folder to scan. It may itself be a link; links below it are not followed.
    ignore : sequence of str
        Patterns of file and folder names that are ignored.
    exclude : collection of Path
        Folders that are not entered: quarantine, outputs, state, another inbox.
    ignore_system : bool
        Ignore the names of NAS systems and transfer tools too; see :mod:`wsi_denoise.intake.ignored`.

    Raises
    ------
    SourceUnavailable
        When `inbox` itself cannot be listed. A subfolder that cannot be listed is a candidate of kind ``unreadable``.
    """
    excluded = frozenset(os.path.realpath(folder) for folder in exclude)
    root = os.path.realpath(inbox)
    pending = [inbox]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            problem = SourceUnavailable(f"{shown(folder)} ({error.strerror})")
            if folder == inbox:
                raise problem from error
            if error.errno != errno.ENOENT:
                yield Candidate(folder, folder.relative_to(inbox), Kind.UNREADABLE, problem=problem)
            continue
        wanted = [
            entry
            for entry in entries
            if not (ignore_system and is_system_name(entry.name))
            and not any(fnmatch(entry.name, pattern) for pattern in ignore)
        ]
        found = _Folder(inbox, root, folder, wanted)
        # Patterns such as ".*" may hide the metadata of a Zarr store, so all entries are checked.
        if folder != inbox and not ZARR_METADATA.isdisjoint(entry.name for entry in entries):
            yield from found.store()
            continue
        yield from found.candidates()
        pending += [path for path in reversed(found.folders) if not excluded or os.path.realpath(path) not in excluded]


class _Folder:
    """Sort the entries of one folder into slides, parts of slides, others, and folders still to be scanned."""

    def __init__(self, inbox: Path, root: str, folder: Path, entries: Sequence[os.DirEntry[str]]) -> None:
        self._inbox, self._root, self._folder, self._entries = inbox, root, folder, entries
        self._names = {entry.name for entry in entries}
        self._parts: set[str] = set()  # names in this folder that belong to a slide with another name
        self.folders: list[Path] = []

    def candidates(self) -> Iterator[Candidate]:
        if self._is_orphaned_mirax():
            yield self._other(self._folder, "the folder of a MIRAX slide whose .mrxs file is not there")
            return
        yield from self._find_parts()
        dicom: list[Path] = []
        for entry in self._entries:
            if entry.name in self._parts:
                continue
            path = self._folder / entry.name
            try:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode) and path.suffix.lower() != ".zarr":
                    self.folders.append(path)
                elif stat.S_ISREG(status.st_mode) and is_dicom(path):
                    dicom.append(path)
                else:
                    yield self._candidate(path, status)
            except (FileNotFoundError, SlideVanished):
                continue  # removed since the folder was listed
            except (OSError, SourceUnavailable) as error:
                yield self._unreadable(path, error)
        yield from self._series(dicom)

    def store(self) -> Iterator[Candidate]:
        """Yield the candidate of a Zarr store without the suffix ``.zarr``."""
        try:
            if is_zarr_array(self._folder):
                yield self._other(
                    self._folder, "a Zarr array; the NGFF metadata that would make it a slide is not there"
                )
            else:
                yield self._slide(self._folder)
        except (FileNotFoundError, SlideVanished):
            return  # removed since the folder was listed
        except (OSError, SourceUnavailable) as error:
            yield self._unreadable(self._folder, error)

    def _is_orphaned_mirax(self) -> bool:
        """Return whether this is the folder of a MIRAX slide without its key file, and without slides in it."""
        slides = any(name.lower().endswith(SUFFIXES) for name in self._names)
        return "Slidedat.ini" in self._names and self._folder != self._inbox and not slides

    def _find_parts(self) -> Iterator[Candidate]:
        """Collect the names that belong to key files, and yield key files that cannot be read."""
        for entry in self._entries:
            path = self._folder / entry.name
            try:
                suffix = path.suffix.lower()
                if suffix not in {".mrxs", ".vms", ".vmu"} or not entry.is_file(follow_symlinks=False):
                    continue
                if suffix == ".mrxs":
                    self._parts |= {path.stem} & self._names
                else:
                    self._parts |= {part.name for part in companions(path)}
            except FileNotFoundError:
                continue  # removed since the folder was listed
            except OSError as error:
                # The files that it names are unknown now. Their names start with its own, and they are not slides.
                self._parts |= {entry.name, *filter(partial(_is_called_after, path.stem), self._names)}
                yield self._unreadable(path, error)

    def _candidate(self, path: Path, status: os.stat_result) -> Candidate:
        if stat.S_ISLNK(status.st_mode):
            return self._link(path, status)
        if stat.S_ISDIR(status.st_mode):
            return self._slide(path)
        if stat.S_ISREG(status.st_mode):
            return self._regular(path, status)
        return self._problem(path, status, NotARegularFile(f"{shown(path)} is a {_what(status.st_mode)}"))

    def _regular(self, path: Path, status: os.stat_result) -> Candidate:
        suffix = path.suffix.lower()
        identity = str(path), status.st_size, status.st_mtime_ns
        if path.name.lower().endswith(".zarr.zip"):
            suffix = ".ozx"
        if suffix in UNSUPPORTED:
            return self._problem(path, status, UnsupportedSlide(f"{UNSUPPORTED[suffix]}, {shown(path.name)}"))
        if suffix in SUFFIXES:
            if _cached_own_output(*identity):
                relative = path.relative_to(self._inbox)
                return Candidate(path, relative, Kind.OUTPUT, _look(status), reason="made by wsi-denoise")
            return self._slide(path)
        format_ = None if path.name == "DICOMDIR" else cached_format(*identity)
        if format_ is None:
            return self._other(path, "not a slide by its name, nor an image by its first bytes", status)
        detail = f"{shown(path.name)} is {format_} by its first bytes, but not by its name; rename it"
        return self._problem(path, status, NotASlide(detail))

    def _link(self, path: Path, status: os.stat_result) -> Candidate:
        target = os.path.realpath(path)
        inside = os.path.commonpath([self._root, target]) == self._root
        if inside and os.path.exists(target):  # noqa: PTH110 - a str, as realpath returns it
            return self._other(path, "a link to something inside the inbox, which is checked there", status)
        where = "out of the inbox" if not inside else "to nothing"
        return self._problem(path, status, NotARegularFile(f"{shown(path)} is a link {where}"))

    def _slide(self, path: Path) -> Candidate:
        strange = strange_part(path)
        problem = None if strange is None else NotARegularFile(f"{shown(strange)}, a part of the slide")
        return Candidate(path, path.relative_to(self._inbox), Kind.SLIDE, snapshot(slide_files(path)), problem)

    def _series(self, files: Sequence[Path]) -> Iterator[Candidate]:
        """Yield one candidate per DICOM series.

        A folder with one series is that slide. If a folder holds several series, or is the inbox itself, each series is
        named by its first file.
        """
        series: dict[str, list[Path]] = {}
        for path in files:
            try:
                uid = series_of(path)
            except OSError:
                uid = None
            series.setdefault(uid or f"? {path}", []).append(path)
        known = [uid for uid in series if not uid.startswith("?")]
        if files and len(known) <= 1 and self._folder != self._inbox:
            yield self._one_series(self._folder)
        else:
            for group in series.values():
                yield self._one_series(group[0])

    def _one_series(self, path: Path) -> Candidate:
        try:
            return self._slide(path)
        except (SlideVanished, SourceUnavailable) as error:
            return self._unreadable(path, error)

    def _unreadable(self, path: Path, error: OSError | WsiDenoiseError) -> Candidate:
        if isinstance(error, OSError):
            error = SourceUnavailable(f"{shown(path)} ({error.strerror or error})")
        return Candidate(path, path.relative_to(self._inbox), Kind.UNREADABLE, problem=error)

    def _other(self, path: Path, reason: str, status: os.stat_result | None = None) -> Candidate:
        looks = _look(status) if status else Snapshot(0, 0)
        return Candidate(path, path.relative_to(self._inbox), Kind.OTHER, looks, reason=reason)

    def _problem(self, path: Path, status: os.stat_result, problem: WsiDenoiseError) -> Candidate:
        return Candidate(path, path.relative_to(self._inbox), Kind.SLIDE, _look(status), problem)


def _look(status: os.stat_result) -> Snapshot:
    return Snapshot(status.st_size, status.st_mtime_ns)


def _what(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "pipe"
    return "socket" if stat.S_ISSOCK(mode) else "device"


def _is_called_after(stem: str, name: str) -> bool:
    return name.startswith(stem) and name.lower().endswith((".jpg", ".jpeg"))


@lru_cache(maxsize=65536)
def _cached_own_output(path: str, _size: int, _mtime_ns: int) -> bool:
    try:
        return is_own_output(Path(path))
    except PermissionError:
        return False
