"""Distinction of a removed file from a file on a share that is not mounted.

A place is the mount of a folder and, if inode numbers are stable, the folder's inode. It is stored when a file is
found. A missing file counts as removed only if its place is the stored one. An unmounted share leaves an empty folder,
which looks like a share whose files were deleted.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(rb"\\([0-7]{3})")
_UNSTABLE = re.compile(r"fuse.*|vfat|exfat|msdos|cifs|smb.*|9p")
"""File systems whose inode numbers may change with every mount. For these only the mount is compared."""


@dataclass(frozen=True)
class Place:
    """The place of a folder.

    Parameters
    ----------
    host : str
        Name of the machine, because mounts of different machines are not comparable.
    mount : str
        Path of the mount point.
    inode : int or None
        Inode of the root folder (the inbox); None if inode numbers are not stable, or without a root.
    """

    host: str
    mount: str
    inode: int | None

    def __str__(self) -> str:
        return f"{self.host}:{'' if self.inode is None else self.inode}:{self.mount}"

    @classmethod
    def parse(cls, text: str | None) -> Place | None:
        """Return the place for a text of :meth:`__str__`, or None."""
        host, _, rest = (text or "").partition(":")
        inode, _, mount = rest.partition(":")
        return cls(host, mount, int(inode) if inode else None) if mount else None


@dataclass(frozen=True)
class _Root:
    """The present state of an inbox."""

    folder: Path
    real: str
    inode: int
    empty: bool
    fault: str = ""


MARKER = ".wsi-denoise-folder"
"""Name of the file that identifies a folder for outputs or quarantine notes."""

_IDENTIFIER = re.compile(r"^id: ([0-9a-f]{32})$", re.MULTILINE)


def is_on_same_mount(folder: Path, recorded: str, *, any_host: bool = False) -> bool:
    """Return whether a folder, which need not exist, is on the stored mount; True if they are not comparable.

    Parameters
    ----------
    recorded : str
        Result of :meth:`Places.of` for a file in the folder.
    any_host : bool
        `recorded` is from this machine even if the host name differs: that of a container changes.
    """
    known, here = Place.parse(recorded), Place.parse(Places().of(folder / MARKER))
    if known is None or here is None or (known.host != here.host and not any_host):
        return True
    return known.mount == here.mount


def read_marker(folder: Path) -> str | None:
    """Return the identifier in a folder's marker file; None if the folder, the file or the identifier is missing.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    try:
        text = (folder / MARKER).read_text("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    found = _IDENTIFIER.search(text)
    return found[1] if found else None


class Places:
    """The mounts and root folders of this machine at the time of construction.

    Parameters
    ----------
    roots : iterable of Path
        Inboxes, or other folders in the settings.
    """

    def __init__(self, roots: Iterable[Path] = ()) -> None:
        self._folders: Sequence[Path] = tuple(roots)
        self._roots: dict[Path, _Root] = {}
        # Listing a folder mounts it if automount is in use, so the mounts are read afterwards.
        for folder in self._folders:
            self._roots[folder] = _read_root(folder)
        self._mounts = _read_mounts()
        self.host = socket.gethostname()

    def of(self, path: Path) -> str | None:
        """Return the place of an existing file as text, or None if it cannot be determined."""
        root = self._root_of(path)
        if root is not None and root.fault:
            return None
        mount, kind = self._mount_of(path, root)
        lasting = root is not None and not _UNSTABLE.fullmatch(kind)
        return str(Place(self.host, mount, root.inode if root is not None and lasting else None))

    def doubt(self, path: Path, recorded: str | None) -> str:
        """Return the reason why a missing file may still exist; empty if its place is available.

        Parameters
        ----------
        recorded : str or None
            Result of :meth:`of` when the file existed; None if an older version did not store it.
        """
        root = self._root_of(path)
        if root is not None and root.fault:
            return f"{root.folder} ({root.fault})"
        known = Place.parse(recorded)
        if known is None or known.host != self.host:
            empty = root is not None and root.empty
            return f"{root.folder} is empty, as the mount point of an unmounted share is" if root and empty else ""
        mount, _ = self._mount_of(path, root)
        if mount != known.mount:
            other = len(mount) > len(known.mount)
            return f"{mount} was not mounted when the slide was seen" if other else f"{known.mount} is not mounted"
        if root is not None and known.inode not in {None, root.inode}:
            return f"{root.folder} is not the folder that the slide was seen in"
        return ""

    def _root_of(self, path: Path) -> _Root | None:
        found = [folder for folder in self._folders if path != folder and path.is_relative_to(folder)]
        return self._roots[max(found, key=lambda folder: len(folder.parts))] if found else None

    def _mount_of(self, path: Path, root: _Root | None) -> tuple[str, str]:
        """Return mount point and type of the file system of a path, which need not exist."""
        # Links below an inbox are not followed, and resolving each path needs a round trip on a share.
        inside = None if root is None else os.path.join(root.real, path.parent.relative_to(root.folder))  # noqa: PTH118
        real = os.path.realpath(path.parent) if inside is None else os.path.normpath(inside)
        if not self._mounts:
            return _mount_above(real), ""
        while real not in self._mounts:
            real = os.path.dirname(real)  # noqa: PTH120 - a str, compared with others
        return real, self._mounts[real]


def _read_root(folder: Path) -> _Root:
    try:
        with os.scandir(folder) as entries:
            empty = next(entries, None) is None
        return _Root(folder, os.path.realpath(folder), folder.stat().st_ino, empty)
    except OSError as error:
        return _Root(folder, "", 0, empty=True, fault=error.strerror or str(error))


def _read_mounts() -> dict[str, str]:
    """Return mount points and their file system types; empty if the system has no such list.

    ``os.path.ismount`` misses a bind mount within one file system, and is true for an automount point without a mount.
    """
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return {}
    mounts = {}
    for line in lines:
        left, _, right = line.partition(b" - ")
        fields, kind = left.split(), right.split()
        if len(fields) > 4 and kind and kind[0] != b"autofs":
            point = _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), fields[4])
            mounts[os.fsdecode(point)] = kind[0].decode("ascii")
    return mounts if "/" in mounts else {}


def _mount_above(real: str) -> str:
    while not os.path.ismount(real) and real != "/":
        real = os.path.dirname(real)  # noqa: PTH120 - a str
    return real
