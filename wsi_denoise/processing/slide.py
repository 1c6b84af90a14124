"""One slide, all of it: plan, blocks, assembly, verification, publishing.

Runs in the daemon, and holds no pixels: workers get paths and coordinates. A bounded number of blocks is in flight, so
that a slide of a million patches costs the scheduler as little as a small one.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import KilledWorker

from wsi_denoise import access, space
from wsi_denoise.errors import (
    BlockKillsWorker,
    OutputExists,
    VerificationFailed,
)
from wsi_denoise.processing import remote, waiting
from wsi_denoise.processing.cluster import Cluster
from wsi_denoise.processing.spool import Spool
from wsi_denoise.processing.values import BlockLost, SlidePlan
from wsi_denoise.processing.waiting import StillOut, Watch
from wsi_denoise.quality.verdict import Judgement, judge
from wsi_denoise.settings import Settings
from wsi_denoise.slide import provenance
from wsi_denoise.slide.lattice import BlockIndex

_log = logging.getLogger(__name__)

BLOCKS_PER_THREAD = 3
DEATHS = 3
"""Times that a block may take its worker down while it is alone, before it is blamed."""

DRAIN_SECONDS = 8.0
"""A shutdown waits so long for blocks that run: with ending the workers it stays below twenty seconds."""


class Interrupted(Exception):
    """The daemon is shutting down: blocks in flight were finished, the job goes back to the queue."""


@dataclass(frozen=True)
class Progress:
    """How far a slide is.

    Parameters
    ----------
    done, total, resumed : int
        Blocks finished (resumed ones included), of how many, and found in the spool.
    rate : float or None
        Megapixels of level 0 per second in this attempt.
    seconds_left : float or None
        Estimate, by patches that go through the network.
    """

    done: int
    total: int
    resumed: int
    rate: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class Request:
    """One slide to be denoised.

    Parameters
    ----------
    path : Path
    fingerprint : str
    settings : Settings
    preset : str
    output : callable
        From the plan's facts to the final path.
    maps, overview : Path or None
        Where the per-patch maps, and the overview of a source without smaller levels, are kept.
    region : (int, int, int, int) or None
    check_source : callable
        Raises SlideChanged or SlideVanished when the source is no longer what was fingerprinted.
    overwrite : bool
        Replace an output of other settings.
    """

    path: Path
    fingerprint: str
    settings: Settings
    preset: str
    output: Callable[[Mapping[str, Any]], Path]
    maps: Path | None
    check_source: Callable[[], None]
    overwrite: bool = False
    region: tuple[int, int, int, int] | None = None
    overview: Path | None = None

    @property
    def spool(self) -> Path:
        """Folder of all spool folders."""
        return self.settings.jobs.state / "spool"


@dataclass(frozen=True)
class Result:
    """A published slide.

    Parameters
    ----------
    output : Path
    sha256 : str
    judgement : Judgement
    metrics : dict
    facts : dict
        Provenance.
    model_sha256 : str
    seconds : dict of str to float
        Processor-independent times on the clock: per stage summed over blocks, and ``total``.
    """

    output: Path
    sha256: str
    judgement: Judgement
    metrics: dict[str, float | None]
    facts: dict[str, Any]
    model_sha256: str
    seconds: dict[str, float]


def plan(request: Request, cluster: Cluster, keep_going: Callable[[], None], watch: Watch | None = None) -> SlidePlan:
    """Plan a slide in a worker.

    Raises
    ------
    SlideError, SourceError, ModelError, WorkerLost, JobCancelled, Interrupted
    """
    planned: SlidePlan = waiting.run(
        cluster,
        watch or Watch(cluster, request.settings.limits),
        keep_going,
        remote.plan_slide,
        request.path,
        request.fingerprint,
        request.settings,
        request.preset,
        request.spool,
        request.region,
    )
    return planned


def denoise_slide(
    request: Request,
    cluster: Cluster,
    *,
    on_plan: Callable[[SlidePlan], None] = lambda _plan: None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    keep_going: Callable[[], None] = lambda: None,
    on_wait: Callable[[str], None] = lambda _text: None,
) -> Result:
    """Denoise one slide and publish it.

    Parameters
    ----------
    request : Request
    cluster : Cluster
    on_plan, on_progress : callable
        Told what was found, and how far the slide is.
    keep_going : callable
        Called often; raises JobCancelled or Interrupted to stop.
    on_wait : callable
        Told in a sentence why nothing moves.

    Raises
    ------
    WsiDenoiseError
        As the stages raise them.
    Interrupted
        After the blocks in flight were finished.
    """
    begun = time.perf_counter()
    watch = Watch(cluster, request.settings.limits, on_wait)
    planned = plan(request, cluster, keep_going, watch)
    on_plan(planned)
    if not planned.tissue.any():
        _log.info("no tissue was found: every pixel is kept as it is")
    blocks = Blocks(planned, cluster, request.settings.compute.in_flight, on_progress, keep_going, watch)
    target = request.output(planned.facts)
    _make_folder(target.parent, request.settings)
    # The same work has the same partial name: what a killed daemon left is written over, not left for ever.
    part = target.with_name(f".{planned.work.spool.name}.part")
    try:
        metrics, digest = _write(blocks, part, request, cluster, keep_going, watch)
        judgement = judge(metrics)
        request.check_source()
        access.give(part, request.settings.output)
        publish(part, target, planned.facts, overwrite=request.overwrite)
    finally:
        with suppress(OSError):  # the folder may be what is wrong, and that is being told
            part.unlink(missing_ok=True)
    seconds = {**blocks.seconds, "total": time.perf_counter() - begun}
    return Result(target, digest, judgement, metrics, planned.facts, planned.model_sha256, seconds)


def _write(
    blocks: Blocks, part: Path, request: Request, cluster: Cluster, keep_going: Callable[[], None], watch: Watch
) -> tuple[dict[str, float | None], str]:
    """Finish all blocks, assemble and verify; a block that cannot be read back is done again, once."""
    for last in (False, True):
        blocks.run()
        try:
            metrics: dict[str, float | None] = waiting.run(
                cluster, watch, keep_going, remote.assemble, blocks.plan, part, request.maps, request.overview
            )
            digest: str = waiting.run(
                cluster, watch, keep_going, remote.verify, blocks.plan, part, request.settings.output.verify_tiles
            )
        except BlockLost as lost:
            if last:
                raise VerificationFailed(str(lost)) from lost
            _log.warning("%s", lost)
            damaged = [index for index in sorted(blocks.done) if not blocks.spool.is_sound(index)]
            for index in {*damaged, lost.block}:
                blocks.forget(index)
        else:
            return metrics, digest
    raise AssertionError


@dataclass
class Blocks:
    """The blocks of one slide on the cluster.

    Parameters
    ----------
    plan : SlidePlan
    cluster : Cluster
    in_flight : int
        Blocks handed out at a time; 0 is three per thread.
    on_progress, keep_going : callable
        As in :func:`denoise_slide`.
    watch : Watch
        Notices when no block finishes any more.
    """

    plan: SlidePlan
    cluster: Cluster
    in_flight: int
    on_progress: Callable[[Progress], None]
    keep_going: Callable[[], None]
    watch: Watch
    seconds: dict[str, float] = field(default_factory=dict)
    done: set[BlockIndex] = field(default_factory=set)
    resumed: int = 0

    def __post_init__(self) -> None:
        self.spool = Spool(self.plan.work.spool)
        self._all = list(self.plan.work.lattice.blocks())
        self._tissue = {block: self.plan.tissue[self.plan.work.lattice.patches(block)] for block in self._all}
        self.done = self.spool.finished() & set(self._all)
        self.resumed = len(self.done)
        self._begun = time.perf_counter()
        self._pixels = 0
        self._deaths: dict[BlockIndex, int] = {}
        # A block without tissue costs a tenth of a full one: reading and encoding.
        self._cost = {block: 0.1 * mask.size + float(mask.sum()) for block, mask in self._tissue.items()}
        self._undone = sum(cost for block, cost in self._cost.items() if block not in self.done)
        self._spent = 0.0
        if self.resumed:
            _log.info("%d of %d blocks are in the spool already", self.resumed, len(self._all))

    def forget(self, block: BlockIndex) -> None:
        """Have a block done again."""
        self.spool.discard(block)
        if block in self.done:
            self.done.remove(block)
            self._undone += self._cost[block]
        self.resumed = min(self.resumed, len(self.done))

    def run(self) -> None:
        """Do every block that is not in the spool.

        Raises
        ------
        BlockKillsWorker
            When a block takes its worker down three times while it is alone.
        """
        todo = deque(block for block in self._all if block not in self.done)
        suspects: deque[BlockIndex] = deque()
        pending: dict[Any, BlockIndex] = {}
        self._report()
        self.watch.moved()
        try:
            while todo or suspects or pending:
                self.keep_going()
                if suspects and not pending:
                    self._submit(suspects.popleft(), pending)
                elif not suspects:
                    room = self.in_flight or BLOCKS_PER_THREAD * self.cluster.slots()
                    while todo and len(pending) < room:
                        self._submit(todo.popleft(), pending)
                self._collect(pending, todo, suspects)
        except Interrupted:
            self._drain(pending)
            raise
        finally:
            self.cluster.drop(pending)

    def _submit(self, block: BlockIndex, pending: dict[Any, BlockIndex]) -> None:
        future = self.cluster.call(remote.block, self.plan.work, block, self._tissue[block], self.cluster.threads)
        pending[future] = block

    def _collect(self, pending: dict[Any, BlockIndex], todo: deque[BlockIndex], suspects: deque[BlockIndex]) -> None:
        """Take in what has finished; what was held by a lost worker becomes suspect, what was lost is done again."""
        finished = self.watch.wait(pending)
        alone = len(pending) == 1
        moved = False
        for future in finished:
            block = pending[future]
            try:
                report = waiting.result(future)
            except StillOut:
                continue
            except KilledWorker as error:
                del pending[future]
                self._suspect(block, suspects, alone=alone, error=error)
                moved = True
                continue
            del pending[future]
            self.done.add(block)
            self._pixels += report.pixels
            self._spent += self._cost[block]
            self._undone -= self._cost[block]
            for stage, seconds in report.seconds.items():
                self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
            future.release()
            moved = True
        if moved:
            self.watch.moved()
            self._report()
            return
        lost = self.watch.look(pending)
        self.cluster.drop(lost)
        for future in lost:
            todo.appendleft(pending.pop(future))

    def _suspect(self, block: BlockIndex, suspects: deque[BlockIndex], *, alone: bool, error: Exception) -> None:
        """Have a block done alone: a worker that dies takes innocent blocks with it."""
        if alone:
            self._deaths[block] = self._deaths.get(block, 0) + 1
        _log.warning("a worker was lost with block %s (%s)", block, type(error).__name__)
        if self._deaths.get(block, 0) >= DEATHS:
            x, y = self.plan.work.lattice.region(block).origin
            raise BlockKillsWorker(f"block {block}, at x {x}, y {y}")
        suspects.append(block)

    def _drain(self, pending: dict[Any, BlockIndex]) -> None:
        """Let the blocks that run finish, within a bound: they are in the spool then. Waiting ones are dropped."""
        running = [future for future in pending if not future.done()]
        slots = self.cluster.slots()
        self.cluster.drop(running[slots:])
        end = time.monotonic() + DRAIN_SECONDS
        left = running[:slots]
        while left and time.monotonic() < end:
            self.watch.wait(left)
            left = [future for future in left if not future.done()]
        if left:
            _log.warning("%d blocks in flight did not finish in time: they will be done again", len(left))

    def _report(self) -> None:
        elapsed = time.perf_counter() - self._begun
        rate = self._pixels / elapsed / 1e6 if self._pixels else None
        left = None
        if self._spent:
            left = self._undone / self._spent * elapsed
        self.on_progress(Progress(len(self.done), len(self._all), self.resumed, rate, left))


def _make_folder(folder: Path, settings: Settings) -> None:
    try:
        access.make_folder(folder, settings.output)
    except OSError as error:
        raise space.of_writing(error, folder) from error


def publish(part: Path, target: Path, facts: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Give a verified file its final name, in one step.

    A file of that name is replaced only when it is of the same content, model and settings (we died between publishing
    and writing the record), or with `overwrite` when we made it.

    Raises
    ------
    OutputExists
        When something else has the name.
    OutputUnwritable
    """
    try:
        os.link(part, target)
    except FileExistsError:
        if not replaceable(target, facts, overwrite=overwrite):
            raise OutputExists(target.name) from None
        part.replace(target)
    except OSError:
        # Some shares have no hard links: then a check and a rename, which is not one step.
        if target.exists() and not replaceable(target, facts, overwrite=overwrite):
            raise OutputExists(target.name) from None
        try:
            part.replace(target)
        except OSError as error:
            raise space.of_writing(error, target.parent) from error
    _sync_folder(target.parent)


def replaceable(target: Path, facts: Mapping[str, Any], *, overwrite: bool = False) -> bool:
    """Whether an existing file was made by the same work; see :func:`publish`."""
    found = provenance.of_file(target)
    return found is not None and (overwrite or provenance.same_work(found, facts))


def _sync_folder(folder: Path) -> None:
    """Bring the new name itself to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
