"""Write an output under a partial name, and give it its final name."""

from __future__ import annotations

import errno
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsi_denoise.errors import OutputExists
from wsi_denoise.settings import OutputSettings
from wsi_denoise.slide import provenance
from wsi_denoise.system import disk, files, permissions

_log = logging.getLogger(__name__)

_OF_THE_FILE = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}
)
"""Errors of a single file on a readable share: it is missing, not permitted, a folder, or a socket."""


@dataclass(frozen=True)
class Output:
    """The place of a slide's output.

    Parameters
    ----------
    name : callable
        Returns the final path for the facts of the plan.
    check : callable or None
        Raises OutputUnwritable when the output folder is not the same as before. With None, a missing folder is
        created.
    holder : str
        Eight hexadecimal digits that identify the running process in the names of partial files.
    """

    settings: OutputSettings
    name: Callable[[Mapping[str, Any]], Path]
    check: Callable[[], None] | None = None
    holder: str = field(default_factory=lambda: secrets.token_hex(4))

    def path(self, facts: Mapping[str, Any]) -> Path:
        """Return the final path.

        Raises
        ------
        OutputUnwritable
            When the output folder cannot be read.
        """
        with disk.translate_write_errors(self.settings.folder):
            return self.name(facts)

    def make_folder(self, folder: Path) -> None:
        """Create the folder of an output, below the checked output folder."""
        if self.check is not None:
            self.check()
        with disk.translate_write_errors(folder):
            permissions.make_folder(folder, self.settings, below=None if self.check is None else self.settings.folder)

    @contextmanager
    def draft(self, facts: Mapping[str, Any], work: str) -> Iterator[Draft]:
        """Name a partial file, and remove it at the end.

        Parameters
        ----------
        work : str
            Name of the spool folder.
        """
        target = self.path(facts)
        self.make_folder(target.parent)
        part = partial(target, work, self.holder)
        try:
            yield Draft(self, facts, part, target)
        finally:
            with suppress(OSError):  # the folder may be the cause of the error that is being raised
                part.unlink(missing_ok=True)


@dataclass(frozen=True)
class Draft:
    """An output that is being written.

    Parameters
    ----------
    part, target : Path
        Partial and planned name.
    """

    output: Output
    facts: Mapping[str, Any]
    part: Path
    target: Path

    def check_folder(self) -> None:
        """Check the output folder again: hours later, the share may have been unmounted."""
        self.output.make_folder(self.part.parent)

    def publish(self) -> Path:
        """Publish under the planned name, or under a new one if that is taken by now; return the path."""
        self.check_folder()
        permissions.give(self.part, self.output.settings)
        target = self.target
        while True:
            try:
                publish(self.part, target, self.facts, overwrite=self.output.settings.overwrite)
            except OutputExists:
                other = self.output.path(self.facts)
                if other == target:
                    raise
                _log.info("another slide took the output's name: this one gets another")
                target = other
            else:
                return target


def partial(target: Path, work: str, holder: str) -> Path:
    """Return a partial name that no other attempt has, and remove files of earlier attempts of this holder.

    Another daemon may still write its own partial file, if its machine slept while this one took the job. So may a
    worker of an abandoned attempt. Recovery decides about files of other holders.
    """
    with suppress(OSError):
        for left in target.parent.glob(f".{work}.{holder}-*.part"):
            left.unlink(missing_ok=True)
    return target.with_name(f".{work}.{holder}-{secrets.token_hex(4)}.part")


def publish(part: Path, target: Path, facts: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Give a verified file its final name.

    An existing file is replaced only if it has the same content, model and settings: a daemon may die between
    publishing a file and recording it. With `overwrite`, any output of this program from the same content is replaced.

    Raises
    ------
    OutputExists
        When another file has the name.
    DiskFull, OutputUnwritable
    """
    with disk.translate_write_errors(target.parent):
        try:
            files.rename_new(part, target)
        except FileExistsError:
            if not replaceable(target, facts, overwrite=overwrite):
                raise OutputExists(target.name) from None
            part.replace(target)
    with suppress(OSError):  # the file has its name, and some file systems cannot flush a folder
        files.sync(target.parent)


def replaceable(target: Path, facts: Mapping[str, Any], *, overwrite: bool = False) -> bool:
    """Return whether an existing file may be replaced by this work; see :func:`publish`.

    Raises
    ------
    OSError
        When that cannot be determined, because the share is unreachable.
    """
    found = provenance.of_file(target)
    if found is None:
        _check_readable(target)
        return False
    return provenance.same_work(found, facts) or (overwrite and provenance.same_content(found, facts))


def _check_readable(file: Path) -> None:
    """Raise OSError when a file cannot be read, unless the cause is the file itself."""
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        if error.errno not in _OF_THE_FILE:
            raise
