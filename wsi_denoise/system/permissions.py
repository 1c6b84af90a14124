"""Mode and owner of what is written, where the settings ask for other than what the system gives."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from wsi_denoise.errors import OutputUnwritable
from wsi_denoise.settings import OutputSettings


def make_folder(folder: Path, output: OutputSettings, *, below: Path | None = None) -> None:
    """Make a folder and those above it that are missing, each with mode and owner as set.

    Parameters
    ----------
    folder : Path
    output : OutputSettings
    below : Path, optional
        A folder above it that is not made: without it the share is away.

    Raises
    ------
    OSError
        When it cannot be made.
    OutputUnwritable
        When it cannot be given the owner.
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
    """Give a new file or folder its mode and owner; without settings it keeps those that umask and user made.

    Parameters
    ----------
    path : Path
    output : OutputSettings
        Of it ``mode`` and ``owner``.
    folder : bool
        Who may read may enter too.

    Raises
    ------
    OutputUnwritable
        When this user may not do that, or there is no such user or group.
    """
    try:
        if output.owner:
            user, _, group = output.owner.partition(":")
            os.chown(path, _number(user, "user"), _number(group, "group"))
        if output.mode:
            mode = int(output.mode, 8)
            path.chmod(mode | (mode & 0o444) >> 2 if folder else mode)
    except LookupError as error:
        raise OutputUnwritable(f"output.owner is {output.owner} ({error})") from error
    except OSError as error:
        raise OutputUnwritable(f"{path.parent}: mode or owner cannot be set ({error.strerror})") from error


def _number(text: str, what: str) -> int:
    """Return the number of a user or group, -1 to leave it; a container may know numbers only."""
    if not text or text.isdigit():
        return int(text or -1)
    import grp  # noqa: PLC0415
    import pwd  # noqa: PLC0415

    return pwd.getpwnam(text).pw_uid if what == "user" else grp.getgrnam(text).gr_gid
