"""Scan every inbox once: find the slides, and the places that cannot be read."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wsi_denoise.errors import SlideVanished, SourceError, SourceUnavailable
from wsi_denoise.intake.files import Candidate, Kind, slides_under
from wsi_denoise.intake.slide_files import slide_files, snapshot
from wsi_denoise.intake.sniff import shown
from wsi_denoise.settings import Settings

_log = logging.getLogger(__name__)


@dataclass
class Scan:
    """Result of one scan of all inboxes.

    Parameters
    ----------
    slides : dict of str to Candidate
        By path.
    readable : list of Path
        Inboxes that could be listed.
    unreadable : list of Path
        Folders and files below them that could not be read.
    others : list of Candidate
        Entries that are not slides (``other``, ``output``, ``unreadable``), when first seen.
    unavailable : list of SourceUnavailable
        Inboxes that could not be listed.
    """

    slides: dict[str, Candidate] = field(default_factory=dict)
    readable: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)
    others: list[Candidate] = field(default_factory=list)
    unavailable: list[SourceUnavailable] = field(default_factory=list)

    def covers(self, path: Path) -> bool:
        """Return whether the scan would have found `path` if it existed."""
        return any(path.is_relative_to(inbox) for inbox in self.readable) and not any(
            path.is_relative_to(place) for place in self.unreadable
        )


class Scanner:
    """Scan the inboxes of the settings, and remember the entries that were reported."""

    def __init__(self, settings: Settings) -> None:
        self._intake = settings.intake
        self._exclude = [
            *(settings.intake.quarantine, settings.output.folder, settings.jobs.state),
            *settings.intake.inbox,
        ]
        self._told: set[tuple[str, str]] = set()
        self._gone: set[Path] = set()
        self._last: dict[str, Candidate] = {}

    def scan(self) -> Scan:
        """List every inbox. An inbox that cannot be listed is in `unavailable`; its slides do not count as gone."""
        scan = Scan()
        told = set()
        for inbox in self._intake.inbox:
            try:
                found = [self._as_before(candidate) for candidate in self._inbox(inbox)]
            except SourceUnavailable as error:
                scan.unavailable.append(error)
                if inbox not in self._gone:
                    _log.warning("%s", error)
                self._gone.add(inbox)
                told |= {mark for mark in self._told if Path(mark[0]).is_relative_to(inbox)}
                continue
            if inbox in self._gone:
                _log.info("the inbox %s can be read again", shown(inbox))
            self._gone.discard(inbox)
            scan.readable.append(inbox)
            for candidate in found:
                if candidate.kind is Kind.SLIDE:
                    scan.slides[str(candidate.path)] = candidate
                else:
                    told.add(self._tell(candidate, scan))
        self._told, self._last = told, scan.slides
        return scan

    def _as_before(self, candidate: Candidate) -> Candidate:
        """Return the candidate of the last scan if nothing has changed.

        A thousand new objects every few seconds, freed between lasting ones, cost more memory than the lasting ones.
        """
        before = self._last.get(str(candidate.path))
        return before if before == candidate else candidate

    def _inbox(self, inbox: Path) -> Iterator[Candidate]:
        real = os.path.realpath(inbox)
        exclude = [folder for folder in self._exclude if os.path.realpath(folder) != real]
        return slides_under(inbox, self._intake.ignore, exclude=exclude, ignore_system=self._intake.ignore_system)

    def _tell(self, candidate: Candidate, scan: Scan) -> tuple[str, str]:
        if candidate.kind is Kind.UNREADABLE:
            scan.unreadable.append(candidate.path)
        reason = candidate.reason or str(candidate.problem)
        # Without size and time: a file that grows, such as the log of a scanner, is logged once.
        mark = (str(candidate.path), reason)
        if mark not in self._told:
            scan.others.append(candidate)
            _log.info("not a slide: %s: %s", shown(candidate.relative), reason)
        return mark


def is_gone(path: Path) -> bool:
    """Return whether nothing of a slide is left; False if that cannot be determined."""
    try:
        slide_files(path)
    except SlideVanished:
        return True
    except SourceError:
        return False
    return False


def is_as_seen(candidate: Candidate) -> bool:
    """Return whether a slide is unchanged since the scan; False if that cannot be determined."""
    try:
        if candidate.problem is not None:
            # It may be a link or a pipe, which has no further files.
            status = candidate.path.lstat()
            if (status.st_size, status.st_mtime_ns) == (candidate.snapshot.size_bytes, candidate.snapshot.mtime_ns):
                return True
        return snapshot(slide_files(candidate.path)) == candidate.snapshot
    except (OSError, SourceError):
        return False


def lies_in(path: Path, inboxes: Iterable[Path]) -> bool:
    """Return whether a file is below one of the inboxes, after links and ``..`` in its path are resolved."""
    real = os.path.realpath(path.parent)
    return any(Path(real).is_relative_to(os.path.realpath(inbox)) for inbox in inboxes)


def unreadable_file(path: Path) -> Path | None:
    """Return a file of a slide that this program may not read, or None.

    Raises
    ------
    SlideVanished, SourceUnavailable
        As :func:`~wsi_denoise.intake.slide_files.slide_files`.
    """
    return next((file for file in slide_files(path) if not os.access(file, os.R_OK, effective_ids=True)), None)
