"""Slides named on the command line that have no job."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from wsi_denoise.errors import WsiDenoiseError
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import Job


@dataclass(frozen=True)
class NotRun:
    """A slide without a job, and the error that prevented one.

    Parameters
    ----------
    slide : str
        Absolute path.
    """

    slide: str
    failure: WsiDenoiseError
    state: JobState = JobState.FAILED

    @property
    def error_code(self) -> str:
        """Stable name of the error."""
        return self.failure.code

    @property
    def error(self) -> str:
        """Complete text of the error."""
        return str(self.failure)

    def to_json(self) -> dict[str, Any]:
        """Return the same keys as for a job, with None for values that only a job has."""
        known = {"slide": self.slide, "state": self.state.value, "error_code": self.error_code, "error": self.error}
        return {**dict.fromkeys(field.name for field in fields(Job)), **known}
