"""Report of one scan of the watcher."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wsi_denoise.errors import SourceUnavailable
from wsi_denoise.intake.files import Candidate
from wsi_denoise.intake.settling import Decision


@dataclass(frozen=True)
class Waiting:
    """A file that is not complete yet.

    Parameters
    ----------
    decision : Decision
        ``wait`` or ``grace``; its `until` is on the clock of :meth:`Watcher.look`.
    """

    job_id: int
    path: Path
    decision: Decision


@dataclass
class Report:
    """Findings and actions of one scan. Lists hold job numbers unless stated otherwise.

    Parameters
    ----------
    slides : int
        Slides below the inboxes, in any state.
    seen, queued, duplicates, quarantined, forgotten
        Jobs that entered this state in this scan.
    resumed : list of int
        Jobs that waited for a file that is back. They are due now.
    waiting : list of Waiting
        Files that are not complete yet, or do not open yet.
    others : list of Candidate
        Entries that are not slides, when first seen: ``other``, ``output`` and ``unreadable``.
    unavailable : list of SourceUnavailable
        Inboxes that cannot be read now.
    unfinished : bool
        More work is due: do not wait before the next scan.
    """

    slides: int = 0
    seen: list[int] = field(default_factory=list)
    queued: list[int] = field(default_factory=list)
    duplicates: list[int] = field(default_factory=list)
    quarantined: list[int] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    others: list[Candidate] = field(default_factory=list)
    unavailable: list[SourceUnavailable] = field(default_factory=list)
    unfinished: bool = False
