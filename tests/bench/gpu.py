"""What a device does with the network, by window and batch; the program end to end; and what limits either.

    python tests/bench/gpu.py --folder /tmp/bench                                  # the GPU, where there is one
    python tests/bench/gpu.py --folder /tmp/bench --device cpu --backend torch     # the same path on the CPU

1. *Network*: windows of 8 bits that lie in memory go to the device and come back, from as many threads as a worker has,
   so that copies and computing overlap as they do in a job. Rates in pixels that are kept, the halo's taken out. A
   batch that the device has no memory for is reported as such.
2. *Profile*: torch's profiler on the quickest of these: where its time goes, on the device and before it.
3. *End to end*: ``wsi-denoise run`` on a made slide, all of it tissue, start-up taken out; and the time of each stage
   in all threads together. The stage that comes near threads times clock is what limits.

Aims for an H100 with 16 cores: 1 GPix/s for the network, 0.5 GPix/s end to end.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import large_slide
import numpy as np
from memory import IDLE_SIDE, STAGES, denoise, machine
from numpy.typing import NDArray

from wsi_denoise.errors import DeviceOutOfMemory, SettingsInvalid
from wsi_denoise.network.denoiser import Denoiser, choose, describe_device
from wsi_denoise.network.plan import Plan
from wsi_denoise.settings import ComputeSettings
from wsi_denoise.slide import demo
from wsi_denoise.slide.geometry import PATCH

ROWS = 14
"""Of the profile."""


@dataclass(frozen=True)
class Rate:
    """What one way of feeding the device gave.

    Parameters
    ----------
    window, batch : int
        Side of a window in patches, without halo; windows a batch.
    kept, computed : float
        Megapixels a second on the clock; 0 where the device had no memory.
    """

    window: int
    batch: int
    kept: float
    computed: float


def windows_of(window: int, batch: int, halo: int) -> NDArray[np.uint8]:
    """Return a batch of real tissue, (batch, side, side, 3), each window another part of it."""
    tissue, side = demo.tissue(), window * PATCH + 2 * halo
    repeats = -(-(side + batch) // min(tissue.shape[:2]))
    large = np.tile(tissue, (repeats, repeats, 1))
    return np.stack([large[at : at + side, at : at + side] for at in range(batch)])


def rate(plan: Plan, preset: str, halo: int, threads: int, seconds: float) -> Rate:
    """Feed batches from several threads for some seconds, and return the rate."""
    windows = windows_of(plan.window, plan.batch, halo)
    denoiser = Denoiser(preset, plan, callers=threads)

    def feed(end: float) -> int:
        done = 0
        while time.perf_counter() < end or not done:
            denoiser.denoise(windows)
            done += 1
        return done

    try:
        denoiser.denoise(windows)  # compiles, and allocates
        with ThreadPoolExecutor(threads) as pool:
            begun = time.perf_counter()
            done = sum(pool.map(feed, [begun + seconds] * threads))
            clock = time.perf_counter() - begun
    except DeviceOutOfMemory:
        return Rate(plan.window, plan.batch, 0.0, 0.0)
    kept = plan.batch * (plan.window * PATCH) ** 2 / 1e6
    return Rate(plan.window, plan.batch, done * kept / clock, done * windows.size / 3e6 / clock)


def rates(
    plan: Plan, preset: str, halo: int, threads: int, seconds: float, shapes: Sequence[tuple[int, int]]
) -> Iterator[Rate]:
    """Yield the rate of each (window, batch)."""
    for window, batch in shapes:
        yield rate(replace(plan, window=window, batch=batch), preset, halo, threads, seconds)


def profile(plan: Plan, preset: str, halo: int) -> str:
    """Return the table of torch's profiler for three batches; OpenVINO's work does not show in it."""
    from torch.profiler import ProfilerActivity  # noqa: PLC0415 - seconds
    from torch.profiler import profile as watch  # noqa: PLC0415

    windows = windows_of(plan.window, plan.batch, halo)
    denoiser = Denoiser(preset, plan)
    denoiser.denoise(windows)
    on_gpu = plan.device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with watch(activities=activities) as seen:
        for _ in range(3):
            denoiser.denoise(windows)
    by = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    return str(seen.key_averages().table(sort_by=by, row_limit=ROWS, max_name_column_width=48))


def end_to_end(folder: Path, side: int, sets: Sequence[str]) -> str:
    """Return a table of the program on a made slide."""
    slides = {}
    for length in (IDLE_SIDE, side):
        slides[length] = folder / f"tissue-{length}.tiff"
        if not slides[length].exists():
            large_slide.write(slides[length], length, share=1.0)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        everything = ("tissue.mode=all", *sets)
        idle = denoise(slides[IDLE_SIDE], IDLE_SIDE, Path(work) / "idle", everything)
        whole = denoise(slides[side], side, Path(work) / "whole", everything)
    # The job's own clock: processes that start and end are not the machine's rate.
    took = whole.job["provenance"]["seconds"]
    start = idle.job["provenance"]["seconds"]
    clock = took["total"] - start["total"]
    lines = ["| | seconds |", "|---|---|", f"| on the clock, from plan to name, less start-up | {clock:.2f} |"]
    lines += [f"| {stage}, all threads | {took.get(stage, 0.0) - start.get(stage, 0.0):.2f} |" for stage in STAGES]
    lines.append(f"| processor time of all processes, less start-up | {whole.processor - idle.processor:.2f} |")
    megapixels = whole.megapixels - idle.megapixels
    return "\n".join([*lines, f"\nend to end: {megapixels / max(clock, 1e-9) / 1e3:.3g} GPix/s"])


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="slides are made here once, and kept")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--backend", choices=("auto", "torch", "openvino"), default="auto")
    parser.add_argument("--windows", type=int, nargs="+", default=[8, 16], help="sides in patches")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], help="windows a batch")
    parser.add_argument("--threads", type=int, default=2, help="that feed one device")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each shape")
    parser.add_argument("--side", type=int, default=16_000, help="of the slide in pixels; 0 leaves end to end out")
    given = parser.parse_args()
    compute = ComputeSettings(device=given.device, backend=given.backend)
    try:
        plan = choose(compute)
    except SettingsInvalid as error:
        print(error)
        return 2
    given.folder.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}; {describe_device(compute, 'paper')}; load {os.getloadavg()[0]:.1f}\n")
    print("| window, patches | windows a batch | kept, GPix/s | computed, GPix/s |\n|---|---|---|---|")
    shapes = [(window, batch) for window in given.windows for batch in given.batches]
    found = []
    for one in rates(plan, given.preset, compute.halo, given.threads, given.seconds, shapes):
        found.append(one)
        values = f"{one.kept / 1e3:.6f} | {one.computed / 1e3:.6f}" if one.kept else "no memory | "
        print(f"| {one.window} | {one.batch} | {values} |", flush=True)
    best = max(found, key=lambda one: one.kept)
    print(f"\nnetwork: {best.kept / 1e3:.4f} GPix/s with windows of {best.window} patches, {best.batch} a batch\n")
    if plan.backend == "torch":
        print(profile(replace(plan, window=best.window, batch=best.batch), given.preset, compute.halo))
    if given.side:
        sets = [f"compute.{name}={value}" for name, value in (("device", given.device), ("backend", given.backend))]
        sets += [f"compute.window={best.window}", f"compute.batch={best.batch}", f"model.preset={given.preset}"]
        print(end_to_end(given.folder, given.side, sets))
    return 0


if __name__ == "__main__":
    sys.exit(main())
