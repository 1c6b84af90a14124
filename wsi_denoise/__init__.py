"""Denoise whole-slide images dropped into a folder, with evidence per slide. Research use only, derived images."""

import sys

# On import, OpenVINO posts to an analytics service and writes to ~/intel, through the package openvino_telemetry.
# Where that package cannot be imported, OpenVINO uses a stub. This line is obsolete when
# tests/acceptance/test_isolation.py passes without it.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__version__ = "0.1.0"
NOTICE = "research use only, derived image"
