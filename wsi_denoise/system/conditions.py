"""Log lines for conditions that last: one when a condition begins, changes or ends, none for each check in between.

A share or a database that is away is checked every few seconds, and would fill the log with 17,000 equal lines a day.
"""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass, field

from wsi_denoise.errors import WsiDenoiseError


@dataclass
class Conditions:
    """The failures that one component has logged and that still last.

    Parameters
    ----------
    log : logging.Logger
    """

    log: logging.Logger
    _last: dict[str, tuple[str, int]] = field(default_factory=dict)

    def failed(self, subject: str, error: Exception) -> bool:
        """Log a failure, unless the last one of this subject was of the same kind, and return whether it was logged.

        Parameters
        ----------
        subject : str
            What failed, as the log names it.
        error : Exception
            An unforeseen one is logged with its traceback.
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
        """Log the end of a failure, if there was one."""
        _, count = self._last.pop(subject, ("", 0))
        if count:
            self.log.info("%s: works again after %d failure%s", subject, count, "" if count == 1 else "s")


def _kind(error: Exception) -> str:
    if isinstance(error, WsiDenoiseError):
        return error.code  # details vary, as a port or a duration does
    place = traceback.extract_tb(error.__traceback__)[-1:]
    return f"{type(error).__name__} {[(frame.filename, frame.lineno) for frame in place]}"
