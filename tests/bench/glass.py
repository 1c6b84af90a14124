"""What glass saves: a slide that is a third tissue against the same slide processed whole.

    python tests/bench/glass.py --folder /tmp/bench                      # 20000 x 20000 px, 30 % of its patches tissue
    python tests/bench/glass.py --folder /tmp/bench --side 10000

The slide is made by ``large_slide.py``; its glass is noisy and is kept all the same (``tissue.background=keep``).
*Tissue* is the share of patches that go through the network, which is more than what is drawn as tissue: the mask is
widened by a patch. Processor time is the kernel's account of all processes; a small slide is start-up, and subtracted:
for either way its own, since what finds the tissue is loaded for one of them only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

import large_slide
from memory import IDLE_SIDE, Run, denoise, machine

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
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    slide = given.folder / f"glass-{given.side}-{given.share}.tiff"
    idle = given.folder / f"{IDLE_SIDE}.tiff"
    if not slide.exists():
        large_slide.write(slide, given.side, share=given.share)
    if not idle.exists():
        large_slide.write(idle, IDLE_SIDE)
    work = given.folder / f"work-{os.getpid()}"
    everything = "tissue.mode=all"
    start, part = run(idle, IDLE_SIDE, work), run(slide, given.side, work)
    start_whole, whole = run(idle, IDLE_SIDE, work, everything), run(slide, given.side, work, everything)
    print(f"{machine()}; {given.side} x {given.side} px; load {os.getloadavg()[0]:.1f}\n")
    print("| | patches through the network | processor, s | of it start-up | clock, s |\n|---|---|---|---|---|")
    for name, small, one in (("as it is", start, part), ("all of it", start_whole, whole)):
        metrics = one.job["metrics"]
        share = metrics["tissue_patches"] / metrics["patches"]
        print(f"| {name} | {share:.0%} | {one.processor:.1f} | {small.processor:.1f} | {one.clock:.0f} |")
    ratio = (part.processor - start.processor) / (whole.processor - start_whole.processor)
    print(f"\nprocessor time of the first to the second, start-up excluded: {ratio:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
