"""Process one slide: plan, blocks, assembly, verification, publishing.

Runs in the daemon and holds no pixels: workers receive paths and coordinates. The number of blocks in flight is
bounded, so that a slide of a million patches costs the scheduler as little as a small one.
"""

from __future__ import annotations

import errno
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wsi_denoise.errors import OutputExists, VerificationFailed
from wsi_denoise.processing.dask import remote, stall
from wsi_denoise.processing.dask.cluster import Cluster
from wsi_denoise.processing.dask.prefetch import Prefetch
from wsi_denoise.processing.dask.scheduler import Blocks
from wsi_denoise.processing.dask.stall import Watch
from wsi_denoise.processing.events import SlideEvents
from wsi_denoise.processing.spool import Spool
from wsi_denoise.processing.values import BlockLost, SlidePlan
from wsi_denoise.quality.verdict import Judgement, judge
from wsi_denoise.settings import Settings
from wsi_denoise.slide import provenance
from wsi_denoise.slide.base import SourceFile
from wsi_denoise.system import disk, files, permissions

_log = logging.getLogger(__name__)

_OF_THE_FILE = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}
)
"""Errors of a single file on a readable share: it is missing, not permitted, a folder, or a socket."""


@dataclass(frozen=True)
class Request:
    """A slide to be denoised.

    Parameters
    ----------
    output : callable
        Returns the final path for the facts of the plan.
    maps, overview : Path or None
        Files of the per-patch maps, and of the overview of a source without smaller levels.
    check_source : callable
        Raises SlideChanged or SlideVanished when the source differs from the fingerprinted one.
    check_output : callable or None
        Raises OutputUnwritable when the output folder is not the same as before. With None, a missing folder is
        created.
    overwrite : bool
        Replace an output of the same slide with other settings.
    files : tuple of SourceFile
        The fingerprinted files.
    holder : str
        Eight hexadecimal digits that identify the running process in the names of partial files.
    """

    path: Path
    fingerprint: str
    settings: Settings
    preset: str
    output: Callable[[Mapping[str, Any]], Path]
    maps: Path | None
    check_source: Callable[[], None]
    check_output: Callable[[], None] | None = None
    overwrite: bool = False
    region: tuple[int, int, int, int] | None = None
    overview: Path | None = None
    files: tuple[SourceFile, ...] = ()
    holder: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def spool(self) -> Path:
        """Folder of all spool folders."""
        return self.settings.jobs.state / "spool"

    @property
    def planning(self) -> tuple[Any, ...]:
        """Arguments of :func:`wsi_denoise.processing.dask.tasks.plan_slide`."""
        return self.path, self.fingerprint, self.settings, self.preset, self.spool, self.region, self.files


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
    watch = Watch(cluster, request.settings.limits, events)
    prefetched = None if prefetch is None else prefetch.take_plan(*request.planning)
    plan: SlidePlan = stall.run(watch, remote.plan_slide, *request.planning, begun=prefetched)
    with disk.translate_write_errors(request.spool):
        # Created only here, after the check of the state folder. Workers do not create folders that others removed.
        request.spool.mkdir(parents=True, exist_ok=True)
    if plan.thumbnail is not None:
        Spool(plan.work.spool).keep_thumbnail(plan.thumbnail)
        plan = replace(plan, thumbnail=None)
    events.planned(plan)
    if not plan.tissue.any():
        _log.info("no tissue was found: every pixel is kept as it is")
    blocks = Blocks(plan, cluster, events, watch, prefetch)
    target = _target(request, plan.facts)
    _make_folder(target.parent, request)
    part = _partial(target, plan.work.spool.name, request.holder)
    try:
        nearby = watch if cluster.home is None else Watch(cluster.home, request.settings.limits, events)
        metrics, digest = _write(blocks, part, request, nearby)
        judgement = judge(metrics)
        request.check_source()
        _make_folder(target.parent, request)
        permissions.give(part, request.settings.output)
        target = _published(part, target, plan.facts, request)
    finally:
        with suppress(OSError):  # the folder may be the cause of the error that is being raised
            part.unlink(missing_ok=True)
    seconds = {**blocks.seconds, "total": time.perf_counter() - begun}
    return Result(target, digest, judgement, metrics, plan.facts, plan.model_sha256, seconds)


def _write(blocks: Blocks, part: Path, request: Request, watch: Watch) -> tuple[dict[str, float | None], str]:
    """Finish all blocks, assemble and verify. Blocks that cannot be read back are processed again, once."""
    try:
        return _assembled(blocks, part, request, watch)
    except BlockLost as lost:
        _log.warning("%s", lost)
        blocks.forget_damaged(lost.block)
    try:
        return _assembled(blocks, part, request, watch)
    except BlockLost as lost:
        raise VerificationFailed(str(lost)) from lost


def _assembled(blocks: Blocks, part: Path, request: Request, watch: Watch) -> tuple[dict[str, float | None], str]:
    blocks.run()
    _make_folder(part.parent, request)  # again: hours later, the share may have been unmounted
    metrics: dict[str, float | None] = stall.run(
        watch, remote.assemble, blocks.plan, part, request.maps, request.overview
    )
    digest: str = stall.run(watch, remote.verify, blocks.plan, part, request.settings.output.verify_tiles)
    return metrics, digest


def _target(request: Request, facts: Mapping[str, Any]) -> Path:
    with disk.translate_write_errors(request.settings.output.folder):
        return request.output(facts)


def _partial(target: Path, work: str, holder: str) -> Path:
    """Return a partial name that no other attempt has, and remove files of earlier attempts of this holder.

    Another daemon may still write its own partial file, if its machine slept while this one took the job. So may a
    worker of an abandoned attempt. Recovery decides about files of other holders.
    """
    with suppress(OSError):
        for left in target.parent.glob(f".{work}.{holder}-*.part"):
            left.unlink(missing_ok=True)
    return target.with_name(f".{work}.{holder}-{secrets.token_hex(4)}.part")


def _make_folder(folder: Path, request: Request) -> None:
    """Create the folder of an output, below the checked output folder."""
    output, root = request.settings.output, None
    if request.check_output is not None:
        request.check_output()
        root = output.folder
    with disk.translate_write_errors(folder):
        permissions.make_folder(folder, output, below=root)


def _published(part: Path, target: Path, facts: Mapping[str, Any], request: Request) -> Path:
    """Publish under the planned name, or under a new one if that is taken by now; return the path."""
    while True:
        try:
            publish(part, target, facts, overwrite=request.overwrite)
        except OutputExists:
            other = _target(request, facts)
            if other == target:
                raise
            _log.info("another slide took the output's name: this one gets another")
            target = other
        else:
            return target


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
        _look_at(target)
    return found is not None and (
        provenance.same_work(found, facts) or (overwrite and provenance.same_content(found, facts))
    )


def _look_at(file: Path) -> None:
    """Raise OSError when a file cannot be read, unless the cause is the file itself."""
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        if error.errno not in _OF_THE_FILE:
            raise
