"""Log lines for lasting failures: one when a failure begins, changes or ends.

A missing share or database is checked every few seconds, and would otherwise add 17,000 equal lines a day to the log.
"""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass, field

from wsi_denoise.errors import WsiDenoiseError


@dataclass
class Conditions:
    """The lasting failures that one component has logged."""

    log: logging.Logger
    _last: dict[str, tuple[str, int]] = field(default_factory=dict)

    def failed(self, subject: str, error: Exception) -> bool:
        """Log a failure, unless the last one of this subject was of the same kind. Return whether it was logged.

        Parameters
        ----------
        subject : str
            Name of the failed component in the log.
        error : Exception
            Any other than a WsiDenoiseError is logged with its traceback.
        """
        kind = _kind(error)
        before, count = self._last.get(subject, ("", 0))
        self._last[subject] = kind, count + 1
        if kind == before:
            return False
        if isinstance(error, WsiDenoiseError):
            self.log.warning("%s: %s", subject, error)
        else:
            self.log.error("%s: unforeseen error", subject, exc_info=error)
        return True

    def works(self, subject: str) -> None:
        """Log the end of a failure if one was logged."""
        _, count = self._last.pop(subject, ("", 0))
        if count:
            self.log.info("%s: works again after %d failure%s", subject, count, "" if count == 1 else "s")


def _kind(error: Exception) -> str:
    if isinstance(error, WsiDenoiseError):
        return error.code  # details vary, such as a port or a duration
    place = traceback.extract_tb(error.__traceback__)[-1:]
    return f"{type(error).__name__} {[(frame.filename, frame.lineno) for frame in place]}"
