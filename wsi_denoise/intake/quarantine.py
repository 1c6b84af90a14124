"""The quarantine folder: a note with the reason, and a link to the original, which is never moved or changed."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wsi_denoise.errors import OutputUnwritable, WsiDenoiseError
from wsi_denoise.intake.sniff import open_regular, shown
from wsi_denoise.system.files import atomic_file

NOTICE = "wsi-denoise is for research use only; derived images are not for diagnosis."

_LONGEST_NAME = 255  # bytes, of the file systems in use

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placed:
    """The files in the quarantine folder for one slide.

    Parameters
    ----------
    link : Path or None
        Link to the original; None where the file system has no links.
    """

    note: Path
    link: Path | None = None


class Quarantine:
    """Writes and removes the notes and links of quarantined slides.

    Parameters
    ----------
    folder : Path
        ``intake.quarantine``; made when first needed.
    check : callable
        Called before a file is written; raises OutputUnwritable where the folder is not the one it was.
    """

    def __init__(self, folder: Path, *, check: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        self._check = check

    def put(self, slide: Path, relative: Path, error: WsiDenoiseError, *, job_id: int, time: datetime) -> Placed:
        """Write the note, and link the original. Doing it again gives the same result.

        Parameters
        ----------
        slide, relative : Path
            The original, and its path from its inbox.
        error : WsiDenoiseError
            The reason.
        time : datetime
            With a time zone.

        Raises
        ------
        OutputUnwritable
            When the note cannot be written.
        """
        self._check()
        try:
            note, place = self._places(slide, relative, make=True)
            link = _link(place, slide)
            _write(note, _note(slide, error, job_id=job_id, time=time))
        except OSError as failure:
            raise OutputUnwritable(f"{shown(self.folder)} ({failure.strerror})") from failure
        return Placed(note, link)

    def has_note(self, slide: Path, relative: Path) -> bool:
        """Return whether the note of a slide exists."""
        try:
            note, _ = self._places(slide, relative, make=False)
        except OSError:
            return False
        return _is_note_of(note, slide)

    def release(self, slide: Path, relative: Path) -> bool:
        """Remove note and link of a slide that is queued again or was deleted.

        Returns
        -------
        bool
            Whether a note was removed.
        """
        try:
            note, place = self._places(slide, relative, make=False)
            if not _is_note_of(note, slide):
                return False
            if place.is_symlink() and os.readlink(place) == str(slide):  # noqa: PTH115 - a str, as it is compared
                place.unlink()
            note.unlink()
            self._remove_empty(note.parent)
        except FileNotFoundError:
            return False
        except OSError as failure:
            _log.warning("a quarantine note cannot be removed: %s", failure)
            return False
        return True

    def _places(self, slide: Path, relative: Path, *, make: bool) -> tuple[Path, Path]:
        """Return the paths of note and link. Neither belongs to another slide, or is reached through a link."""
        mark = hashlib.sha256(os.fsencode(slide)).hexdigest()[:12]
        own = _shortened(relative.name, mark, 4)
        if self._real_folder(relative.parent, make=make):
            folder = self.folder / relative.parent
            for name in (own, _shortened(f"{mark}-{own}", mark, 4)):
                note = folder / f"{name}.txt"
                if not os.path.lexists(note) or _is_note_of(note, slide):
                    return note, folder / name
        # A folder on the way is a link (to a quarantined DICOM folder of that name). Never write through it.
        name = _shortened(f"{mark}-{relative.name}", mark, 4)
        self._real_folder(Path(), make=make)
        return self.folder / f"{name}.txt", self.folder / name

    def _real_folder(self, relative: Path, *, make: bool) -> bool:
        if ".." in relative.parts or relative.is_absolute():
            return False
        folder = self.folder
        for part in ("", *relative.parts):
            folder /= part
            if folder != self.folder and folder.is_symlink():
                return False
            if make:
                try:
                    folder.mkdir(parents=folder == self.folder, exist_ok=True)
                except FileExistsError:
                    return False
            elif not folder.is_dir():
                return False
        return True

    def _remove_empty(self, folder: Path) -> None:
        with suppress(OSError):  # not empty
            while folder != self.folder:
                folder.rmdir()
                folder = folder.parent


def _link(place: Path, slide: Path) -> Path | None:
    if place.is_symlink():
        if os.readlink(place) == str(slide):  # noqa: PTH115 - a str, as it is compared
            return place
        return None
    try:
        place.symlink_to(slide)
    except OSError:
        return None  # the name is taken, or the file system has no links: the note names the original
    return place


def _write(note: Path, text: str) -> None:
    with atomic_file(note) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def _note(slide: Path, error: WsiDenoiseError, *, job_id: int, time: datetime) -> str:
    detail = f": {shown(error.detail)}" if error.detail else ""
    return "\n".join(
        (
            f"{error.happened}{detail}.",
            error.advice,
            "",
            f"{_ORIGINAL}{shown(slide)}",
            "The original is untouched, where it was.",
            f"code: {error.code}",
            f"job: {job_id} (wsi-denoise job {job_id}; wsi-denoise retry {job_id})",
            f"time: {time.astimezone(UTC).isoformat(timespec='seconds')}",
            "",
            "A later change of the file queues it again automatically.",
            NOTICE,
            "",
        )
    )


_ORIGINAL = "original: "


def _is_note_of(note: Path, slide: Path) -> bool:
    try:
        with open_regular(note) as file:
            lines = file.read(64 * 1024).decode("utf-8", "replace").splitlines()
    except OSError:
        return False
    return f"{_ORIGINAL}{shown(slide)}" in lines


def _shortened(name: str, mark: str, room: int) -> str:
    """Shorten and mark `name` if it would not leave `room` bytes of the longest file name."""
    raw = os.fsencode(name)
    longest = _LONGEST_NAME - room
    if len(raw) <= longest:
        return name
    tail = f"~{mark}".encode()
    return os.fsdecode(raw[: longest - len(tail)].decode("utf-8", "ignore").encode() + tail)
