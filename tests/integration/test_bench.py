"""The benches themselves: that they run, and that memory does not grow with a slide (the short version).

Never the clock: this has to pass on a machine that is busy with something else.
"""

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tifffile
import torch
from distributed import LocalCluster

from wsi_denoise import settings as configuration
from wsi_denoise.processing import bench
from wsi_denoise.processing.dask import cluster

BENCH = Path(__file__).parents[1] / "bench"
SMALL, LARGE = 2_000, 8_000
ONE_WORKER = ("compute.workers=1", "compute.device=cpu")


@pytest.fixture(scope="module")
def programs() -> tuple[ModuleType, ModuleType]:
    """tests/bench/large_slide.py and memory.py, which are programs and no package."""
    found = []
    for name in ("large_slide", "memory"):
        spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found.append(module)
    return tuple(found)


def test_a_large_slide_is_a_third_tissue_and_the_same_each_time(programs, tmp_path):
    large_slide, _ = programs
    files = [large_slide.write(tmp_path / name, 3072) for name in ("one.tiff", "two.tiff")]
    assert files[0].read_bytes() == files[1].read_bytes()
    with tifffile.TiffFile(files[0]) as tiff:
        assert [page.shape[:2] for page in tiff.pages] == [(3072 >> n, 3072 >> n) for n in range(5)]
        full, half = tiff.pages[0].asarray(), tiff.pages[1].asarray()
    stained = full.reshape(32, 96, 32, 96, 3).std(axis=(1, 3)).max(axis=-1) > 10
    assert 0.28 < stained.mean() < 0.38
    shrunk = full.reshape(1536, 2, 1536, 2, 3).mean(axis=(1, 3))
    assert np.abs(shrunk - half).mean() < 3


def test_a_large_slide_of_one_level_and_of_glass(programs, tmp_path):
    large_slide, _ = programs
    file = large_slide.write(tmp_path / "glass.tiff", 700, one_level=True, share=0.0)
    with tifffile.TiffFile(file) as tiff:
        assert len(tiff.pages) == 1
        pixels = tiff.pages.first.asarray()
    assert pixels.min() > 200
    assert 1 < pixels.std(axis=(0, 1)).mean() < 5


def test_memory_does_not_grow_with_the_slide(programs, tmp_path):
    """16 times the pixels, 190 MB of them at level 0, and little tissue so that it does not take long."""
    large_slide, memory = programs
    runs = []
    for side, share in ((SMALL, 0.3), (LARGE, 0.02)):
        slide = large_slide.write(tmp_path / f"{side}.tiff", side, share=share)
        runs.append(memory.denoise(slide, side, tmp_path / f"work-{side}", ONE_WORKER))
    small, large = runs
    assert small.job["state"] == large.job["state"] == "done"
    assert 0.5 < large.tissue / small.tissue < 4
    for run in runs:
        # The program itself, a worker and multiprocessing's helpers were seen, and accounted for.
        assert len(run.peaks) >= 3
        assert 0 < run.peak_anonymous <= run.peak < memory.MEMORY_LIMIT
        assert 0 < sum(run.spent.values()) <= 1.2 * run.processor
    assert large.peak_anonymous - small.peak_anonymous < 120e6
    assert large.peak < 1.2 * small.peak
    table = memory.table([large], small)
    assert f"| {LARGE} x {LARGE} |" in table
    assert table.count("\n") == 3


def test_growth_beyond_a_limit_is_named(programs, tmp_path):
    _, memory = programs

    def run(side: int, processor: float, patches: int, peak: float) -> object:
        job = {"metrics": {"tissue_patches": patches}}
        return memory.Run(tmp_path, side, processor, job=job, peak=peak)

    idle = run(1, 20.0, 100, 1e9)
    flat = memory.compare([run(10, 30.0, 1_100, 1.5e9), run(40, 180.0, 16_100, 1.6e9)], idle)
    assert flat.failures() == []
    assert flat.time == pytest.approx(0, abs=1e-9)
    steep = memory.compare([run(10, 30.0, 1_100, 1.5e9), run(40, 220.0, 16_100, 4.5e9)], idle)
    assert steep.time == pytest.approx(0.25)
    assert len(steep.failures()) == 3


