"""Values used last, up to a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps the values used last. Safe to use from several threads.

    Parameters
    ----------
    limit : int
        Most values, or most of what `size` counts.
    size : callable, optional
        From a value to its size, such as ``len`` for bytes.
    """

    def __init__(self, limit: int, size: Callable[[Any], int] = lambda _: 1) -> None:
        self._limit, self._size = limit, size
        self._lock = threading.Lock()
        self._values: OrderedDict[K, V] = OrderedDict()
        self.size = 0

    def get(self, key: K) -> V | None:
        """Return a value if it is kept."""
        with self._lock:
            found = self._values.get(key)
            if found is not None:
                self._values.move_to_end(key)
            return found

    def put(self, key: K, value: V) -> None:
        """Keep a value, and drop those used longest ago."""
        with self._lock:
            self._drop(key)
            self._values[key] = value
            self.size += self._size(value)
            while self.size > self._limit:
                self._drop(next(iter(self._values)))

    def drop(self, unwanted: Callable[[K], bool]) -> None:
        """Drop the values of some keys."""
        with self._lock:
            for key in list(filter(unwanted, self._values)):
                self._drop(key)

    def _drop(self, key: K) -> None:
        if key in self._values:
            self.size -= self._size(self._values.pop(key))

    def __len__(self) -> int:
        with self._lock:
            return len(self._values)
