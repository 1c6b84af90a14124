"""Wake up the scan on file events. They are only hints: changes by other clients of a share send no events."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver

_log = logging.getLogger(__name__)

CALM_SECONDS = 1.0
"""A slow copy sends thousands of events: one scan a second answers all of them."""


class Hints:
    """Wake up a waiting thread when something changes below a folder.

    Parameters
    ----------
    events : bool
        ``intake.events``. Without it, only :meth:`wake` and :meth:`close` end a wait early.
    """

    def __init__(self, *, events: bool) -> None:
        self._events = events
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._observers: dict[Path, BaseObserver] = {}
        self._refused: set[Path] = set()

    def listen(self, folders: Iterable[Path]) -> None:
        """Listen to these folders and to no others. A folder without events is logged once; polling continues."""
        wanted = set(folders) if self._events and not self._closed.is_set() else set()
        for folder in set(self._observers) - wanted:
            # It may be mounted again when it is back: the old watch would receive nothing.
            self._stop(self._observers.pop(folder))
        self._refused &= wanted
        for folder in wanted - set(self._observers) - self._refused:
            self._start(folder)

    def wait(self, seconds: float) -> bool:
        """Sleep until something changes, at most `seconds`. Return whether something has changed."""
        start = time.monotonic()
        changed = self._changed.wait(seconds)
        if changed and not self._closed.is_set():
            self._closed.wait(max(0.0, min(CALM_SECONDS, seconds) - (time.monotonic() - start)))
        self._changed.clear()
        return changed

    def wake(self) -> None:
        """End a wait now."""
        self._changed.set()

    def close(self) -> None:
        """Stop listening, and end waits."""
        self._closed.set()
        self._changed.set()
        for folder in list(self._observers):
            self._stop(self._observers.pop(folder))

    @staticmethod
    def _stop(observer: BaseObserver) -> None:
        observer.stop()
        observer.join(5.0)

    def _start(self, folder: Path) -> None:
        # Late import: the command line imports this package and must stay quick.
        from watchdog import events  # noqa: PLC0415
        from watchdog.observers import Observer  # noqa: PLC0415

        handler = events.FileSystemEventHandler()
        handler.on_any_event = lambda event: self._changed.set()  # type: ignore[method-assign]  # noqa: ARG005
        # Without events of reading: a scan would wake up the next scan.
        kinds: list[type[events.FileSystemEvent]] = [
            *(events.FileCreatedEvent, events.FileModifiedEvent, events.FileMovedEvent, events.FileDeletedEvent),
            *(events.FileClosedEvent, events.DirCreatedEvent, events.DirMovedEvent, events.DirDeletedEvent),
        ]
        observer = Observer()
        try:
            observer.schedule(handler, str(folder), recursive=True, event_filter=kinds)
            observer.start()
        except (OSError, RuntimeError) as error:
            # OSError: the limit on inotify watches; RuntimeError: no thread can be started.
            self._refused.add(folder)
            _log.warning("no file events (%s): slides are found by polling alone; see docs/it/inbox.md", error)
            if observer.is_alive():
                self._stop(observer)
            return
        self._observers[folder] = observer
