"""Disk space: what a slide will need, what others have been promised, and whether it is there.

A slide starts only when what it will write fits beside what was promised to the slides that run already. When a disk is
full all the same, the queue is paused with the reason, and resumed when there is room again.
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
"""Bytes per pixel of level 0, from above: see docs/evidence/compression.md for what was measured."""

_FIRST_LOOK, _LAST_LOOK = 5.0, 300.0
"""Seconds until a full disk is looked at again; doubles each time that the room was not enough after all."""

_WHOSE = "process"
"""What a promise says of the process it was made to, beside the devices."""

_OTHERS_SECONDS = 24 * 3600.0
"""A promise to a process of another machine or container, of which nobody here knows whether it lives, is forgotten
after so long."""


@dataclass(frozen=True)
class Need:
    """Bytes that will be written below a folder; `by_block` if that happens block by block."""

    folder: Path
    size: int
    by_block: bool = False


def estimate(width: int, height: int, output: OutputSettings) -> tuple[int, int]:
    """Return how many bytes a slide's spool and its output take, rather too many than too few.

    Parameters
    ----------
    width, height : int
        Pixels of level 0.
    output : OutputSettings
    """
    each = _LOSSLESS
    if output.compression == "jpeg":
        each = next(size for quality, size in _JPEG if output.quality <= quality)
    pixels = width * height
    return round(pixels * (each * 1.25 + _EVIDENCE)), round(pixels * each * _LEVELS)


class Promises:
    """What the daemons of one machine still have to write, one small file for each.

    Parameters
    ----------
    folder : Path
        Made when first needed.
    kept : float
        Bytes that are left free on every disk.
    """

    def __init__(self, folder: Path, kept: float) -> None:
        self._folder, self._kept = folder, kept
        self._file = folder / f"{socket.gethostname()}-{os.getpid()}.json"
        self._needs: tuple[Need, ...] = ()
        self._share = 1.0

    def reserve(self, needs: Sequence[Need]) -> None:
        """Promise room for a slide to this process.

        Raises
        ------
        DiskFull
            When it is not there: how much is needed, where, and how much is free.
        OutputUnwritable
            When a folder cannot be looked at: its share is out.
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
            # Without the file nobody else knows; a disk that gets full is noticed all the same.
            _log.warning("space cannot be reserved in %s: %s", self._folder, error.strerror)

    def missing(self, needs: Sequence[Need]) -> str:
        """Return what is needed and not there, in words; empty when all fits."""
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
        """Say which share of the blocks is still to be done: what the others needed is used by now."""
        if abs(share - self._share) < 0.05 and share:
            return
        self._share = share
        with suppress(OSError):
            self._write()

    def left(self) -> list[Need]:
        """Return what is still to be written."""
        return [Need(need.folder, round(need.size * self._share)) if need.by_block else need for need in self._needs]

    def release(self) -> None:
        """Give the room back."""
        self._needs = ()
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the other daemons from reserving the same room."""
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
        # Last, as a program from before there was this reads up to it.
        part.write_text(json.dumps({**sizes, _WHOSE: process.identity()}), "ascii")
        part.replace(self._file)

    def _promised(self) -> dict[int, int]:
        """Return the bytes promised to others that live, by device."""
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
    """The pause of the queue while a disk is full, from the job that met it until there is room.

    Parameters
    ----------
    store : JobStore
    origin : str
        ``daemon:3``.
    promises : Promises
    on_pause : callable
        Told once when a pause begins.
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
        """Pause the queue until `needs` fit, or nobody wants this job any more."""
        self._job_id, self._needs, self._reason, self._written = job_id, list(needs), str(error), False
        self._next = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, _LAST_LOOK)
        _log.warning("the queue is paused: %s", error)
        self._say()
        self._on_pause()

    def finished(self) -> None:
        """Note that a slide was finished: the room was enough."""
        self._wait = _FIRST_LOOK

    def look(self) -> bool:
        """Tell whether the queue is held, and lift that when there is room.

        Raises
        ------
        StoreError
            When the pause cannot be lifted in the database; the next look tries again.
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
            self._store.lift(self._origin)  # quiet hours, and what other daemons wait for, are not ours to end
        why = f"job {self._job_id} is not waited for any more" if short else "there is room again"
        _log.info("the queue goes on: %s", why)
        self._needs = None
        return False

    def _is_wanted(self) -> bool:
        """Tell whether the job still waits, and no person has lifted the pause."""
        try:
            waits = self._store.job(self._job_id).state in {JobState.QUEUED, JobState.RUNNING}
        except NoSuchJob:
            return False
        return waits and not (self._written and self._origin not in self._store.pauses())

    def _say(self) -> None:
        """Write the pause down; on a full disk the database may not take it, then it is tried again."""
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
    """Return the promises that this process shares with all daemons of its user on this machine."""
    return Promises(shared_folder() or settings.jobs.state / "space", settings.limits.free_gigabytes * GB)


def shared_folder() -> Path | None:
    """Return the folder of this machine's promises, whatever their working folders; None where nobody may have one.

    It is among the temporary files: what a reboot or a tidy system takes away has been promised again by then.
    """
    folder = Path(tempfile.gettempdir()) / f"wsi-denoise-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    # Anybody may make such a folder or link before us, and have us write elsewhere.
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder / "space" if ours else None


def needs(settings: Settings, width: int, height: int, share: float = 1.0) -> list[Need]:
    """Return what a slide needs, `share` of its blocks being still to do."""
    spool, output = estimate(width, height, settings.output)
    return [Need(settings.jobs.state, round(spool * share), by_block=True), Need(settings.output.folder, output)]


def _device(folder: Path) -> int:
    """Return which disk a folder is on, or will be."""
    return os.stat(disk.existing_folder(folder)).st_dev  # noqa: PTH116 - of the link's target


def _read(file: Path) -> tuple[dict[str, int], dict[str, Any]]:
    """Return what a file promises, by device, and to what process; an earlier version did not say the latter."""
    try:
        given = json.loads(file.read_text("ascii"))
        return given, given.pop(_WHOSE, {})
    except ValueError:
        return {}, {}


def _is_over(file: Path, host: str, pid: int, whose: dict[str, Any]) -> bool:
    """Tell whether the process of a promise is gone; its number may be another's by now."""
    here, silent = process.identity(), clocks.age(file.stat().st_mtime, time.time())
    if host != socket.gethostname():
        return silent > _OTHERS_SECONDS
    if whose.get("boot", here["boot"]) != here["boot"]:
        return True
    if whose.get("namespace", here["namespace"]) != here["namespace"]:
        return silent > _OTHERS_SECONDS  # a container: its numbers are not ours
    return process.is_gone(pid, whose)


def _size(size: float) -> str:
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / 1e6:.1f} MB"
