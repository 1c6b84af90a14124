"""tiatoolbox's tissue masker, and tiatoolbox's import kept quiet.

Importing it takes seconds and a gigabyte, logs to standard output and redirects every warning of the process into its
own handlers. All of that stays in this module.
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

_import_lock = threading.Lock()
_once = threading.Lock()
_maskers: list[Any] = []


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Import tiatoolbox without its handlers on the root logger and without the warnings of what it imports."""
    root = logging.getLogger()
    with _import_lock:
        handlers, level, showwarning = list(root.handlers), root.level, warnings.showwarning
        # It imports numcodecs, which logs a line for each of its codecs.
        logging.getLogger("numcodecs").setLevel(logging.WARNING)
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