def test_what_this_machine_does(programs, tmp_path):
    large_slide, _ = programs
    slide = large_slide.write(tmp_path / "slide.tiff", 1200)
    overrides = dict(pair.split("=") for pair in ONE_WORKER)
    loaded = configuration.load(folder=tmp_path, overrides=overrides, environ={})
    results = list(bench.run(loaded, slide))
    assert [stage for stage, _, unit in results if unit == bench.RATE] == [
        "read",
        "network",
        "measure",
        "encode",
        "end to end",
    ]
    assert all(math.isfinite(value) and value > 0 for _, value, _ in results)
    costs = {stage: value for stage, value, unit in results if unit == bench.COST}
    # The network is most of the work on a CPU, and the whole costs more than its parts.
    assert costs["network"] > costs["read"]
    assert costs["end to end"] > costs["network"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slide.tiff"]


def figures(name: str, *arguments: str) -> dict[str, float]:
    """Run a bench as a program, and return the first figure of each row of its table."""
    command = [sys.executable, str(BENCH / f"{name}.py"), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    rows = [line.strip("| ").split(" | ") for line in ran.stdout.splitlines() if line.startswith("| ")]
    return {row[0]: float(row[1]) for row in rows[1:]}


def test_what_a_small_slide_costs_beside_its_blocks(tmp_path):
    options = ("--slides", "3", "--side", "700", "--set", "compute.device=cpu")
    found = figures("many", "--folder", str(tmp_path), *options)
    assert found["of it: from its plan to its name, median"] > 0
    assert found["network, all threads"] > found["read, all threads"] > 0
    assert found["processor time, start included"] > found["overhead in processor time: all less blocks"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many-700", "work"]


def test_how_long_one_image_takes():
    found = figures("latency", "--images", "5")
    assert "cpu, torch, fp32" in found
    assert all(milliseconds > 0 for milliseconds in found.values())


def test_the_busiest_part_of_a_slide():
    tissue = np.zeros((40, 60), np.bool_)
    tissue[21:30, 33:50] = True
    row, column = bench.busiest(tissue, 16)
    assert tissue[row : row + 16, column : column + 16].sum() == 9 * 16
    assert bench.busiest(np.zeros((3, 5), np.bool_), 16) == (0, 0)
    assert bench.busiest(np.ones((3, 50), np.bool_), 16)[0] == 0


def test_a_worker_that_takes_long_to_end_does_not_fail_what_is_done(monkeypatch, tmp_path, caplog):
    class Slow(LocalCluster):
        def close(self, timeout=None):
            super().close(timeout)
            raise TimeoutError

    monkeypatch.setattr(
        cluster,
        "_local",
        lambda *_: Slow(
            n_workers=1, processes=False, dashboard_address=None, scheduler_kwargs={"dashboard_address": "127.0.0.1:0"}
        ),
    )
    loaded = configuration.load(folder=tmp_path, environ={})
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with cluster.connect(loaded.settings) as connected:
        assert connected.call(len, "abc").result(timeout=30) == 3
    assert "Slow did not close in order" in caplog.text
    # This worker was in our own process: what is done to workers' processes would have ended the tests, with 0.
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_the_gpu_bench_runs_its_path_on_the_cpu(tmp_path):
    command = [sys.executable, BENCH / "gpu.py", "--folder", tmp_path, "--device", "cpu", "--backend", "torch"]
    command += ["--windows", "1", "2", "--batches", "1", "2", "--seconds", "0.1", "--side", "1700"]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert made.returncode == 0, made.stderr
    rows = [line.strip("| ").split(" | ") for line in made.stdout.splitlines() if line.startswith(("| 1 |", "| 2 |"))]
    assert [row[:2] for row in rows] == [["1", "1"], ["1", "2"], ["2", "1"], ["2", "2"]]
    kept, computed = (np.array([float(row[column]) for row in rows]) for column in (2, 3))
    assert (kept > 0).all()
    # What is kept of a window of one patch with a halo of 48 px is a quarter, of two patches four ninths.
    assert kept / computed == pytest.approx([1 / 4, 1 / 4, 4 / 9, 4 / 9], rel=0.01)
    assert "aten::mkldnn_convolution" in made.stdout
    assert float(made.stdout.rpartition("end to end: ")[2].split()[0]) > 0


def test_the_gpu_bench_says_that_there_is_none(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    command = [sys.executable, BENCH / "gpu.py", "--folder", tmp_path, "--device", "cuda"]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert made.returncode == 2
    assert "cuda" in made.stdout
    assert "Traceback" not in made.stderr
