"""Metrics for Prometheus. Each scrape reads the job database and the disk."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dashboard import context
from dashboard.responses import answer_errors
from wsi_denoise import __version__
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import JobQuery
from wsi_denoise.settings import Settings
from wsi_denoise.system import clocks, disk

_SMI = ("--query-gpu=index,memory.used,memory.total", "--format=csv,noheader,nounits")


class Figures(Collector):
    """Figures of one scrape.

    Parameters
    ----------
    now : datetime
        With a time zone.
    """

    def __init__(self, store: JobStore, settings: Settings, now: datetime) -> None:
        self._store, self._settings, self._now = store, settings, now

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield every figure."""
        yield _gauge("info", "The program's version.", ["version"], [((__version__,), 1.0)])
        counts = self._store.count_by_state()
        yield _gauge("jobs", "Jobs by state.", ["state"], [((s.value,), float(n)) for s, n in counts.items()])
        failures = self._store.count_by_error_code().items()
        yield _gauge(
            "failures", "Failed and quarantined jobs by error code.", ["code"], [((c,), float(n)) for c, n in failures]
        )
        yield _gauge("queue_age_seconds", "Age of the oldest job that waits; 0 for none.", [], [((), self._age())])
        running = self._store.jobs(JobQuery(states=(JobState.RUNNING,), limit=None)).jobs
        rate = sum(job.rate or 0.0 for job in running)
        yield _gauge("megapixels_per_second", "Of the running jobs together.", [], [((), rate)])
        paused = float(self._store.paused() is not None)
        yield _gauge("paused", "Whether the queue is paused.", [], [((), paused)])
        yield _gauge("daemons_alive", "Daemons with a recent heartbeat.", [], [((), self._alive())])
        yield _gauge("disk_free_bytes", "Free bytes where a folder is.", ["folder"], list(self._disks()))
        used, total = [], []
        for device, memory in _devices():
            used.append(((device,), memory[0]))
            total.append(((device,), memory[1]))
        yield _gauge("device_memory_used_bytes", "Memory in use on a CUDA device.", ["device"], used)
        yield _gauge("device_memory_bytes", "Memory of a CUDA device.", ["device"], total)

    def _age(self) -> float:
        oldest = self._store.jobs(JobQuery(states=(JobState.QUEUED,), limit=1, sort="created")).jobs
        return max(0.0, (self._now - oldest[0].created).total_seconds()) if oldest else 0.0

    def _alive(self) -> float:
        lease = timedelta(seconds=self._settings.jobs.lease_seconds)
        alive = (clocks.silence(daemon.heartbeat, self._now) <= lease for daemon in self._store.daemons())
        return float(sum(alive))

    def _disks(self) -> Iterator[tuple[tuple[str], float]]:
        for name, folder in (("state", self._settings.jobs.state), ("output", self._settings.output.folder)):
            with suppress(OSError):
                yield (name,), float(disk.free(folder))


def _gauge(name: str, text: str, labels: list[str], values: list[tuple[tuple[str, ...], float]]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(f"wsi_denoise_{name}", text, labels=labels)
    for of, value in values:
        gauge.add_metric(list(of), value)
    return gauge


def _devices() -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield (index, (used, total) bytes) of each CUDA device; read with the driver's own program."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return
    try:
        done = subprocess.run(  # noqa: S603 - the driver's own program
            [program, *_SMI], capture_output=True, text=True, timeout=5, check=True
        )
        for line in done.stdout.splitlines():
            index, used, total = (part.strip() for part in line.split(","))
            yield index, (float(used) * 2**20, float(total) * 2**20)
    except (OSError, subprocess.SubprocessError, ValueError):
        return


def routes(settings: Settings) -> list[BaseRoute]:
    """Return the route."""

    @answer_errors
    def scrape(_request: Request) -> Response:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Figures(context.store(), settings, datetime.now(UTC)))
        headers = {"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"}
        return Response(generate_latest(registry), headers=headers)

    return [Route("/metrics", scrape)]
