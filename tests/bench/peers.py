"""The same network on the same slide through what a user would pick otherwise, in one run.

    python tests/bench/peers.py --folder /tmp/bench                  # 7680 x 7680 px, all of it tissue
    python tests/bench/peers.py --folder /tmp/bench --rounds 5 --only network ours

* ``network``: our network on windows that lie in memory, the same and as many as ``ours`` has, and nothing else.
* ``ours``: ``wsi-denoise run``, as it is; ``ours, torch``: the same without OpenVINO, in fp32.
* ``plain``: the script that one writes in an afternoon: OpenSlide's ``read_region``, torch in fp32, tifffile.
* ``tiatoolbox``: its ``SemanticSegmentor`` engine with our network, which merges the windows into a Zarr array.
* ``copy``: the slide to a new pyramid through libvips (``pip install pyvips[binary]``), without a network: the floor
  for reading and writing.

All have the same halo and two threads; the windows of ``plain`` and ``tiatoolbox`` are of 8 patches, which torch does
as quickly as larger ones, and ours as the program chooses them. What each does beside that is in
docs/evidence/performance.md: ours measures, verifies and keeps what is needed to resume. Each runs as a program of
its own, first on a small slide, which is start-up and is subtracted; processor time is the kernel's account of all its
processes. Rounds are interleaved, and the median of each contender's ratio to ``ours`` in the same round is given with
its range. At the end stands how much of the core's peak in bfloat16 matrices (one thread of torch, the best of several
sizes) the network alone uses.
"""

# ruff: noqa: PLC0415 - each contender imports its own libraries, and none of the others

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import large_slide
import numpy as np
from memory import machine

SMALL, PRESET = 3072, "paper"
"""Four whole blocks: every worker has loaded all that it needs."""

Pair = tuple["Cost", "Cost"]
WINDOW, HALO = 768, 48
THREADS = 2


def ours(slide: Path, folder: Path, *sets: str) -> None:
    """Run the program itself."""
    command = [
        str(Path(sys.executable).with_name("wsi-denoise")),
        "run",
        str(slide),
        "--set",
        "tissue.mode=all",
        "--preset",
        "paper",
    ]
    command += [part for value in sets for part in ("--set", value)]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def network(slide: Path, _folder: Path) -> None:
    """Run the windows of a slide without reading, measuring or writing anything."""
    from concurrent.futures import ThreadPoolExecutor

    import tifffile

    from wsi_denoise.network.denoiser import Denoiser, choose
    from wsi_denoise.settings import ComputeSettings
    from wsi_denoise.slide import demo
    from wsi_denoise.slide.geometry import Lattice

    with tifffile.TiffFile(slide) as tiff:
        height, width = tiff.pages.first.shape[:2]
    plan, tissue = choose(ComputeSettings(device="cpu")), demo.tissue()
    denoiser = Denoiser(PRESET, plan, callers=THREADS)

    def denoise(window: tuple[int, int, bool]) -> None:
        width, height, fitted = window
        repeats = -(-max(width, height) // len(tissue))
        denoiser.denoise(np.tile(tissue, (repeats, repeats, 1))[None, :height, :width].copy(), fitted=fitted)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(denoise, computed(Lattice(width, height), plan)))


def computed(lattice: Any, plan: Any) -> Iterator[tuple[int, int, bool]]:
    """Yield (width, height, fitted) of each window of a slide that is all tissue, in pixels with the halo."""
    from wsi_denoise.slide.windows import cover

    for block in lattice.blocks():
        rows, columns = lattice.patches(block)
        needed = np.ones((rows.stop - rows.start, columns.stop - columns.start), np.bool_)
        covered = cover(lattice.region(block), needed, plan.sides, HALO, plan.fitted)
        for windows, fitted in ((covered.whole, False), (covered.fitted, True)):
            for window in windows:
                yield *window.grown(HALO).size, fitted


