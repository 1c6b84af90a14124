"""Ask scheduler and workers which tasks they run, and end workers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from wsi_denoise.processing.dask.cluster import ANSWER_SECONDS, NO_ANSWER, Cluster

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """The state of scheduler and workers at one moment.

    Parameters
    ----------
    answered : bool
        Whether the scheduler answered.
    workers : mapping of str to str
        Address to status: ``running``, ``paused`` and so on.
    placed : mapping of str to str
        Task to the worker that the scheduler has assigned it to.
    executing : mapping of str to str
        Task to the place in the code where its thread is.
    silent : collection of str
        Workers that did not answer.
    """

    answered: bool
    workers: Mapping[str, str] = field(default_factory=dict)
    placed: Mapping[str, str] = field(default_factory=dict)
    executing: Mapping[str, str] = field(default_factory=dict)
    silent: Collection[str] = ()

    def runs(self, task: str) -> bool:
        """Return whether a worker runs this task, or may do so and is silent."""
        return task in self.executing or self.placed.get(task) in self.silent


def ask(cluster: Cluster) -> Seen:
    """Ask scheduler and workers what they do. Takes at most a minute."""
    client = cluster.client
    try:
        known: dict[str, Any] = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=ANSWER_SECONDS)[
            "workers"
        ]
        processing: dict[str, list[str]] = client.sync(
            client.scheduler.processing, workers=None, callback_timeout=ANSWER_SECONDS
        )
    except NO_ANSWER as error:
        _log.debug("no answer from the scheduler: %s", error)
        return Seen(answered=False)
    placed = {str(task): address for address, tasks in processing.items() for task in tasks}
    executing: dict[str, str] = {}
    silent = []
    try:
        stacks = client.sync(_stacks, client, sorted(known), callback_timeout=2 * ANSWER_SECONDS)
    except NO_ANSWER:
        stacks = dict.fromkeys(known)
    for address, stack in stacks.items():
        if stack is None:
            silent.append(address)
        else:
            executing |= {str(task): _place(frames) for task, frames in stack.items()}
    statuses = {address: str(facts.get("status", "unknown")) for address, facts in known.items()}
    return Seen(answered=True, workers=statuses, placed=placed, executing=executing, silent=silent)


async def _stacks(client: Any, addresses: list[str]) -> dict[str, Any]:
    """Ask each worker for the stacks of its tasks; None for one that does not answer."""

    async def one(address: str) -> Any:
        request = client.scheduler.broadcast(
            msg={"op": "call_stack", "keys": None}, workers=[address], on_error="ignore"
        )
        try:
            return (await asyncio.wait_for(request, ANSWER_SECONDS)).get(address)
        except (TimeoutError, OSError):
            return None

    answers = await asyncio.gather(*(one(address) for address in addresses))
    return dict(zip(addresses, answers, strict=True))


def _place(frames: Any) -> str:
    """Return the innermost place of a stack from Dask, in one line."""
    lines = [line.strip() for frame in frames or () for line in str(frame).splitlines() if "File " in line]
    return lines[-1] if lines else "an unknown place"


def restart(cluster: Cluster, addresses: list[str]) -> None:
    """End workers in any state. A nanny, or the operator of the cluster, starts new ones."""
    client = cluster.client
    try:
        client.sync(
            client.scheduler.restart_workers,
            workers=addresses,
            timeout=ANSWER_SECONDS,
            wait_for_workers=False,
            on_error="return",
            stimulus_id=f"wsi-denoise-{time.time()}",
            callback_timeout=3 * ANSWER_SECONDS,
        )
    except NO_ANSWER as error:
        _log.warning("ending workers: %s", error)


def at_work(cluster: Cluster, futures: Collection[Any]) -> dict[str, str]:
    """Return the names of those tasks that run or whose worker is silent, with the worker's address."""
    seen = ask(cluster)
    tasks = (str(future.key) for future in futures)
    return {task: seen.placed[task] for task in tasks if task in seen.placed and seen.runs(task)}


def end_task(cluster: Cluster, future: Any) -> bool:
    """End the worker that runs a task, and return whether there was one. A waiting task is kept."""
    working = at_work(cluster, [future])
    if working:
        _log.warning("a worker is ended: it was too long at %s", ", ".join(working))
        restart(cluster, sorted(working.values()))
    return bool(working)
