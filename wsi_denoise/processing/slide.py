"""Process one slide: plan, blocks, assembly, verification, publishing.

Runs in the daemon and holds no pixels: workers receive paths and coordinates. The number of blocks in flight is
bounded, so that a slide of a million patches costs the scheduler as little as a small one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wsi_denoise.errors import VerificationFailed
from wsi_denoise.processing.dask import remote, stall
from wsi_denoise.processing.dask.cluster import Cluster
from wsi_denoise.processing.dask.prefetch import Prefetch
from wsi_denoise.processing.dask.scheduler import Blocks
from wsi_denoise.processing.dask.stall import Watch
from wsi_denoise.processing.events import SlideEvents
from wsi_denoise.processing.publish import Draft, Output
from wsi_denoise.processing.spool import Spool
from wsi_denoise.processing.values import BlockLost, SlidePlan
from wsi_denoise.quality.verdict import Judgement, judge
from wsi_denoise.settings import Settings
from wsi_denoise.slide.base import SourceFile
from wsi_denoise.system import disk

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A slide to be denoised.

    Parameters
    ----------
    maps, overview : Path or None
        Files of the per-patch maps, and of the overview of a source without smaller levels.
    check_source : callable
        Raises SlideChanged or SlideVanished when the source differs from the fingerprinted one.
    files : tuple of SourceFile
        The fingerprinted files.
    """

    path: Path
    fingerprint: str
    settings: Settings
    preset: str
    output: Output
    maps: Path | None
    check_source: Callable[[], None]
    region: tuple[int, int, int, int] | None = None
    overview: Path | None = None
    files: tuple[SourceFile, ...] = ()

    @property
    def planning(self) -> tuple[Any, ...]:
        """Arguments of :func:`wsi_denoise.processing.plan.plan_slide`."""
        spool = self.settings.jobs.state / "spool"
        return self.path, self.fingerprint, self.settings, self.preset, spool, self.region, self.files


@dataclass(frozen=True)
class Result:
    """A published slide.

    Parameters
    ----------
    facts : dict
        Provenance.
    seconds : dict of str to float
        Wall-clock time per stage, summed over blocks, and ``total``.
    """

    output: Path
    sha256: str
    judgement: Judgement
    metrics: dict[str, float | None]
    facts: dict[str, Any]
    model_sha256: str
    seconds: dict[str, float]


def denoise_slide(
    request: Request, cluster: Cluster, events: SlideEvents, *, prefetch: Prefetch | None = None
) -> Result:
    """Denoise one slide and publish it.

    Parameters
    ----------
    prefetch : Prefetch, optional
        May hold the plan and the first blocks already.

    Raises
    ------
    WsiDenoiseError
        From the stages.
    Interrupted
        After the blocks in flight have finished, or their time limit has passed.
    """
    begun = time.perf_counter()
    prefetched = None if prefetch is None else prefetch.take_plan(*request.planning)
    watch = Watch(cluster, request.settings.limits, events)
    nearby = watch if cluster.home is None else Watch(cluster.home, request.settings.limits, events)
    plan = _keep_thumbnail(stall.run(watch, remote.plan_slide, *request.planning, begun=prefetched))
    events.planned(plan)
    if not plan.tissue.any():
        _log.info("no tissue was found: every pixel is kept as it is")
    blocks = Blocks(plan, cluster, events, watch, prefetch)
    with request.output.draft(plan.facts, plan.work.spool.name) as draft:
        metrics, digest = _write(blocks, draft, request, nearby)
        judgement = judge(metrics, plan.triage)
        request.check_source()
        published = draft.publish()
    seconds = {**blocks.seconds, "total": time.perf_counter() - begun}
    return Result(published, digest, judgement, metrics, plan.facts, plan.model_sha256, seconds)


def _keep_thumbnail(plan: SlidePlan) -> SlidePlan:
    """Create the folder of all spools, and store the thumbnail in the slide's own."""
    spool = Spool(plan.work.spool)
    with disk.translate_write_errors(spool.folder.parent):
        # Created only here, after the check of the state folder. Workers do not create folders that others removed.
        spool.folder.parent.mkdir(parents=True, exist_ok=True)
    if plan.thumbnail is not None:
        spool.keep_thumbnail(plan.thumbnail)
    return replace(plan, thumbnail=None)


def _write(
    blocks: Blocks, draft: Draft, request: Request, watch: Watch, *, retry: bool = True
) -> tuple[dict[str, float | None], str]:
    """Finish all blocks, assemble and verify. Blocks that cannot be read back are processed again, once."""
    blocks.run()
    draft.check_folder()
    try:
        metrics: dict[str, float | None] = stall.run(
            watch, remote.assemble, blocks.plan, draft.part, request.maps, request.overview
        )
        digest: str = stall.run(watch, remote.verify, blocks.plan, draft.part, request.settings.output.verify_tiles)
    except BlockLost as lost:
        if not retry:
            raise VerificationFailed(str(lost)) from lost
        _log.warning("%s", lost)
        blocks.forget_damaged(lost.block)
        return _write(blocks, draft, request, watch, retry=False)
    return metrics, digest
