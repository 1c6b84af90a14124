"""Permissions of written files and folders, from the settings."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from wsi_denoise.errors import OutputUnwritable
from wsi_denoise.settings import OutputSettings


def make_folder(folder: Path, output: OutputSettings, *, below: Path | None = None) -> None:
    """Make a folder and its missing parents, each with the mode of the settings.

    Parameters
    ----------
    below : Path, optional
        A parent that must exist: if it is missing, its share is not mounted.

    Raises
    ------
    OSError
        If a folder cannot be made.
    OutputUnwritable
        If its mode cannot be set.
    """
    missing = []
    while not folder.is_dir():
        if folder == below:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        give(each, output, folder=True)


def give(path: Path, output: OutputSettings, *, folder: bool = False) -> None:
    """Set the mode of a new file or folder, if the settings state one.

    Parameters
    ----------
    folder : bool
        Add search permission wherever the mode has read permission.

    Raises
    ------
    OutputUnwritable
        If this user may not do that.
    """
    if not output.mode:
        return
    mode = int(output.mode, 8)
    try:
        path.chmod(mode | (mode & 0o444) >> 2 if folder else mode)
    except OSError as error:
        raise OutputUnwritable(f"{path.parent}: the mode cannot be set ({error.strerror})") from error
