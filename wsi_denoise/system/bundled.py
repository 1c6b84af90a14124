"""Packages that a checkout has beside ``wsi_denoise`` and an installed wheel has in ``wsi_denoise/bundled``.

Their names, ``dashboard`` and ``migrations``, are too general for site-packages.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import ModuleType


def folder() -> Path:
    """Return the folder that holds ``dashboard`` and ``migrations``."""
    package = Path(str(files("wsi_denoise")))
    bundled = package / "bundled"
    return bundled if bundled.is_dir() else package.parent


def module(name: str) -> ModuleType:
    """Import a module of the dashboard by its name, which no import in this package may state."""
    # First, because a package of the same name may be installed.
    if (place := str(folder())) not in sys.path:
        sys.path.insert(0, place)
    return import_module(name)
