"""The Dask cluster: worker processes on this machine by default, or any scheduler by address."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask
from dask.system import CPU_COUNT
from dask.utils import key_split
from distributed import Client, LocalCluster, WorkerPlugin
from distributed.client import ClosedClientError
from distributed.comm import CommClosedError
from distributed.scheduler import DEFAULT_EXTENSIONS
from tornado.ioloop import PeriodicCallback

from wsi_denoise.errors import NoWorkers, SchedulerUnreachable
from wsi_denoise.processing.dask.interrupts import interrupts_deferred, silence_resource_tracker
from wsi_denoise.settings import ComputeSettings, Settings
from wsi_denoise.system import memory

_log = logging.getLogger(__name__)

MOST_PROCESSES = 4
"""A worker process costs about 1 GB (torch and tiatoolbox): beyond this many, processes get more threads instead."""

ANSWER_SECONDS = 10.0
"""A scheduler that has not answered by then does not answer."""

NO_ANSWER = (TimeoutError, OSError, CancelledError, RuntimeError, AttributeError)
"""What Dask raises of a scheduler that gives no answer; the last one where it has closed the client."""

CONNECT_SECONDS = 20.0
"""A scheduler that is away for longer is given up: Dask closes the client, and who uses it connects anew."""

CLOSE_SECONDS = 6.0
"""A shutdown closes a client and a cluster, within `END_SECONDS` of the daemon together."""

BEAT_SECONDS = 5.0

QUIET = {
    # Dask watches itself ten to a hundred times a second: 12 % of a core for two workers that do nothing, 2 % like
    # this (docs/evidence/performance.md). Nobody looks at what it would see.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.low-level-log-length": 0,
    "distributed.admin.system-monitor.interval": "5s",
    # What a process remembers of itself and of its tasks, for the same nobody: hours of figures, and the groups of the
    # last hundred computations, each of which may be a slide of thousands of blocks.
    "distributed.admin.system-monitor.log-length": 60,
    "distributed.diagnostics.computations.max-history": 1,
    "distributed.diagnostics.erred-tasks.max-history": 1,
    "distributed.worker.memory.monitor-interval": "500ms",
}
"""Settings of Dask that make idle processes idle."""


KEEPING = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 128 * 2**20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 * 2**20,
}
"""What workers keep of what they free. Dask has them give back all but 64 kB at once, and a block's arrays then cost as
much in page faults as in arithmetic (docs/evidence/performance.md). Everything goes back at the end of a slide."""


@dataclass(frozen=True)
class Cluster:
    """A client, and what it leads to.

    Parameters
    ----------
    client : distributed.Client
    description : str
        One line for people.
    home : Cluster or None
        A worker on this machine for what needs the folders here, where those of `client` do not see them: their blocks
        travel.
    """

    client: Any
    description: str
    home: Cluster | None = None

    @property
    def near(self) -> Cluster:
        """Where the state and output folders are seen."""
        return self.home or self

    def slots(self) -> int:
        """Return how many tasks run at a time now, at least 1; workers come and go."""
        try:
            threads: dict[str, int] = self.client.sync(
                self.client.scheduler.ncores, workers=None, callback_timeout=ANSWER_SECONDS
            )
        except NO_ANSWER:
            return 1  # whether anybody is there is told elsewhere (waiting.py)
        return max(1, sum(threads.values()))

    def is_there(self) -> bool:
        """Tell whether the scheduler answers and has a worker."""
        try:
            known = self.client.sync(self.client.scheduler.ncores, workers=None, callback_timeout=ANSWER_SECONDS)
        except NO_ANSWER:
            return False
        return bool(known)

    def is_closed(self) -> bool:
        """Tell whether Dask has given up a scheduler that went away: only a new client reaches it then."""
        return self.client.status == "closed" or (self.home is not None and self.home.is_closed())

    def drop(self, futures: Iterable[Any]) -> None:
        """Say that nobody wants these results any more; does not wait for anybody."""
        dropped = list(futures)
        if dropped and not self.is_closed():
            # Future.cancel() waits for the event loop, and that is what may be stuck.
            self.client.loop.add_callback(self.client.cancel, dropped, asynchronous=True)

    def call(self, function: Callable[..., Any], *args: Any, priority: int = 0) -> Any:
        """Submit a call that is never served from a cache: files change under the same path.

        Raises
        ------
        SchedulerUnreachable
            When the client is closed.
        """
        try:
            return self.client.submit(function, *args, pure=False, priority=priority)
        except (ClosedClientError, AttributeError) as error:
            if isinstance(error, AttributeError) and not self.is_closed():
                raise  # our own mistake
            raise SchedulerUnreachable("it was away for too long, and is connected to anew") from error


def shape(compute: ComputeSettings, cores: int | None = None) -> tuple[int, int]:
    """Return (processes, threads per process) for a cluster on this machine."""
    cores = cores or CPU_COUNT  # what affinity and a container's limit leave of the machine's
    cores = min(cores, compute.cores or cores)
    processes = compute.workers or min(cores, MOST_PROCESSES)
    return processes, compute.threads or max(1, cores // processes)


@contextmanager
def connect(settings: Settings) -> Iterator[Cluster]:
    """Start worker processes on this machine, or connect to a scheduler.

    Raises
    ------
    SchedulerUnreachable, NoWorkers
    """
    address = settings.compute.scheduler
    logging.getLogger("distributed").setLevel(logging.WARNING)
    dask.config.set(
        {
            # A worker that dies takes down what it held at once: the suspects are then run alone (slide.py).
            "distributed.scheduler.allowed-failures": 0,
            "distributed.worker.daemon": False,
            "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS:g}s",
            # A LocalCluster drops a worker for ever that is not back this long after it died (15 s unless told): on a
            # busy machine starting one takes longer, and a cluster without workers waits without end.
            "distributed.deploy.lost-worker-timeout": "3650 days",
            # Usage of the disk is bounded by the spool; dask's own spilling would hide a task that needs too much.
            "distributed.worker.memory.spill": False,
            "distributed.worker.memory.target": False,
            # A paused worker takes no task, says nothing, and waits for memory that our libraries never give back: a
            # job would stand still for ever. Beyond its limit a worker is ended, and that is told.
            "distributed.worker.memory.pause": False,
            **QUIET,
            **KEEPING,
            # A worker process starts as `python -c`, which imports modules from the working folder without this.
            "distributed.nanny.pre-spawn-environ.PYTHONSAFEPATH": "1",
        }
    )
    if address:
        _warn_if_open(address)
        try:
            client = Client(address, timeout=CONNECT_SECONDS)
        except (OSError, TimeoutError, CommClosedError, ValueError) as error:
            raise SchedulerUnreachable(f"{address} ({error})") from error
        with client, ExitStack() as stack:
            travel = settings.compute.results == "travel"
            home = stack.enter_context(_on_this_machine(settings, 1, 1)) if travel else None
            yield Cluster(client, f"Dask scheduler at {address}", home)
        return
    with _on_this_machine(settings, *shape(settings.compute)) as cluster:
        yield cluster


@contextmanager
def _on_this_machine(settings: Settings, processes: int, threads: int) -> Iterator[Cluster]:
    """Start worker processes, and end them.

    Raises
    ------
    NoWorkers
    """
    folder = settings.jobs.state / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    silence_resource_tracker()
    cluster = None
    try:
        with interrupts_deferred():
            cluster = _started(processes, threads, settings.limits.worker_memory, folder)
        client = Client(cluster)
        try:
            client.register_plugin(_EndHard())
            client.register_plugin(_BeatSlowly())
            client.register_plugin(_GiveWay(settings.compute.nice))
            yield Cluster(client, f"on this machine, worker processes: {processes}, threads of each: {threads}")
        finally:
            _close(client)
    finally:
        if cluster is not None:
            _close(cluster)


def forget_keys() -> None:
    """Empty Dask's cache of the names of tasks: each of ours has another, and it would keep a hundred thousand."""
    key_split.cache_clear()


