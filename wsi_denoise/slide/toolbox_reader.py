"""What only tiatoolbox reads (JPEG 2000 files), and tiatoolbox's import kept quiet.

Importing it takes seconds and a gigabyte, logs to standard output and redirects every warning of the process into its
own handlers. All of that stays in this room.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsi_denoise.errors import NotRGB, UnsupportedSlide
from wsi_denoise.slide import metadata
from wsi_denoise.slide.base import DecodeFailure, Pixels, Slide, SlideInfo

_import_lock = threading.Lock()
_once = threading.Lock()
_maskers: list[Any] = []


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Import tiatoolbox without its handlers on the root logger and without the warnings of what it imports."""
    root = logging.getLogger()
    with _import_lock:
        handlers, level, showwarning = list(root.handlers), root.level, warnings.showwarning
        # With a handler in place tiatoolbox adds none of its own.
        root.addHandler(logging.NullHandler())
        try:
            with warnings.catch_warnings():
                # Deprecations inside tiatoolbox's own dependencies: nothing that a user of this program can act on.
                warnings.simplefilter("ignore")
                try:
                    yield
                finally:
                    # It redirects all warnings to the log; undone only if it was not so before.
                    if warnings.showwarning is not showwarning:
                        logging.captureWarnings(capture=False)
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)


def otsu_masker() -> Any:
    """Return tiatoolbox's ``OtsuTissueMasker``.

    Its file is loaded by itself: the package around it imports every tool of tiatoolbox (**measured**: 28 s and
    1.2 GB against 7 s and 0.7 GB, most of the latter torch).
    """
    with _once:
        if not _maskers:
            with quiet_import():
                import tiatoolbox  # noqa: PLC0415

                file = Path(tiatoolbox.__path__[0]) / "tools" / "tissuemask.py"
                spec = importlib.util.spec_from_file_location("_tiatoolbox_tissuemask", file)
                assert spec is not None
                assert spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
            _maskers.append(module.OtsuTissueMasker)
        return _maskers[0]()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep tiatoolbox's remarks on missing metadata off the log: what is missing is in the slide's notes."""
    guard = _OnlyOurs()
    root = logging.getLogger()
    root.addFilter(guard)
    handlers = list(root.handlers)
    for handler in handlers:
        handler.addFilter(guard)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(guard)
        for handler in handlers:
            handler.removeFilter(guard)


class _OnlyOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "tiatoolbox" not in record.pathname


def open_toolbox(path: Path) -> Slide:
    """Open a slide with tiatoolbox.

    Raises
    ------
    UnsupportedSlide, NotRGB
    """
    with quiet_import():
        from tiatoolbox.wsicore.wsireader import WSIReader  # noqa: PLC0415

    try:
        with quiet():
            reader = WSIReader.open(path)
            info = reader.info
            sizes = tuple((int(width), int(height)) for width, height in info.level_dimensions)
    except Exception as error:  # tiatoolbox raises what each library below it happens to raise
        raise UnsupportedSlide(f"tiatoolbox cannot open it ({error})") from error
    mpp, notes = metadata.believed_mpp(
        *((None, None) if info.mpp is None else (float(info.mpp[0]), float(info.mpp[1])))
    )
    slide = ToolboxSlide(
        SlideInfo(
            path=path,
            width=sizes[0][0],
            height=sizes[0][1],
            mpp=mpp,
            objective_power=None,  # tiatoolbox guesses one from the resolution where the file states none
            levels=sizes,
            reader="tiatoolbox",
            notes=notes,
        ),
        reader,
    )
    try:
        slide.read(0, 0, 1, 1)
    except NotRGB:
        slide.close()
        raise
    return slide


class ToolboxSlide(Slide):
    """A slide read by a ``tiatoolbox.wsicore.wsireader.WSIReader``, one thread at a time."""

    def __init__(self, info: SlideInfo, reader: Any) -> None:
        self.info = info
        self._reader = reader
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the reader; it has no way to be closed."""
        self._reader = None

    def _read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        if self._reader is None:
            raise ValueError("the slide is closed")
        try:
            with self._lock, quiet():
                pixels = np.asarray(
                    self._reader.read_bounds(
                        (x, y, x + width, y + height), resolution=level, units="level", coord_space="resolution"
                    )
                )
        except OSError:
            raise
        except Exception as error:
            raise DecodeFailure(str(error) or type(error).__name__) from error
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] < 3:
            raise NotRGB(f"tiatoolbox gives {pixels.dtype} pixels of shape {pixels.shape}")
        if pixels.shape[:2] != (height, width):
            raise DecodeFailure(f"{pixels.shape[1]} x {pixels.shape[0]} px came back, not {width} x {height}")
        return np.ascontiguousarray(pixels[..., :3])
