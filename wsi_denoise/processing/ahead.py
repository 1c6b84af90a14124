"""The plan of the next slide, made while the current one is finished.

Opening a slide and finding its tissue takes one worker; the others have nothing to do meanwhile. It is a guess what the
next slide will be: a plan that was made in vain, or failed, is dropped, and the slide is planned when its turn comes.
"""

from __future__ import annotations

import time
from typing import Any

from wsi_denoise.processing import remote, waiting
from wsi_denoise.processing.cluster import Cluster


class Ahead:
    """At most one plan that is made or was made for later.

    Parameters
    ----------
    cluster : Cluster
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._wanted: tuple[Any, ...] | None = None
        self._future: Any = None
        self._begun = 0.0
        self._hung: tuple[Any, ...] | None = None

    def begin(self, *wanted: Any) -> None:
        """Have a slide planned, with the arguments of :func:`wsi_denoise.processing.tasks.plan_slide`."""
        if wanted in (self._wanted, self._hung):
            return
        self.drop()
        # After the blocks that wait: they are of a slide whose turn it is.
        self._future, self._wanted = self._cluster.call(remote.plan_slide, *wanted, priority=-1), wanted
        self._begun = time.monotonic()

    def check(self, seconds: float) -> bool:
        """End the worker that is at the plan for longer than that, since the slide whose turn it is waits for it.

        Returns
        -------
        bool
            Whether one was ended, and with it what else it was to do. That slide is not planned ahead again.
        """
        if self._future is None or self._future.done() or time.monotonic() - self._begun < seconds:
            return False
        if not waiting.end_task(self._cluster, self._future):
            self._begun = time.monotonic()  # nobody has begun it yet
            return False
        self._hung = self._wanted
        self.drop()
        return True

    def take(self, *wanted: Any) -> Any:
        """Return the task that plans just this, under way or done, or None; it is the caller's then."""
        if wanted != self._wanted or self._future.status in {"error", "cancelled", "lost"}:
            self.drop()
            return None
        future, self._future, self._wanted = self._future, None, None
        return future

    def drop(self) -> None:
        """Forget the plan: while a block is suspected of killing its worker, nothing else is to run."""
        if self._future is not None:
            self._cluster.drop([self._future])
        self._future = self._wanted = None
