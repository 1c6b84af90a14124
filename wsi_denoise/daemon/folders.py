"""Check with a marker file and the job database that a folder is still the one that was written to before.

An unmounted share leaves an empty folder behind. Outputs written into it would disappear under the share at the next
mount. So a folder that the settings name is created once and gets a marker file. Later it is written to only while it
holds the marker. The default folder in the working folder gets no marker: it must stay on the same mount.
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from wsi_denoise.errors import OutputUnwritable
from wsi_denoise.jobs import places
from wsi_denoise.jobs.places import RecordedFolder
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.settings import Loaded, OutputSettings
from wsi_denoise.system import permissions
from wsi_denoise.system.conditions import Conditions
from wsi_denoise.system.disk import write_error
from wsi_denoise.system.files import atomic_path
from wsi_denoise.system.mounts import MARKER, Places, is_on_same_mount, read_marker

_log = logging.getLogger(__name__)

_LAST_OUTPUTS = 50
_TEXT = """\
id: {identifier}
database: {database}

wsi-denoise writes to this folder, and knows it by this file. Keep it: without it the folder counts as an unmounted
share, and jobs wait. If it was lost, run: wsi-denoise confirm
"""


class Missing(StrEnum):
    """What to do when a folder that was created before is missing."""

    WAIT = "wait"  # a daemon: the folder may be on a share that is not mounted
    MAKE_BESIDE = "make beside"  # the user is at the terminal: created again if its parent folder is the same
    MAKE = "make"  # the default folder, in the working folder


class MarkedFolder:
    """A folder for outputs or quarantine notes, with its marker file.

    Parameters
    ----------
    output : OutputSettings, optional
        Mode and owner of created folders and files.
    origin : str
        Origin of the recorded events.
    own_database : bool
        The settings name a file as the job database. A new database whose name is in the marker may hide an unmounted
        share of the old one.
    """

    def __init__(
        self,
        path: Path,
        store: JobStore,
        output: OutputSettings | None = None,
        *,
        missing: Missing = Missing.WAIT,
        origin: str = "daemon",
        own_database: bool = False,
    ) -> None:
        self.path = path
        self._store, self._output, self._missing, self._origin = store, output or OutputSettings(), missing, origin
        self._own_database = own_database

    def check(self) -> None:
        """Check that this is the same folder as before. At its first use, create it if needed, and mark it.

        Raises
        ------
        OutputUnwritable
            When it is another folder, or that cannot be determined.
        StoreError
        """
        try:
            recorded, found = places.folder(self._store, self.path), read_marker(self.path)
            if recorded is not None and found == recorded.marker:
                return
            fault = self._fault(recorded, found)
            if not fault and self._is_unmarked(recorded) and recorded is not None:
                permissions.make_folder(self.path, self._output)
                return
            if fault:
                command = f"wsi-denoise confirm {shlex.quote(str(self.path))}"
                raise OutputUnwritable(f"{self.path} {fault} (if it is the right folder, run {command})")
            self._mark(found)
        except OSError as error:
            raise write_error(error, self.path) from error

    def is_recorded(self) -> bool:
        """Return whether the job database knows the folder."""
        return places.folder(self._store, self.path) is not None

    def fault(self) -> str:
        """Return why the folder may not be written to now; empty when it may. Change nothing."""
        try:
            recorded, found = places.folder(self._store, self.path), read_marker(self.path)
            return "" if recorded is not None and found == recorded.marker else self._fault(recorded, found)
        except OSError as error:
            return f"cannot be read ({error.strerror})"

    def confirm(self) -> None:
        """Accept the folder in its present state and mark it; create it if needed.

        Raises
        ------
        OutputUnwritable, StoreError
        """
        try:
            self._mark(read_marker(self.path))
        except OSError as error:
            raise write_error(error, self.path) from error

    def _fault(self, recorded: RecordedFolder | None, found: str | None) -> str:
        """Return why a folder whose marker is not the recorded one may not be written to; empty where it may."""
        if self._is_unmarked(recorded):
            same = recorded is None or is_on_same_mount(
                self.path, recorded.place, any_host=self._store.file is not None
            )
            return "" if same else "was on another mount before: its share may not be mounted"
        if recorded is None:
            return self._fault_at_first_use(found)
        if found is not None:
            return "has the marker of another folder: another share may be mounted"
        if os.path.lexists(self.path):
            return f"has lost its marker file {MARKER}: its share may not be mounted"
        again = self._missing is Missing.MAKE or (self._missing is Missing.MAKE_BESIDE and self._is_beside(recorded))
        return "" if again else "is missing, although it was made before: its share may not be mounted"

    def _fault_at_first_use(self, found: str | None) -> str:
        if found is not None:
            if self._own_database and f"database: {self._store}" in _lines(self.path):
                return f"belongs to the job database {self._store}, which is new: its share may not be mounted"
            return ""
        known = places.outputs_below(self._store, self.path, limit=_LAST_OUTPUTS)
        if known and not any(os.path.lexists(output) for output in known) and _is_empty(self.path):
            return "holds none of the outputs that were written to it: its share may not be mounted"
        return ""

    def _is_unmarked(self, recorded: RecordedFolder | None) -> bool:
        return self._missing is Missing.MAKE and (recorded is None or not recorded.marker)

    def _is_beside(self, recorded: RecordedFolder) -> bool:
        here = Places([self.path.parent]).of(self.path)
        return here is not None and here == recorded.place

    def _mark(self, found: str | None) -> None:
        """Write the marker file unless it exists, and record the folder."""
        if self._missing is Missing.MAKE:
            permissions.make_folder(self.path, self._output)
            place = Places().of(self.path / MARKER) or ""
            places.record(self._store, RecordedFolder(self.path, "", place), self._origin, datetime.now(UTC))
            return
        if found is None:
            permissions.make_folder(self.path, self._output)
            found = self._write()
        place = Places([self.path.parent]).of(self.path) or ""
        places.record(self._store, RecordedFolder(self.path, found, place), self._origin, datetime.now(UTC))

    def _write(self) -> str:
        """Write the marker file atomically; return the identifier in it, which may be another daemon's."""
        identifier = secrets.token_hex(16)
        marker = self.path / MARKER
        with suppress(FileExistsError), atomic_path(marker, replace=False) as part:
            part.write_text(_TEXT.format(identifier=identifier, database=self._store), "utf-8")
            permissions.give(part, self._output)
        return read_marker(self.path) or self._replace_damaged(marker, identifier)

    def _replace_damaged(self, marker: Path, identifier: str) -> str:
        marker.write_text(_TEXT.format(identifier=identifier, database=self._store), "utf-8")
        return identifier


