"""Interpret an error of reading a slide, after a check whether the slide and its place are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from wsi_denoise.errors import SlideError, SlideVanished, SourceError, SourceUnavailable, WsiDenoiseError
from wsi_denoise.intake.scan import is_gone
from wsi_denoise.intake.sniff import shown
from wsi_denoise.system.mounts import Places


def diagnose(
    error: WsiDenoiseError,
    path: Path,
    inboxes: Sequence[Path],
    *,
    check: Callable[[], object],
    recorded: Callable[[], str | None],
) -> WsiDenoiseError:
    """Return the error that a job ends or waits with.

    Parameters
    ----------
    error : WsiDenoiseError
        Error of a worker or of this process. An error that is not about the slide is returned unchanged.
    path : Path
        The slide.
    check : callable
        Raises SourceError when the slide differs from the fingerprinted one.
    recorded : callable
        Returns the place where the slide was seen.
    """
    if not isinstance(error, SlideError | SlideVanished):
        return error
    try:
        check()
    except SlideVanished as missing:
        doubt = Places(inboxes).doubt(path, recorded())
        if not doubt and not is_gone(path):
            doubt = f"{shown(path.name)} was missing for a moment"  # a share that came back in between
        return SourceUnavailable(doubt) if doubt else missing
    except SourceError as other:  # the place cannot be read, or the slide was replaced
        return other
    except SlideError:
        return error
    if isinstance(error, SlideVanished):
        return SourceUnavailable(f"a worker does not find {shown(path.name)}, which is there")
    return error