def operations() -> float:
    """Return the network's multiplications and additions for a pixel."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from wsi_denoise.network import weights

    side = 192
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        weights.load(PRESET)(torch.zeros(1, 3, side, side))
    return float(counted.get_total_flops()) / side**2


def peak() -> float:
    """Return operations a second of one thread that multiplies matrices in bfloat16."""
    import torch

    torch.set_num_threads(1)
    best = 0.0
    for side in (512, 1024, 2048):
        a, b = (torch.randn(side, side).bfloat16() for _ in range(2))
        for _ in range(5):
            begun = time.process_time()
            for _ in range(max(1, 2048 // side)):
                a @ b
            best = max(best, 2 * side**3 * max(1, 2048 // side) / (time.process_time() - begun))
    return best


def ours_torch(slide: Path, folder: Path) -> None:
    """Run the program without OpenVINO."""
    ours(slide, folder, "compute.backend=torch", "compute.precision=fp32")


def _denoiser() -> Callable[[Any], Any]:
    import torch

    from wsi_denoise.network import weights

    torch.set_num_threads(THREADS)
    network = weights.load(PRESET)

    def denoise(windows: Any) -> Any:
        with torch.inference_mode():
            x = torch.as_tensor(windows).permute(0, 3, 1, 2).float() / 255
            y = network(x).clamp(0, 1).mul(255).round().to(torch.uint8)
        return y.permute(0, 2, 3, 1).numpy()

    return denoise


def plain(slide: Path, folder: Path) -> None:
    """Read, denoise and write with three libraries; level 0 in memory, smaller levels by halving."""
    import cv2
    import openslide
    import tifffile

    denoise = _denoiser()
    with openslide.OpenSlide(slide) as source:
        width, height = source.dimensions
        result = np.empty((height, width, 3), np.uint8)
        side = WINDOW + 2 * HALO
        for y in range(0, height, WINDOW):
            for x in range(0, width, WINDOW):
                # Beyond the slide OpenSlide gives transparent black: a plain script takes it as it comes.
                piece = source.read_region((x - HALO, y - HALO), 0, (side, side))
                after = denoise(np.asarray(piece.convert("RGB"))[None])[0, HALO:-HALO, HALO:-HALO]
                result[y : y + WINDOW, x : x + WINDOW] = after[: height - y, : width - x]
    levels = [result]
    while min(levels[-1].shape[:2]) > 512:
        shape = levels[-1].shape
        levels.append(cv2.resize(levels[-1], (shape[1] // 2, shape[0] // 2), interpolation=cv2.INTER_AREA))
    options: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg"}
    with tifffile.TiffWriter(folder / "plain.tiff", bigtiff=True) as tiff:
        for number, level in enumerate(levels):
            options["compressionargs"] = {"level": 95}
            tiff.write(level, subfiletype=1 if number else 0, **options)


def tiatoolbox(slide: Path, folder: Path) -> None:
    """Run tiatoolbox's engine with the network as its model."""
    import torch
    from tiatoolbox.models.engine.io_config import IOSegmentorConfig
    from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
    from tiatoolbox.models.models_abc import ModelABC

    denoise = _denoiser()

    class Model(ModelABC):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dummy = torch.nn.Parameter(torch.zeros(1))

        def forward(self, *_: Any, **__: Any) -> None:
            return None

        @staticmethod
        def infer_batch(_model: Any, batch: Any, *, device: str) -> Any:
            return denoise(batch)[:, HALO:-HALO, HALO:-HALO].astype(np.float32)

    resolution = [{"units": "baseline", "resolution": 1.0}]
    config = IOSegmentorConfig(
        input_resolutions=resolution,
        output_resolutions=resolution,
        patch_input_shape=(WINDOW + 2 * HALO,) * 2,
        patch_output_shape=(WINDOW,) * 2,
        stride_shape=(WINDOW,) * 2,
        save_resolution=resolution[0],
    )
    engine = SemanticSegmentor(model=Model(), batch_size=1, num_workers=0, device="cpu", verbose=False)
    engine.run(
        images=[slide],
        patch_mode=False,
        ioconfig=config,
        auto_get_mask=False,
        return_probabilities=True,
        output_type="zarr",
        save_dir=folder / "engine",
        overwrite=True,
    )


def copy(slide: Path, folder: Path) -> None:
    """Read and write without a network."""
    import pyvips

    image = pyvips.Image.new_from_file(str(slide), access="sequential")
    image.tiffsave(
        str(folder / "copy.tiff"), tile=True, pyramid=True, compression="jpeg", Q=95, tile_width=256, tile_height=256
    )


CONTENDERS: dict[str, Callable[[Path, Path], None]] = {
    "network": network,
    "ours": ours,
    "ours, torch": ours_torch,
    "plain": plain,
    "tiatoolbox": tiatoolbox,
    "copy": copy,
}


@dataclass(frozen=True)
class Cost:
    """What one contender took for one slide.

    Parameters
    ----------
    processor, clock : float
        Seconds, of all its processes.
    """

    processor: float
    clock: float


