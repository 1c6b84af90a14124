"""Description of the machine on which a figure was measured."""

from __future__ import annotations

import os

import torch

from wsi_denoise.network import processor


def described(threads: int, device: str = "cpu") -> str:
    """Return a line for a model card; the device is ``cpu`` or ``cuda``."""
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, {processor.here().name}"
    return f"{threads} of {os.cpu_count()} cores of {processor.here().name}; no GPU"
