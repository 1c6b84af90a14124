"""Estimate the disk space of a slide, reserve it, and pause the queue while a disk is full.

A slide starts only when its estimate fits beside the reservations of the slides that already run. If a disk fills up
anyway, the daemon pauses the queue with the reason. It resumes the queue when there is space again.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_denoise.errors import DiskFull, NoSuchJob, StoreError
from wsi_denoise.jobs.states import JobState
from wsi_denoise.settings import OutputSettings, Settings
from wsi_denoise.system import clocks, disk, process
from wsi_denoise.system.conditions import Conditions

if TYPE_CHECKING:
    from wsi_denoise.jobs.store import JobStore

_log = logging.getLogger(__name__)

GB = 1e9
_JPEG = ((75, 0.4), (90, 0.7), (95, 1.0), (100, 2.2))
_LOSSLESS = 2.6
_LEVELS = 1.34
_EVIDENCE = 0.25
"""Upper bounds in bytes per pixel of level 0, and the factor for all levels; see docs/evidence/compression.md."""

_FIRST_LOOK, _LAST_LOOK = 5.0, 300.0
"""Seconds between a pause and its first check. Each pause doubles them, up to a limit, until a slide is done."""

_WHOSE = "process"
"""JSON key, beside the devices, for the identity of the process that holds the reservation."""

_OTHERS_SECONDS = 24 * 3600.0
"""A reservation of another machine or container expires when its file has not changed for this time.

Whether its process still runs cannot be checked from here.
"""


@dataclass(frozen=True)
class Need:
    """Bytes to be written below a folder; `by_block` if they are written block by block."""

    folder: Path
    size: int
    by_block: bool = False


def estimate(width: int, height: int, output: OutputSettings) -> tuple[int, int]:
    """Return upper estimates of the bytes of a slide's spool and of its output.

    Parameters
    ----------
    width, height : int
        Pixels of level 0.
    """
    each = _LOSSLESS
    if output.compression == "jpeg":
        each = next(size for quality, size in _JPEG if output.quality <= quality)
    pixels = width * height
    return round(pixels * (each * 1.25 + _EVIDENCE)), round(pixels * each * _LEVELS)


class Promises:
    """Reserve disk space; the daemons of one machine share their reservations in a folder, one small file each.

    Parameters
    ----------
    folder : Path
        Created at the first reservation.
    kept : float
        Bytes that are left free on every disk.
    """

    def __init__(self, folder: Path, kept: float) -> None:
        self._folder, self._kept = folder, kept
        self._file = folder / f"{socket.gethostname()}-{os.getpid()}.json"
        self._needs: tuple[Need, ...] = ()
        self._share = 1.0

    def reserve(self, needs: Sequence[Need]) -> None:
        """Reserve the space of a slide for this process.

        Raises
        ------
        DiskFull
            When the space is missing; with the size, the folder and the free space.
        OutputUnwritable
            When a folder cannot be read, for example because its share is unreachable.
        """
        self._needs, self._share = tuple(needs), 1.0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                short = self.missing(needs)
                if short:
                    raise DiskFull(short)
                self._write()
        except OSError as error:
            disks = set()
            for need in needs:
                with disk.translate_write_errors(need.folder):
                    disks.add(_device(need.folder))
            if error.errno in disk.FULL and _device(self._folder) in disks:
                raise DiskFull(f"in {self._folder}") from error
            # Other daemons do not see this reservation. A disk that fills up is detected anyway.
            _log.warning("space cannot be reserved in %s: %s", self._folder, error.strerror)

    def missing(self, needs: Sequence[Need]) -> str:
        """Return a sentence about the missing space; empty when everything fits."""
        wanted: dict[int, int] = {}
        for need in needs:
            device = _device(need.folder)
            wanted[device] = wanted.get(device, 0) + need.size
        promised = self._promised()
        for need in needs:
            device = _device(need.folder)
            others, room = promised.get(device, 0), disk.free(need.folder)
            if room - others - self._kept < wanted[device]:
                text = f"about {_size(wanted[device])} are needed in {need.folder}, {_size(room)} are free"
                text += f", of which {_size(others)} are promised to other slides" if others else ""
                return text + (f" ({_size(self._kept)} are left free)" if self._kept else "")
        return ""

    def keep(self, share: float) -> None:
        """Record the share of the blocks that is still to be done: the reservation shrinks with it."""
        if abs(share - self._share) < 0.05 and share:
            return
        self._share = share
        with suppress(OSError):
            self._write()

    def left(self) -> list[Need]:
        """Return the estimates of what is still to be written."""
        return [Need(need.folder, round(need.size * self._share)) if need.by_block else need for need in self._needs]

    def release(self) -> None:
        """Release the reservation."""
        self._needs = ()
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock out other daemons while a reservation is checked and written."""
        import fcntl  # noqa: PLC0415

        handle = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with suppress(OSError):  # a share without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _write(self) -> None:
        sizes: dict[str, int] = {}
        for need in self.left():
            device = str(_device(need.folder))
            sizes[device] = sizes.get(device, 0) + need.size
        part = self._file.with_suffix(".part")
        # Last, because earlier versions stop reading at this key.
        part.write_text(json.dumps({**sizes, _WHOSE: process.identity()}), "ascii")
        part.replace(self._file)

    def _promised(self) -> dict[int, int]:
        """Return the bytes reserved by other live processes, by device."""
        total: dict[int, int] = {}
        for file in self._folder.glob("*.json") if self._folder.is_dir() else ():
            if file == self._file:
                continue
            host, _, pid = file.stem.rpartition("-")
            with suppress(OSError, ValueError):
                sizes, whose = _read(file)
                if _is_over(file, host, int(pid), whose):
                    file.unlink(missing_ok=True)
                    continue
                for device, size in sizes.items():
                    total[int(device)] = total.get(int(device), 0) + int(size)
        return total


