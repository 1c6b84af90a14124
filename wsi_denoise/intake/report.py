"""What one look of the watcher found and did."""

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
    job_id : int
    path : Path
    decision : Decision
        ``wait`` or ``grace``; its `until` is on the clock of :meth:`Watcher.look`.
    """

    job_id: int
    path: Path
    decision: Decision


@dataclass
class Report:
    """What one look found and did. Lists hold job numbers unless said otherwise.

    Parameters
    ----------
    slides : int
        Slides below the inboxes, whatever their state.
    seen, queued, duplicates, quarantined, forgotten
        Jobs that became so in this look.
    resumed : list of int
        Jobs that waited for their file, which is back: they are due now.
    waiting : list of Waiting
        Files that are not complete yet, or do not open yet.
    others : list of Candidate
        Entries that are no slides, the first time they are seen: ``other``, ``output`` and ``unreadable``.
    unavailable : list of SourceUnavailable
        Inboxes that cannot be read now.
    unfinished : bool
        There is more to do at once: do not wait before the next look.
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