class _NoSpans:
    """Keeps nothing.

    Dask's own keeps the groups of all tasks there ever were, for statistics that nobody looks at: a daemon that runs
    for months would be eaten up by them.
    """

    def __init__(self, scheduler: Any) -> None:
        """Take what Dask gives."""

    def __bool__(self) -> bool:
        return False

    def heartbeat(self, worker: Any, data: Any) -> None:
        """Let go what a worker measured."""


class _OfProcess(WorkerPlugin):  # type: ignore[misc]
    """Something done to a worker's process, and never to ours: a worker may also run inside it, as in a test."""

    def __init__(self) -> None:
        self._ours = os.getpid()

    @property
    def apart(self) -> bool:
        """Whether this is the process of a worker."""
        return os.getpid() != self._ours


class _EndHard(_OfProcess):
    """Ends a worker process at once when it is told to close.

    All it did is in the spool; to take down torch and tiatoolbox in good order takes seconds, for which a shutdown has
    no time.
    """

    name = "wsi-denoise-end"

    def teardown(self, worker: Any) -> None:  # noqa: ARG002 - Dask's own signature
        if self.apart:
            os._exit(0)


class _BeatSlowly(_OfProcess):
    """Has a worker process of this machine report to its scheduler every few seconds.

    Dask has few workers do so twice a second, whatever the settings say, which takes both ends a hundredth of a core.
    That a process has died is seen by its connection.
    """

    name = "wsi-denoise-heartbeat"

    def setup(self, worker: Any) -> None:
        if not self.apart:
            return
        worker.periodic_callbacks["heartbeat"].stop()
        slow = PeriodicCallback(worker.heartbeat, 1000 * BEAT_SECONDS)
        worker.periodic_callbacks["wsi-denoise-heartbeat"] = slow
        slow.start()


