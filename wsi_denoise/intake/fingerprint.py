"""Compute the fingerprint: the SHA-256 of a slide's content, which identifies the slide under any name.

One file: the SHA-256 of its bytes, as ``sha256sum`` prints it. Several files: the SHA-256 of a list with one entry per
file, sorted by name. An entry is the file's SHA-256 in hexadecimal, two spaces, its name and a zero byte (as
``sha256sum -z`` writes it). Names are relative to the slide's folder. The stem that a MIRAX slide and its folder share
is written ``*``, so that a renamed slide is the same slide.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from wsi_denoise.errors import NoPermission, NotARegularFile, SlideChanged, SlideVanished, SourceUnavailable
from wsi_denoise.intake.slide_files import Snapshot, slide_files, snapshot, strange_part
from wsi_denoise.intake.sniff import open_regular, shown

CHUNK = 8 << 20
"""Bytes read at a time."""


class Stopped(Exception):
    """Reading was stopped because `keep_going` returned False."""


def fingerprint(path: Path, *, expected: Snapshot | None = None, keep_going: Callable[[], bool] = lambda: True) -> str:
    """Read a whole slide and return its fingerprint.

    Parameters
    ----------
    path : Path
        The slide: a file, a key file, or a folder.
    expected : Snapshot, optional
        Snapshot that the slide must have before and after. Without it, the slide only must not change in between.
    keep_going : callable
        Called after each piece of 8 MB; returns False to stop.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    SlideChanged
        When its size, modification time or list of files is not as expected, or changes while it is read.
    SlideVanished, SourceUnavailable, NoPermission, NotARegularFile
        When it cannot be read.
    Stopped
        When `keep_going` returned False.
    """
    files = slide_files(path)
    strange = strange_part(path)
    if strange is not None:
        raise NotARegularFile(f"{shown(strange)}, a part of the slide")
    before = snapshot(files)
    if expected is not None and before != expected:
        raise SlideChanged(shown(path))
    sums = [(_name(path, file), _sha256(file, keep_going)) for file in files]
    if slide_files(path) != files or snapshot(files) != before:
        raise SlideChanged(shown(path))
    if len(sums) == 1:
        return sums[0][1]
    return hashlib.sha256(b"".join(b"%s  %s\0" % (sha.encode(), name) for name, sha in sorted(sums))).hexdigest()


def _name(path: Path, file: Path) -> bytes:
    if path.suffix.lower() != ".mrxs":
        folder = path if path.is_dir() else path.parent
        return os.fsencode(file.relative_to(folder))
    if file == path:
        return b"*.mrxs"
    return b"*/" + os.fsencode(file.relative_to(path.with_suffix("")))


def _sha256(file: Path, keep_going: Callable[[], bool]) -> str:
    digest = hashlib.sha256()
    try:
        with open_regular(file) as opened:
            while piece := opened.read(CHUNK):
                if not keep_going():
                    raise Stopped
                digest.update(piece)
    except FileNotFoundError as error:
        raise SlideVanished(shown(file)) from error
    except PermissionError as error:
        raise NoPermission(shown(file)) from error
    except OSError as error:
        if not file.is_file() or file.is_symlink():
            raise NotARegularFile(shown(file)) from error
        raise SourceUnavailable(f"{shown(file)} ({error.strerror})") from error
    return digest.hexdigest()
