"""Facts of a job that the viewer needs, as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dashboard.responses import NotFound
from dashboard.tiles import difference, maps
from dashboard.tiles.render import MOST_GAIN, Tiles, extent
from wsi_denoise.errors import WsiDenoiseError
from wsi_denoise.jobs.values import Job, iso
from wsi_denoise.quality import verdict
from wsi_denoise.slide.geometry import PATCH, Lattice

_PROVENANCE = ("preset", "model_sha256", "numerics", "plan", "background", "settings")
LOW_ZOOM = {
    "after": "This slide has no smaller levels and was processed before overviews were kept: at low zoom, before is "
    "shown from the denoised file.",
    "thumbnail": "From far away, the original is shown from a thumbnail until the slide is done.",
    "none": "The original has no smaller levels: it is shown from close by only.",
}


def summary(tiles: Tiles, job: Job) -> dict[str, Any]:
    """Return a job's size, verdict, figures, maps and worst places.

    Returns
    -------
    dict
        The keys are in docs/programs/routes.md.

    Raises
    ------
    NotFound
        Before the slide has been opened.
    """
    left, top, width, height = extent(job)
    geometry = tiles.geometry(job)
    result: dict[str, Any] = {
        "job": job.id,
        "name": Path(job.relative).name,
        "state": job.state.value,
        "width": width,
        "height": height,
        "origin": [left, top],
        "mpp": list(job.mpp) if job.mpp else None,
        "tile": geometry.tile,
        "patch": PATCH,
        "map_shape": list(Lattice(width, height).patch_shape),
        "most_gain": MOST_GAIN,
        "difference": {
            "least_level": difference.least_level(geometry),
            "least_zoom": difference.least_zoom(geometry),
            "of": list(difference.MEASURES),
        },
        "structure_limit": verdict.DEFAULT.structure,
        "verdict": job.verdict,
        "reasons": job.reasons,
        "metrics": job.metrics,
        "preset": job.preset,
        "finished": iso(job.finished),
        "provenance": {key: job.provenance[key] for key in _PROVENANCE if key in job.provenance},
        "version": tiles.version(job, "all"),
        "missing": {},
        "notes": [],
        "maps": {},
        "worst": [],
    }
    try:
        low_zoom = tiles.before(job).low_zoom
        result["low_zoom"], result["colours"] = low_zoom, tiles.colours(job)
        if low_zoom in LOW_ZOOM:
            result["notes"].append(LOW_ZOOM[low_zoom])
    except (NotFound, WsiDenoiseError) as error:
        result["missing"]["before"] = str(error)
    try:
        tiles.after(job)
    except (NotFound, WsiDenoiseError) as error:
        result["missing"]["after"] = str(error)
    try:
        found = maps.load(job)
        result["maps"] = {name: found.legend(name) for name in maps.NAMES}
        result["worst"] = found.worst()
    except NotFound:
        pass
    return result
