"""The quarantine folder: a note with the reason, and a link to the original, which stays where it is.

Only with ``intake.move`` the original itself is moved there: never over another file, never when it is no longer what
was found at fault, and removed from the inbox only after its copy has been compared.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wsi_denoise.errors import OutputExists, OutputUnwritable, SlideChanged, SourceError, WsiDenoiseError
from wsi_denoise.intake.slide_files import Snapshot, companion_folders, has_parts, slide_files, snapshot, strange_part
from wsi_denoise.intake.sniff import open_regular, shown
from wsi_denoise.system import clocks
from wsi_denoise.system.files import atomic_file

NOTICE = "wsi-denoise is for research use only; derived images are not for diagnosis."

_LONGEST_NAME = 255  # bytes, of the file systems in use
_PARTS_UNKNOWN = {".vsi"}
"""Suffixes of slides with files beside them that nothing here knows: such a one cannot be moved whole."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placed:
    """What lies in the quarantine folder for one slide.

    Parameters
    ----------
    note : Path
    link : Path, optional
        Link to the original; None where it was moved, or where the file system has no links.
    moved : Path, optional
        Where the original is now, if it was moved.
    """

    note: Path
    link: Path | None = None
    moved: Path | None = None


class Quarantine:
    """Puts slides into the quarantine folder, and takes them out.

    Parameters
    ----------
    folder : Path
        ``intake.quarantine``; made when first needed.
    move : bool
        ``intake.move``.
    check : callable
        Called before something is put into the folder; raises OutputUnwritable where it is not the folder that it was.
    """

    def __init__(self, folder: Path, *, move: bool = False, check: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        self._move, self._check = move, check

    def put(
        self,
        slide: Path,
        relative: Path,
        error: WsiDenoiseError,
        *,
        job_id: int,
        time: datetime,
        stays: bool = False,
        expected: Snapshot | None = None,
    ) -> Placed:
        """Write the note, and link or move the original. Doing it again gives the same result.

        Parameters
        ----------
        slide, relative : Path
            The original, and its path from its inbox.
        error : WsiDenoiseError
            The reason.
        job_id : int
        time : datetime
            With a time zone.
        stays : bool
            Not to be moved, whatever ``intake.move`` says.
        expected : Snapshot, optional
            What was found at fault: a slide that no longer looks so is not moved.

        Raises
        ------
        OutputUnwritable
            When the note cannot be written. What fails beyond that is said in the note.
        """
        self._check()
        try:
            note, place = self._places(slide, relative, make=True)
            move = self._move and not stays
            if move and not os.path.lexists(slide) and _is_note_of(note, slide):
                return Placed(note)  # moved before, perhaps by another daemon: its note says where to
            moved, remark = self._moved(slide, place, expected) if move else (None, "")
            link = None if moved else _link(place, slide)
            _write(note, _note(slide, error, job_id=job_id, time=time, moved=moved, remark=remark))
        except OSError as failure:
            raise OutputUnwritable(f"{shown(self.folder)} ({failure.strerror})") from failure
        return Placed(note, link, moved)

    def has_note(self, slide: Path, relative: Path) -> bool:
        """Tell whether the note of a slide is there."""
        try:
            note, _ = self._places(slide, relative, make=False)
        except OSError:
            return False
        return _is_note_of(note, slide)

    def release(self, slide: Path, relative: Path) -> bool:
        """Remove note and link of a slide that is queued again or gone; a moved original stays.

        Returns
        -------
        bool
            Whether there was a note.
        """
        try:
            note, place = self._places(slide, relative, make=False)
            if not _is_note_of(note, slide):
                return False
            if place.is_symlink() and os.readlink(place) == str(slide):  # noqa: PTH115 - surrogates and all
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
        """Return the paths of note and link, neither of them taken by another slide nor reached through a link."""
        mark = hashlib.sha256(os.fsencode(slide)).hexdigest()[:12]
        own = _shortened(relative.name, mark, 4)
        if self._real_folder(relative.parent, make=make):
            folder = self.folder / relative.parent
            for name in (own, _shortened(f"{mark}-{own}", mark, 4)):
                note = folder / f"{name}.txt"
                if not os.path.lexists(note) or _is_note_of(note, slide):
                    return note, folder / name
        # A folder on the way is a link (to a quarantined DICOM folder of that name): never write through it.
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

    def _moved(self, slide: Path, place: Path, expected: Snapshot | None) -> tuple[Path | None, str]:
        """Move all files of a slide; return where it is now, or why it was not moved."""
        target = place
        if place.is_symlink():
            place.unlink()  # left by an earlier run without intake.move
        number = 1
        while os.path.lexists(target):
            number += 1
            target = place.with_name(f"{_shortened(place.stem, str(number), 16)}~{number}{place.suffix[:12]}")
        done: list[tuple[Path, Path]] = []
        try:
            pairs = list(_pairs(slide, target))
            if pairs and expected is not None and snapshot(source for source, _ in pairs) != expected:
                raise SlideChanged(shown(slide))
            for source, goal in pairs:
                _move_file(source, goal)
                done.append((source, goal))
        except (OSError, SourceError, OutputExists) as failure:
            for source, goal in reversed(done):
                with suppress(OSError, OutputExists):  # then it lies here, and the note's folder shows it
                    _move_file(goal, source)
            reason = (failure.strerror or str(failure)) if isinstance(failure, OSError) else str(failure)
            _log.warning("a quarantined original could not be moved and stays where it is: %s", reason)
            return None, f"It could not be moved here ({reason})."
        for folder in (*companion_folders(slide), *([slide] if slide.is_dir() else [])):
            _remove_empty_below(folder)
        return (target, "") if done else (None, "")


def may_be_growing(slide: Path, started: datetime | None, grace_seconds: float) -> bool:
    """Tell whether more files of a slide that was already processed may still arrive: then it must not be moved.

    Parameters
    ----------
    slide : Path
    started : datetime, optional
        When its processing began, which was after it had settled; None for a slide that intake found at fault, after
        its grace.
    grace_seconds : float
        ``intake.grace_seconds``.
    """
    if started is None or not has_parts(slide):
        return False
    return clocks.silence(started, datetime.now(UTC)).total_seconds() < grace_seconds


def _pairs(slide: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """Yield (source, goal) per file; the key file last, so that an interrupted move can be finished."""
    if slide.is_symlink() or not (slide.is_file() or slide.is_dir()):
        return  # a link, a pipe or a device is not moved: there is no slide in it
    if slide.suffix.lower() in _PARTS_UNKNOWN or strange_part(slide) is not None:
        return  # nor is a slide of which something would be left behind
    for file in sorted(slide_files(slide), key=lambda file: file == slide):
        if slide.is_dir():
            yield file, target / file.relative_to(slide)
        elif file == slide:
            yield file, target
        elif slide.suffix.lower() == ".mrxs":
            yield file, target.with_suffix("") / file.relative_to(slide.with_suffix(""))
        else:
            yield file, target.parent / file.relative_to(slide.parent)


def _move_file(source: Path, goal: Path) -> None:
    if not os.access(source.parent, os.W_OK):
        # Known before gigabytes are copied in vain: an inbox may be mounted read-only.
        raise OSError(errno.EACCES, "the inbox may not be changed")
    before = _identity(source)
    goal.parent.mkdir(parents=True, exist_ok=True)
    try:
        # A rename would replace what is there; a hard link never does.
        os.link(source, goal, follow_symlinks=False)
    except FileExistsError as error:
        raise OutputExists(shown(goal)) from error
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK}:
            raise
        _copy_file(source, goal)
    try:
        _remove(source, before)
    except (OSError, SlideChanged):
        goal.unlink()
        raise


def _remove(file: Path, expected: tuple[int, ...]) -> None:
    # Copying takes minutes, in which another file can be put at this path: that one was not copied.
    if _identity(file) != expected:
        raise SlideChanged(shown(file))
    file.unlink()


def _identity(file: Path) -> tuple[int, ...]:
    status = file.lstat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _copy_file(source: Path, goal: Path) -> None:
    try:
        with open_regular(source) as reading, goal.open("xb") as writing:
            shutil.copyfileobj(reading, writing, 8 << 20)
            writing.flush()
            os.fsync(writing.fileno())
        shutil.copystat(source, goal, follow_symlinks=False)
        _compare(source, goal)
    except FileExistsError as error:
        raise OutputExists(shown(goal)) from error
    except OSError:
        goal.unlink(missing_ok=True)
        raise


def _compare(source: Path, goal: Path) -> None:
    with open_regular(source) as one, open_regular(goal) as other:
        if hashlib.file_digest(one, "sha256").digest() != hashlib.file_digest(other, "sha256").digest():
            raise OSError(errno.EIO, "the copy is not equal to the original")


def _remove_empty_below(folder: Path) -> None:
    """Remove the folders that moved files leave behind; whatever still holds something stays."""
    for here, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(here).rmdir()


def _link(place: Path, slide: Path) -> Path | None:
    if place.is_symlink():
        if os.readlink(place) == str(slide):  # noqa: PTH115 - a str, as it is compared
            return place
        return None
    try:
        place.symlink_to(slide)
    except OSError:
        return None  # there is something, or the file system has no links: the note names the original
    return place


def _write(note: Path, text: str) -> None:
    with atomic_file(note) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def _note(slide: Path, error: WsiDenoiseError, *, job_id: int, time: datetime, moved: Path | None, remark: str) -> str:
    detail = f": {shown(error.detail)}" if error.detail else ""
    place = "moved to " + shown(moved) if moved else "untouched, where it was. " + remark
    return "\n".join(
        (
            f"{error.happened}{detail}.",
            error.advice,
            "",
            f"{_ORIGINAL}{shown(slide)}",
            f"The original is {place}".rstrip(),
            f"code: {error.code}",
            f"job: {job_id} (wsi-denoise job {job_id}; wsi-denoise retry {job_id})",
            f"time: {time.astimezone(UTC).isoformat(timespec='seconds')}",
            "",
            "A later change of the file queues it again by itself.",
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
    """Return `name`, cut and marked where it would not leave `room` bytes of the longest file name."""
    raw = os.fsencode(name)
    longest = _LONGEST_NAME - room
    if len(raw) <= longest:
        return name
    tail = f"~{mark}".encode()
    return os.fsdecode(raw[: longest - len(tail)].decode("utf-8", "ignore").encode() + tail)