def cost(name: str, slide: Path, folder: Path) -> Cost:
    """Run one contender as a program of its own.

    Raises
    ------
    RuntimeError
        With the end of what it printed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "VIPS_CONCURRENCY": str(THREADS)}
    command = [sys.executable, __file__, "--as", name, str(slide.absolute()), str(folder.absolute())]
    begun = time.monotonic()
    with (folder / "log.txt").open("wb") as log:
        program = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        _, status, usage = os.wait4(program.pid, 0)
        program.returncode = os.waitstatus_to_exitcode(status)
    clock = time.monotonic() - begun
    if program.returncode:
        raise RuntimeError(f"{name}: exit code {program.returncode}\n{(folder / 'log.txt').read_text()[-2000:]}")
    shutil.rmtree(folder)
    return Cost(usage.ru_utime + usage.ru_stime, clock)


def rows(rounds: list[dict[str, Pair]], small: float, large: float) -> Iterator[list[str]]:
    """Yield table rows: name, processor seconds per megapixel beyond start-up, ratio to ours, start-up, clock."""

    def rate(pair: Pair) -> float:
        return (pair[1].processor - pair[0].processor) / (large - small)

    for name in dict.fromkeys(name for found in rounds for name in found):
        pairs = [found[name] for found in rounds if name in found]
        ratios = [rate(found[name]) / rate(found["ours"]) for found in rounds if name in found and "ours" in found]
        ratio = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
        start, clock = median(pair[0].processor for pair in pairs), median(pair[1].clock for pair in pairs)
        yield [name, str(len(pairs)), f"{median(map(rate, pairs)):.3f}", ratio, f"{start:.1f}", f"{clock:.0f}"]


def use_of_peak(pairs: list[Pair], side: int) -> str:
    """Say what the network alone reaches of what the core could."""
    from wsi_denoise.network.denoiser import choose
    from wsi_denoise.settings import ComputeSettings
    from wsi_denoise.slide.geometry import Lattice

    plan = choose(ComputeSettings(device="cpu"))
    small, large = (
        sum(width * height for width, height, _ in computed(Lattice(each, each), plan)) for each in (SMALL, side)
    )
    rate = median((large - small) / (b.processor - a.processor) for a, b in pairs)
    kept, most = (side**2 - SMALL**2) / (large - small), peak()
    share = rate * operations() / most
    return (
        f"kept of computed pixels: {kept:.3f}; network alone: {rate / 1e6:.2f} computed MPix a processor second\n"
        f"{operations() / 1000:.1f} thousand operations a pixel; peak {most / 1e9:.0f} G/s, {share:.2f} of it used"
    )


def measured(count: int, names: list[str], slides: list[Path], folder: Path) -> Iterator[dict[str, Pair]]:
    """Yield what each contender took for both slides, in each round."""
    for _ in range(count):
        found: dict[str, Pair] = {}
        for name in names:
            try:
                small, large = (cost(name, slide, folder) for slide in slides)
                found[name] = small, large
            except RuntimeError as error:
                print(f"NOT MEASURED: {error}", file=sys.stderr)
        yield found


def main() -> int:
    """Run all contenders, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="slides are made here once, and kept")
    parser.add_argument("--side", type=int, default=7680, help="width and height of the slide in pixels")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--save", type=Path, help="the figures as JSON")
    parser.add_argument("--as", dest="contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("paths", type=Path, nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contender:
        CONTENDERS[given.contender](*given.paths)
        return 0
    if given.folder is None:
        parser.error("--folder is needed")
    given.folder.mkdir(parents=True, exist_ok=True)
    slides = []
    for side in (SMALL, given.side):
        slides.append(given.folder / f"tissue-{side}.tiff")
        if not slides[-1].exists():
            large_slide.write(slides[-1], side, share=1.0)
    rounds = list(measured(given.rounds, given.only, slides, given.folder / "work"))
    small, large = SMALL**2 / 1e6, given.side**2 / 1e6
    print(f"{machine()}; {large:.0f} MPix, all tissue; load {os.getloadavg()[0]:.1f}\n")
    print("| | rounds | processor s per MPix | times ours | start-up, processor s | clock, s |\n|" + "---|" * 6)
    for row in rows(rounds, small, large):
        print(f"| {' | '.join(row)} |")
    if "network" in given.only:
        print(f"\n{use_of_peak([found['network'] for found in rounds if 'network' in found], given.side)}")
    if given.save:
        values = [{name: [vars(each) for each in pair] for name, pair in found.items()} for found in rounds]
        given.save.write_text(
            json.dumps({"machine": machine(), "side": given.side, "rounds": values}, indent=1), "utf-8"
        )
    return 0 if all(len(found) == len(given.only) for found in rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
