"""What a network costs: ``python -m training.evaluate.costs`` measures the presets for slides."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from training import pages
from training.evaluate.split import SIDE
from wsi_denoise.network import denoiser, processor, weights
from wsi_denoise.network.irunet import IRUNet
from wsi_denoise.settings import ComputeSettings

WINDOW = 768
"""Side in pixels of the windows for the measurement of speed."""


def kmac(network: nn.Module) -> float:
    """Return thousands of multiply-accumulate operations per pixel."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, SIDE, SIDE))
    return counter.get_total_flops() / 2.0 / SIDE**2 / 1000.0


def speed(network: IRUNet, *, side: int = WINDOW, seconds: float = 2.0) -> tuple[float, str]:
    """Return megapixels per second of processor time on one thread, and a description of the daemon's plan used."""
    plan = denoiser.choose(ComputeSettings())
    run = denoiser.Denoiser(network, plan, callers=1)
    window = np.zeros((1, side, side, 3), np.uint8)
    run.denoise(window)
    passes, started = 0, time.process_time()
    while time.process_time() - started < seconds:
        run.denoise(window)
        passes += 1
    return passes * side**2 / 1e6 / (time.process_time() - started), str(plan)


def of_presets() -> list[dict[str, Any]]:
    """Return one row per preset for slides."""
    rows = []
    for card in weights.presets():
        if not card.not_for_slides:
            network = weights.load(card.name)
            rate, plan = speed(network)
            rows.append(
                {
                    "preset": card.name,
                    "filters": card.filters,
                    "parameters": card.parameters,
                    "kmac": round(kmac(network), 1),
                    "mpix_per_second": round(rate, 2),
                    "plan": plan,
                }
            )
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Write the table."""
    options = argparse.ArgumentParser(prog="python -m training.evaluate.costs", description=__doc__)
    options.add_argument("--table", type=Path, default=pages.TABLES / "costs.json", help="JSON to write")
    given = options.parse_args(arguments)
    pages.write_json(given.table, {"machine": processor.here().name, "rows": of_presets()})


if __name__ == "__main__":
    main()
