"""Settings: names, defaults, the origin of each value, and the ones that change pixels."""

from wsi_denoise.settings.model import (
    ComputeSettings,
    DashboardSettings,
    IntakeSettings,
    JobsSettings,
    LimitSettings,
    LogSettings,
    OutputSettings,
    Settings,
    allowed_values,
    table,
)
from wsi_denoise.settings.sources import FILE_NAME, PREFIX, Loaded, load

__all__ = [
    "FILE_NAME",
    "PREFIX",
    "ComputeSettings",
    "DashboardSettings",
    "IntakeSettings",
    "JobsSettings",
    "LimitSettings",
    "Loaded",
    "LogSettings",
    "OutputSettings",
    "Settings",
    "allowed_values",
    "load",
    "table",
]
