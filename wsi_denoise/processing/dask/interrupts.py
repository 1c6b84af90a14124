"""Keep Ctrl-C away from worker processes, and Python's own warnings away from the terminal.

A terminal sends SIGINT to every process of its group. A worker that gets it dies in the middle of a block, or prints a
traceback while it starts. Only the main process handles the signal, and then closes its workers.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from types import FrameType

#: The resource tracker of multiprocessing cleans up what a killed process left, and also warns about it. The warning
#: means nothing to a user: a second stop signal is meant to kill. https://docs.python.org/3/library/multiprocessing.html
_TRACKER_FILTER = "ignore:resource_tracker:UserWarning"


def silence_resource_tracker() -> None:
    """Add a warning filter to the environment of processes that start from now on."""
    filters = [text for text in os.environ.get("PYTHONWARNINGS", "").split(",") if text]
    if _TRACKER_FILTER not in filters:
        # The last filter wins, as with -W.
        os.environ["PYTHONWARNINGS"] = ",".join([*filters, _TRACKER_FILTER])


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Start processes and threads that never receive SIGINT, and handle one that arrives here at the end.

    The signal mask is inherited: threads started inside keep SIGINT blocked, and so do the processes that those threads
    start later, such as a worker that replaces a dead one.
    """
    # The first process that multiprocessing spawns starts the tracker, and that unblocks SIGINT in the thread it is in:
    # https://github.com/python/cpython/blob/3.11/Lib/multiprocessing/resource_tracker.py
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    arrived: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
    if threading.current_thread() is threading.main_thread():
        # Another thread may still receive the signal, and Python handles it in this one.
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.getsignal(number)
            signal.signal(number, lambda number, frame: arrived.append((number, frame)))
    try:
        yield
    finally:
        # A handler that is restored may raise at once. Neither the mask nor the other handler is left behind then.
        with ExitStack() as restored:
            for held, handler in handlers.items():
                restored.callback(signal.signal, held, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for received, frame in arrived:
            handler = handlers[received]
            if callable(handler):
                handler(received, frame)
            elif handler == signal.SIG_DFL:
                signal.raise_signal(received)
