"""What glass saves: a slide that is a third tissue against the same slide processed whole.

    python tests/bench/glass.py --folder /tmp/bench                      # 20000 x 20000 px, 30 % of its patches tissue
    python tests/bench/glass.py --folder /tmp/bench --side 10000 --rounds 3

The slide is made by ``large_slide.py``; its glass is noisy and is kept anyway (``tissue.background=keep``).
*Tissue* is the share of patches that go through the network, which is more than what is drawn as tissue: the mask is
widened by a patch. Processor time is the kernel's account of all processes; a small slide is start-up, and subtracted:
for either way its own, since what finds the tissue is loaded for one of them only. Stages are on the clock, of all
threads together.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from statistics import median

import large_slide
from memory import IDLE_SIDE, STAGES, Run, denoise, machine, typical

SHARE = 0.26
"""Drawn as tissue, so that the widened mask holds about 30 % of a slide of 20000 px."""


def run(slide: Path, side: int, folder: Path, *sets: str) -> Run:
    """Denoise a slide in a folder that is removed afterwards."""
    try:
        return denoise(slide, side, folder, sets)
    finally:
        shutil.rmtree(folder)


def main() -> int:
    """Run both ways, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="slides are made here once, and kept")
    parser.add_argument("--side", type=int, default=20_000, help="width and height of the slide in pixels")
    parser.add_argument("--share", type=float, default=SHARE, help="drawn as tissue, at most a third")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    slide = given.folder / f"glass-{given.side}-{given.share}.tiff"
    idle = given.folder / f"{IDLE_SIDE}.tiff"
    if not slide.exists():
        large_slide.write(slide, given.side, share=given.share)
    if not idle.exists():
        large_slide.write(idle, IDLE_SIDE)
    work = given.folder / f"work-{os.getpid()}"
    ways: dict[str, tuple[str, ...]] = {"as it is": (), "all of it": ("tissue.mode=all",)}
    found: dict[str, list[tuple[Run, Run]]] = {name: [] for name in ways}
    ratios = []
    for _ in range(given.rounds):
        for name, sets in ways.items():
            found[name].append((run(idle, IDLE_SIDE, work, *sets), run(slide, given.side, work, *sets)))
        (start, part), (start_whole, whole) = (pairs[-1] for pairs in found.values())
        ratios.append((part.processor - start.processor) / (whole.processor - start_whole.processor))
    print(f"{machine()}; {given.side} x {given.side} px; load {os.getloadavg()[0]:.1f}; medians of {given.rounds}\n")
    print(f"| | patches through the network | processor, s | of it start-up | {' | '.join(STAGES)} | clock, s |")
    print("|---" * (5 + len(STAGES)) + "|")
    for name, pairs in found.items():
        small, one = (typical(runs) for runs in zip(*pairs, strict=True))
        metrics, took = one.job["metrics"], one.job["provenance"]["seconds"]
        share = metrics["tissue_patches"] / metrics["patches"]
        stages = " | ".join(f"{took[stage]:.1f}" for stage in STAGES)
        print(f"| {name} | {share:.0%} | {one.processor:.1f} | {small.processor:.1f} | {stages} | {one.clock:.0f} |")
    print(
        "\nprocessor time of the first to the second, start-up excluded:"
        f" {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
