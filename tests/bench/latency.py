"""Latency of one image of 96 x 96 px in the denoiser, as the paper counts: one at a time, warm.

    python tests/bench/latency.py [--preset paper] [--images 500]

Each way that this machine has (OpenVINO or torch, half precision or 32 bits, CPU or GPU), on one thread of a CPU:
median, and 95th percentile. The image goes in and comes out as 8-bit RGB; there is no halo, which a slide's windows
have.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Iterator

import numpy as np
from memory import machine

from wsi_denoise.errors import SettingsInvalid
from wsi_denoise.network.denoiser import Denoiser, choose, cpu_has_bf16
from wsi_denoise.network.plan import Plan
from wsi_denoise.settings import ComputeSettings
from wsi_denoise.slide import demo
from wsi_denoise.slide.geometry import PATCH

PAPER = 0.03
"""Seconds an image that the paper gives, for a GPU."""


def plans() -> Iterator[Plan]:
    """Yield every way of running the network that there is here."""
    for backend in ("openvino", "torch"):
        if backend == "openvino" and importlib.util.find_spec("openvino") is None:
            continue
        for precision in ("bf16", "fp32"):
            if precision == "fp32" or cpu_has_bf16(backend):
                yield Plan("cpu", backend, precision, 1, 1)
    try:
        yield choose(ComputeSettings(device="cuda"))
    except SettingsInvalid:
        return


def seconds(plan: Plan, preset: str, images: int) -> list[float]:
    """Return the time of each image."""
    denoiser = Denoiser(preset, plan)
    tissue = demo.tissue()
    places = np.random.default_rng(1).integers(0, min(tissue.shape[:2]) - PATCH, (images + 20, 2))
    found = []
    for y, x in places:
        image = tissue[None, y : y + PATCH, x : x + PATCH].copy()
        begun = time.perf_counter()
        denoiser.denoise(image)
        found.append(time.perf_counter() - begun)
    return found[20:]  # the first ones compile


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--images", type=int, default=500)
    given = parser.parse_args()
    print(f"{machine()}; {given.images} images of {PATCH} x {PATCH} px, preset {given.preset}; the paper: {PAPER} s\n")
    print("| | median, ms | 95 %, ms | the paper's to the median |\n|---|---|---|---|")
    for plan in plans():
        found = seconds(plan, given.preset, given.images)
        median, most = statistics.median(found), statistics.quantiles(found, n=20)[-1]
        name = f"{plan.device}, {plan.backend}, {plan.precision}"
        print(f"| {name} | {median * 1000:.2f} | {most * 1000:.2f} | {PAPER / median:.1f} |", flush=True)


if __name__ == "__main__":
    main()