class _GiveWay(_OfProcess):
    """Has a worker process wait behind other programs: who looks at slides comes first."""

    name = "wsi-denoise-nice"

    def __init__(self, nice: int) -> None:
        super().__init__()
        self._nice = nice

    def setup(self, worker: Any) -> None:  # noqa: ARG002 - Dask's own signature
        if not self.apart:
            return
        # Linux keeps this for each thread; those to come have it from those that are there.
        for thread in (int(folder.name) for folder in Path("/proc/self/task").iterdir()):
            with suppress(OSError):
                if os.getpriority(os.PRIO_PROCESS, thread) < self._nice:
                    os.setpriority(os.PRIO_PROCESS, thread, self._nice)


def _started(processes: int, threads: int, wanted: str, folder: Path) -> Any:
    """Start the worker processes; one that dies while it starts is no reason to give up.

    Raises
    ------
    NoWorkers
    """
    for again in (True, True, False):
        try:
            return _local(processes, threads, wanted, folder)
        except (RuntimeError, TimeoutError, OSError) as error:
            if not again:
                raise NoWorkers(f"they do not start ({error})") from error
            _log.warning("the worker processes did not start, and are started again: %s", error)
    raise AssertionError


def _close(service: Client | LocalCluster) -> None:
    """Close a client or a cluster. All work is finished by then, and does not fail because Dask does not end in order.

    Dask waits for a killed worker for a few seconds, which is too short on a busy machine, and its messages cross while
    workers end.
    """
    try:
        service.close(timeout=CLOSE_SECONDS)
    except Exception as error:  # noqa: BLE001 - logged with its traceback
        _log.warning("%s did not close in order", type(service).__name__, exc_info=error)


def memory_limit(wanted: str, processes: int, threads: int) -> str | int | None:
    """Return a worker process's limit: as the settings say, or for ``auto`` its threads' share of what there is.

    Dask's own ``auto`` does not see the limit of a service.
    """
    if wanted == "auto":
        return memory.limit() * threads // max(int(CPU_COUNT), processes * threads)
    return None if wanted == "0" else wanted


def _local(processes: int, threads: int, wanted: str, folder: Path) -> Any:
    # The scheduler runs in this process and puts its scratch folder on sys.path. The default is a folder in /tmp, which
    # another user of the machine may have made.
    with dask.config.set({"temporary-directory": str(folder)}):
        return _new_cluster(processes, threads, wanted, folder)


def _new_cluster(processes: int, threads: int, wanted: str, folder: Path) -> Any:
    return LocalCluster(
        n_workers=processes,
        threads_per_worker=threads,
        processes=True,
        memory_limit=memory_limit(wanted, processes, threads),
        # Dask's own dashboard listens on all addresses by default.
        dashboard_address=None,
        # What is left without it, health and metrics, would take port 8787 and warn when a second daemon runs.
        scheduler_kwargs={
            "dashboard_address": "127.0.0.1:0",
            "extensions": {**DEFAULT_EXTENSIONS, "spans": _NoSpans},
        },
        host="127.0.0.1",
        local_directory=str(folder),
        # A task that raises is told by us, in our words; its worker would print a traceback with the path of the slide.
        silence_logs=logging.CRITICAL,
    )


def _warn_if_open(address: str) -> None:
    # A scheduler runs whatever it is sent: off loopback it belongs behind TLS or in a private network.
    parts = urlsplit(address)
    if parts.scheme != "tls" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        _log.warning("the scheduler at %s is reached without TLS: keep it in a private network", address)
