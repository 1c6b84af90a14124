"""Connect to a Dask cluster: worker processes on this machine by default, or a scheduler by address."""

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
"""A worker process needs about 1 GB (torch and tiatoolbox). Beyond this number, processes get more threads."""

ANSWER_SECONDS = 10.0
"""Timeout for an answer of the scheduler or a worker."""

NO_ANSWER = (TimeoutError, OSError, CancelledError, RuntimeError, AttributeError)
"""Exceptions of Dask when the scheduler does not answer; AttributeError after Dask has closed the client."""

CONNECT_SECONDS = 20.0
"""Timeout of a connection. Dask closes the client of a scheduler that is away for longer; the daemon connects again."""

CLOSE_SECONDS = 6.0
"""Timeout for closing a client or a cluster. Both together fit into the daemon's `END_SECONDS`."""

BEAT_SECONDS = 5.0

QUIET = {
    # Dask monitors itself ten to a hundred times a second: 12 % of a core for two idle workers, 2 % with these settings
    # (docs/evidence/performance.md). The results are not used.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.low-level-log-length": 0,
    "distributed.admin.system-monitor.interval": "5s",
    # The history of processes and tasks is not used either: hours of figures, and the task groups of the last hundred
    # computations, each of which may be a slide of thousands of blocks.
    "distributed.admin.system-monitor.log-length": 60,
    "distributed.diagnostics.computations.max-history": 1,
    "distributed.diagnostics.erred-tasks.max-history": 1,
    "distributed.worker.memory.monitor-interval": "500ms",
}
"""Dask settings that keep idle processes idle."""


KEEPING = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 128 * 2**20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 * 2**20,
}
"""Freed memory that workers keep. Dask's default returns all but 64 kB at once: page faults then cost as much as the
arithmetic on a block's arrays (docs/evidence/performance.md). Workers return everything at the end of a slide."""


@dataclass(frozen=True)
class Cluster:
    """A Dask client and its cluster.

    Parameters
    ----------
    description : str
        One line for logs and the dashboard.
    home : Cluster or None
        A worker on this machine for tasks that need the local folders, if the workers of `client` do not see these.
        The finished blocks are then sent here.
    """

    client: Any
    description: str
    home: Cluster | None = None

    @property
    def near(self) -> Cluster:
        """The cluster that sees the state and output folders."""
        return self.home or self

    def slots(self) -> int:
        """Return how many tasks run at a time now, at least 1. Workers come and go."""
        return max(1, self._threads())  # a lost scheduler is reported elsewhere (stall.py)

    def is_there(self) -> bool:
        """Return whether the scheduler answers and has a worker."""
        return self._threads() > 0

    def _threads(self) -> int:
        try:
            known = self.client.sync(self.client.scheduler.ncores, workers=None, callback_timeout=ANSWER_SECONDS)
        except NO_ANSWER:
            return 0
        return sum(known.values())

    def is_closed(self) -> bool:
        """Return whether Dask has given up a lost scheduler: only a new client reaches it then."""
        return self.client.status == "closed" or (self.home is not None and self.home.is_closed())

    def drop(self, futures: Iterable[Any]) -> None:
        """Drop tasks whose results are not needed, without waiting."""
        dropped = list(futures)
        if dropped and not self.is_closed():
            # Future.cancel() waits for the event loop, which may be stuck.
            self.client.loop.add_callback(self.client.cancel, dropped, asynchronous=True)

    def call(self, function: Callable[..., Any], *args: Any, priority: int = 0) -> Any:
        """Submit a call. Its result is never cached, since files change under the same path.

        Raises
        ------
        SchedulerUnreachable
            When the client is closed.
        """
        try:
            return self.client.submit(function, *args, pure=False, priority=priority)
        except (ClosedClientError, AttributeError) as error:
            if isinstance(error, AttributeError) and not self.is_closed():
                raise  # a bug of this program
            raise SchedulerUnreachable("it was away for too long; the daemon reconnects") from error


def shape(compute: ComputeSettings, cores: int | None = None) -> tuple[int, int]:
    """Return (processes, threads per process) for a cluster on this machine."""
    cores = cores or CPU_COUNT  # limited by affinity and by the container
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
            # A worker that dies fails its tasks at once. Their blocks then run alone (scheduler.py).
            "distributed.scheduler.allowed-failures": 0,
            "distributed.worker.daemon": False,
            "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS:g}s",
            # A LocalCluster gives up a worker that is not back this long after its death (15 s by default). On a
            # busy machine a start takes longer, and a cluster without workers waits indefinitely.
            "distributed.deploy.lost-worker-timeout": "3650 days",
            # The spool bounds the disk usage. Dask's spilling would hide a task that needs too much memory.
            "distributed.worker.memory.spill": False,
            "distributed.worker.memory.target": False,
            # A paused worker takes no task, reports nothing, and waits for memory that our libraries never return: a
            # job would stall indefinitely. Without a pause, a worker beyond its limit is ended and reported.
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
    """Start worker processes, and end them at the end.

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
    """Empty Dask's cache of task names. It would keep a hundred thousand, and each of our tasks has a new one."""
    key_split.cache_clear()