class Hold:
    """Pause the queue while a disk is full.

    Parameters
    ----------
    origin : str
        Origin of the pause, such as ``daemon:3``.
    on_pause : callable
        Called once when a pause begins.
    """

    def __init__(
        self, store: JobStore, origin: str, promises: Promises, *, on_pause: Callable[[], object] = lambda: None
    ) -> None:
        self._store, self._origin, self._promises, self._on_pause = store, origin, promises, on_pause
        self._needs: list[Need] | None = None
        self._job_id = 0
        self._written = False
        self._reason = ""
        self._next = 0.0
        self._wait = _FIRST_LOOK
        self._conditions = Conditions(_log)

    def begin(self, job_id: int, error: DiskFull, needs: Sequence[Need]) -> None:
        """Pause the queue until `needs` fit, or until this job no longer waits."""
        self._job_id, self._needs, self._reason, self._written = job_id, list(needs), str(error), False
        self._next = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, _LAST_LOOK)
        _log.warning("the queue is paused: %s", error)
        self._say()
        self._on_pause()

    def finished(self) -> None:
        """Reset the wait after a slide is finished: the space was enough."""
        self._wait = _FIRST_LOOK

    def look(self) -> bool:
        """Return whether the queue stays paused; end the pause when its reason has passed.

        Raises
        ------
        StoreError
            When the database refuses to end the pause. The next call tries again.
        """
        if self._needs is None:
            return False
        if time.monotonic() < self._next:
            return True
        self._next = time.monotonic() + _FIRST_LOOK
        try:
            short = self._promises.missing(self._needs)
        except OSError as error:
            short = error.strerror or str(error)
        if short and self._is_wanted():
            self._say()
            return True
        if self._written:
            self._store.lift(self._origin)  # this pause only: quiet hours and other daemons have their own
        why = f"job {self._job_id} is not waited for any more" if short else "there is room again"
        _log.info("the queue resumes: %s", why)
        self._needs = None
        return False

    def _is_wanted(self) -> bool:
        """Return whether the job still waits and the user has not lifted the pause."""
        try:
            waits = self._store.job(self._job_id).state in {JobState.QUEUED, JobState.RUNNING}
        except NoSuchJob:
            return False
        return waits and not (self._written and self._origin not in self._store.pauses())

    def _say(self) -> None:
        """Store the pause. If the database is on the full disk and refuses it, the next check tries again."""
        if self._written:
            return
        try:
            self._store.pause(self._origin, self._reason)
            self._written = True
        except StoreError as error:
            self._conditions.failed("storing the pause", error)
        else:
            self._conditions.works("storing the pause")


def promises(settings: Settings) -> Promises:
    """Return the reservations of all daemons of this user on this machine, or of this state folder."""
    return Promises(shared_folder() or settings.jobs.state / "space", settings.limits.free_gigabytes * GB)


def shared_folder() -> Path | None:
    """Return the folder of this machine's reservations; None where it cannot be created safely.

    It lies in the folder for temporary files. After a reboot or a cleanup, the next reservation creates it again.
    """
    folder = Path(tempfile.gettempdir()) / f"wsi-denoise-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    # Another user may have created this folder, or a link of its name, to redirect what is written here.
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder / "space" if ours else None


def needs(settings: Settings, width: int, height: int, share: float = 1.0) -> list[Need]:
    """Return the space that a slide needs when `share` of its blocks are still to be done."""
    spool, output = estimate(width, height, settings.output)
    return [Need(settings.jobs.state, round(spool * share), by_block=True), Need(settings.output.folder, output)]


def _device(folder: Path) -> int:
    """Return the number of the device that a folder is on, or will be on."""
    return os.stat(disk.existing_folder(folder)).st_dev  # noqa: PTH116 - of the link's target


def _read(file: Path) -> tuple[dict[str, int], dict[str, Any]]:
    """Return a file's reservations by device, and the identity of its process, which earlier versions omit."""
    try:
        given = json.loads(file.read_text("ascii"))
        return given, given.pop(_WHOSE, {})
    except ValueError:
        return {}, {}


def _is_over(file: Path, host: str, pid: int, whose: dict[str, Any]) -> bool:
    """Return whether the process of a reservation has ended; another process may have its number now."""
    here, silent = process.identity(), clocks.age(file.stat().st_mtime, time.time())
    if host != socket.gethostname():
        return silent > _OTHERS_SECONDS
    if whose.get("boot", here["boot"]) != here["boot"]:
        return True
    if whose.get("namespace", here["namespace"]) != here["namespace"]:
        return silent > _OTHERS_SECONDS  # a container has its own process numbers
    return process.is_gone(pid, whose)


def _size(size: float) -> str:
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / 1e6:.1f} MB"