class FolderWatch:
    """Poll a folder; log when it disappears and returns, and then make the jobs due that waited for it.

    Parameters
    ----------
    origin : str
        Origin of the events.
    say : callable
        Called with a line for the terminal.
    on_return : callable
        Called when the folder is back.
    for_jobs : bool
        Jobs wait for this folder (``output_unwritable``). Otherwise it is checked only once it was written to.
    """

    def __init__(
        self,
        folder: MarkedFolder,
        store: JobStore,
        origin: str,
        *,
        say: Callable[[str], None],
        on_return: Callable[[], object] = lambda: None,
        for_jobs: bool = True,
    ) -> None:
        self._folder, self._store, self._origin, self._say, self._on_return = folder, store, origin, say, on_return
        self._for_jobs = for_jobs
        self._conditions = Conditions(_log)
        self._there: bool | None = None

    def tick(self) -> None:
        """Check the folder once.

        Raises
        ------
        StoreError
        """
        if not self._for_jobs and not self._folder.is_recorded():
            return
        try:
            self._folder.check()
        except OutputUnwritable as error:
            self._there = False
            if self._conditions.failed(f"the folder {self._folder.path}", error):
                self._say(str(error))
            return
        self._conditions.works(f"the folder {self._folder.path}")
        before, self._there = self._there, True
        if before is False:
            self._say(f"{self._folder.path} is there again")
            self._on_return()
        if not before and self._for_jobs:
            # Also at the first check: jobs of an earlier daemon may be due only much later.
            reason, waited = f"{self._folder.path} is there", {OutputUnwritable.code}
            places.resume(self._store, self._origin, reason, datetime.now(UTC), codes=waited)


class StateFolder:
    """Check that the state folder is still the one that the program started with.

    A user may remove it, or restore a backup over it.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._status = path, _status(path)

    def check(self) -> None:
        """Check that the path names the same folder; otherwise finished blocks would be lost or go to another one.

        Raises
        ------
        OutputUnwritable
        """
        now = _status(self._path)
        if self._status is None:
            self._status = now
        elif now is None or not os.path.samestat(now, self._status):
            what = "was removed" if now is None else "was replaced"
            detail = f"the state folder {self._path} {what} while the program uses it"
            raise OutputUnwritable(f"{detail}; put it back, or restart the program")


def output_folder(loaded: Loaded, store: JobStore, origin: str, *, at_terminal: bool = False) -> MarkedFolder:
    """Return the output folder of the settings."""
    default = loaded.origins["output.folder"] == "default"
    named_database = {"jobs.database", "jobs.state"} & {n for n, o in loaded.origins.items() if o != "default"}
    return MarkedFolder(
        loaded.settings.output.folder,
        store,
        loaded.settings.output,
        missing=Missing.MAKE if default else Missing.MAKE_BESIDE if at_terminal else Missing.WAIT,
        origin=origin,
        own_database=store.file is not None and bool(named_database),
    )


def quarantine_folder(loaded: Loaded, store: JobStore, origin: str) -> MarkedFolder:
    """Return the quarantine folder of the settings."""
    default = loaded.origins["intake.quarantine"] == "default"
    missing = Missing.MAKE if default else Missing.WAIT
    return MarkedFolder(loaded.settings.intake.quarantine, store, missing=missing, origin=origin)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _lines(folder: Path) -> list[str]:
    return (folder / MARKER).read_text("utf-8", "replace").splitlines()


def _is_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        return True
