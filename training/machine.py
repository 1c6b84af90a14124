"""What machine a figure was taken on, as the machine names itself."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")


def processor() -> str:
    """Return the processor's name."""
    lines = CPUINFO.read_text("utf-8").splitlines() if CPUINFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, names), "") or platform.processor() or platform.machine()


def described(threads: int, device: str = "cpu") -> str:
    """Return a line for a model card.

    Parameters
    ----------
    threads : int
        That were used.
    device : str
        ``cpu`` or ``cuda``.
    """
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, {processor()}"
    return f"{threads} of {os.cpu_count()} cores of {processor()}; no GPU"
