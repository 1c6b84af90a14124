"""Finished blocks of a job, from the names in its spool."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dashboard.tiles.render import extent, spool_folders
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import Job
from wsi_denoise.slide.geometry import BLOCK, Lattice

_NAME = re.compile(r"(\d{5})-(\d{5})\.block")


def blocks(state: Path, job: Job) -> dict[str, Any]:
    """Return a job's blocks as plain values.

    Parameters
    ----------
    state : Path
        The state folder.

    Returns
    -------
    dict
        ``rows`` and ``columns`` of blocks, their side ``block`` in pixels, ``done`` of ``total``, ``state``, and
        ``finished``: [row, column] of each finished block that this machine can see. When the spool is elsewhere,
        ``finished`` is empty, and ``done`` is correct anyway.

    Raises
    ------
    NotFound
        Before the slide has been opened.
    """
    _, _, width, height = extent(job)
    rows, columns = Lattice(width, height).block_shape
    result: dict[str, Any] = {"rows": rows, "columns": columns, "block": BLOCK, "width": width, "height": height}
    result |= {"state": job.state.value, "done": job.blocks_done, "total": job.blocks_total or rows * columns}
    if job.state is JobState.DONE:
        # The spool is gone with the slide published.
        every = [[row, column] for row in range(rows) for column in range(columns)]
        return result | {"finished": every, "done": rows * columns}
    return result | {"finished": sorted(_finished(state, job, rows, columns))}


def _finished(state: Path, job: Job, rows: int, columns: int) -> list[list[int]]:
    for folder in spool_folders(state, job):
        try:
            names = [_NAME.fullmatch(file.name) for file in folder.iterdir()]
        except OSError:
            continue
        places = [[int(name[1]), int(name[2])] for name in names if name]
        return [place for place in places if place[0] < rows and place[1] < columns]
    return []