class _NoSpans:
    """Replace Dask's statistics of tasks by nothing.

    Dask keeps the groups of all past tasks for statistics that are not used. A daemon that runs for months would run
    out of memory.
    """

    def __init__(self, scheduler: Any) -> None:
        """Accept the arguments of Dask's extension."""

    def __bool__(self) -> bool:
        return False

    def heartbeat(self, worker: Any, data: Any) -> None:
        """Ignore the measurements of a worker."""


class _OfProcess(WorkerPlugin):  # type: ignore[misc]
    """Change the process of a worker, but never this process: in tests, a worker may run inside it."""

    def __init__(self) -> None:
        self._ours = os.getpid()

    @property
    def apart(self) -> bool:
        """Whether this is the process of a worker."""
        return os.getpid() != self._ours


class _EndHard(_OfProcess):
    """End a worker process immediately when it is closed.

    Its results are in the spool. An orderly end of torch and tiatoolbox takes seconds, too long for a shutdown.
    """

    name = "wsi-denoise-end"

    def teardown(self, worker: Any) -> None:  # noqa: ARG002 - Dask's own signature
        if self.apart:
            os._exit(0)


class _BeatSlowly(_OfProcess):
    """Send the heartbeats of a worker process on this machine less often.

    With few workers, Dask sends them twice a second, whatever the settings, which costs both ends a hundredth of a
    core. The end of a process is detected by its connection.
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
    """Lower the priority of a worker process: viewers and other programs of the user come first."""

    name = "wsi-denoise-nice"

    def __init__(self, nice: int) -> None:
        super().__init__()
        self._nice = nice

    def setup(self, worker: Any) -> None:  # noqa: ARG002 - Dask's own signature
        if not self.apart:
            return
        # Linux keeps the priority per thread. New threads inherit it.
        for thread in (int(folder.name) for folder in Path("/proc/self/task").iterdir()):
            with suppress(OSError):
                if os.getpriority(os.PRIO_PROCESS, thread) < self._nice:
                    os.setpriority(os.PRIO_PROCESS, thread, self._nice)


def _started(processes: int, threads: int, wanted: str, folder: Path) -> Any:
    """Start the worker processes. Try three times, since one may die while it starts.

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
    """Close a client or a cluster. Errors are only logged, since all work is finished by then.

    Dask waits a few seconds for a killed worker, which is too short on a busy machine. Its messages also cross while
    workers end.
    """
    try:
        service.close(timeout=CLOSE_SECONDS)
    except Exception as error:  # noqa: BLE001 - logged with its traceback
        _log.warning("%s did not close in order", type(service).__name__, exc_info=error)


def memory_limit(wanted: str, processes: int, threads: int) -> str | int | None:
    """Return the memory limit of a worker process. ``auto`` is the share of its threads in the available memory.

    Dask's own ``auto`` ignores the limit of a service.
    """
    if wanted == "auto":
        return memory.limit() * threads // max(int(CPU_COUNT), processes * threads)
    return None if wanted == "0" else wanted


def _local(processes: int, threads: int, wanted: str, folder: Path) -> Any:
    # The scheduler runs in this process and puts its scratch folder on sys.path. The default is a folder in /tmp, which
    # another user of the machine may have created.
    with dask.config.set({"temporary-directory": str(folder)}):
        return LocalCluster(
            n_workers=processes,
            threads_per_worker=threads,
            processes=True,
            memory_limit=memory_limit(wanted, processes, threads),
            # Dask's own dashboard listens on all addresses by default.
            dashboard_address=None,
            # Health and metrics remain: they would take port 8787 and warn about a second daemon.
            scheduler_kwargs={
                "dashboard_address": "127.0.0.1:0",
                "extensions": {**DEFAULT_EXTENSIONS, "spans": _NoSpans},
            },
            host="127.0.0.1",
            local_directory=str(folder),
            # The daemon reports a task that raises. Its worker would print a traceback with the path of the slide.
            silence_logs=logging.CRITICAL,
        )


def _warn_if_open(address: str) -> None:
    # A scheduler executes any code it receives: outside of loopback it needs TLS or a private network.
    parts = urlsplit(address)
    if parts.scheme != "tls" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        _log.warning("the scheduler at %s is reached without TLS: keep it in a private network", address)
