"""Latency of the viewer's tiles, and the memory of their server.

    python tests/bench/tiles.py --side 40000 --folder /tmp/bench-tiles [--processing 16000]

Makes two slides of that side (before with one level and its overview, after with levels), serves them by the routes
alone, asks for random tiles one after the other over one connection, and then for many more while it watches the
server's resident memory. No tile is asked for twice in the latencies. Slides that are there already are used again.
With `--processing` the latencies are measured once more while a daemon beside it works on another slide, of that side.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

# dashboard is the package and not the script beside this one.
sys.path.append(sys.path.pop(0))
import large_slide

from dashboard.tiles.deepzoom import DeepZoom
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.quality.patch_map import PatchMap, save
from wsi_denoise.slide import overview
from wsi_denoise.slide.geometry import Lattice
from wsi_denoise.slide.reader import open_slide

ROWS = 512
LEAST_LEVEL = 8
"""Smaller levels are one tile each, and kept after the first look."""


def slides(folder: Path, side: int) -> tuple[Path, Path]:
    """Return the two slides, made where they are not there."""
    before, after = folder / f"before-{side}.tiff", folder / f"after-{side}.tiff"
    for file, one_level in ((before, True), (after, False)):
        if not file.exists():
            begun = time.monotonic()
            large_slide.write(file, side, one_level=one_level)
            print(f"{file.name}: {file.stat().st_size / 1e6:.0f} MB, made in {time.monotonic() - begun:.0f} s")
    return before, after


def quarter(file: Path) -> Iterator[np.ndarray]:
    """Yield level 2 of a slide from the top; both slides show the same."""
    with open_slide(file) as slide:
        width, height = slide.info.levels[overview.FIRST]
        for top in range(0, height, ROWS):
            yield slide.read_level(overview.FIRST, 0, top, width, min(ROWS, height - top))


def record(folder: Path, before: Path, after: Path, side: int) -> int:
    """Write a done job of the two slides into the folder's record, and return its number."""
    state = folder / ".wsi-denoise"
    store = JobStore(f"sqlite:///{state / 'jobs.sqlite'}")
    store.upgrade()
    status = before.stat()
    daemon = store.register_daemon()
    job = store.see(
        before, before.name, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns, preset="paper", origin="daemon:1"
    )
    fingerprint = f"{side:064x}"
    store.queue(
        job.id, fingerprint=fingerprint, settings={}, settings_hash=str(job.id), preset="paper", origin="daemon:1"
    )
    store.claim(daemon, 60, only=job.id)
    store.set_slide_facts(job.id, side, side, (0.25, 0.25))
    shape = Lattice(side, side).patch_shape
    maps = state / "maps" / f"{job.id}.npz"
    maps.parent.mkdir(exist_ok=True)
    save(maps, PatchMap(np.full(shape, 4, np.float32), np.zeros(shape, np.float32)))
    store.finish(
        job.id, daemon, verdict="pass", reasons=[], metrics={}, output=after, output_sha256="0" * 64, maps=maps
    )
    file = state / "overviews" / f"{job.id}.tiff"
    overview.write(file, (side, side), quarter(after))
    print(f"overview: {file.stat().st_size / 1e6:.0f} MB")
    store.close()
    return job.id


def random_tiles(picture: DeepZoom, count: int, chance: random.Random, *, least: int) -> Iterator[str]:
    """Yield the places of tiles, a level first and then a tile of it, no tile twice."""
    seen: set[str] = set()
    while len(seen) < count:
        level = chance.randint(least, picture.last)
        columns, rows = picture.shape(level)
        place = f"{level}/{chance.randrange(columns)}_{chance.randrange(rows)}"
        if place not in seen:
            seen.add(place)
            yield place


def ask(connection: http.client.HTTPConnection, path: str) -> float:
    """Return the seconds until a tile had arrived."""
    begun = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, (answer.status, path, body[:200])
    return time.perf_counter() - begun


def percentile(values: list[float], share: float) -> float:
    """Return a percentile."""
    return float(np.percentile(values, share))


def serve(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start the routes alone, and return their process and port once they answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--factory", "dashboard.routes:alone", "--port", str(port)]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [*command, "--log-level", "warning"], cwd=folder, env={**os.environ, "PYTHONPATH": str(root)}
    )
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/healthz")
            connection.getresponse().read()
        except OSError:
            time.sleep(0.2)
        else:
            return process, port
    process.kill()
    raise TimeoutError("no answer")


def main() -> None:
    """Measure by the command line's wish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=40_000, help="width and height in pixels")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/bench-tiles"))
    parser.add_argument("--processing", type=int, default=0, help="side of a slide that a daemon processes in parallel")
    parser.add_argument("--nice", type=int, default=5, help="that daemon's compute.nice")
    parser.add_argument("--tiles", type=int, default=200, help="tiles whose latency is measured")
    parser.add_argument("--walk", type=int, default=5000, help="tiles over which memory is watched")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    job = record(folder, *slides(folder, arguments.side), arguments.side)
    picture = DeepZoom(arguments.side, arguments.side)
    process, port = serve(folder)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        begun = time.perf_counter()
        ask(connection, f"/slides/{job}/info.json")
        print(f"first look (opens both files): {time.perf_counter() - begun:.2f} s")
        idle = latencies(connection, job, picture, arguments.tiles, seed=7)
        if arguments.processing:
            with daemon(folder / "busy", arguments.processing, arguments.nice) as done:
                connection.close()  # the server has closed it
                before = done()
                busy = latencies(connection, job, picture, arguments.tiles, seed=9)
                print(f"blocks that the daemon finished: {done() - before}")
            for name, (median, high) in busy.items():
                print(f"{name}: median {median / idle[name][0]:.1f} times, p95 {high / idle[name][1]:.1f} times")
        watch(process.pid, connection, job, picture, arguments.walk)
    finally:
        process.terminate()
        process.wait(30)


def latencies(
    connection: http.client.HTTPConnection, job: int, picture: DeepZoom, count: int, *, seed: int
) -> dict[str, tuple[float, float]]:
    """Print the latencies of random tiles, and return (median, p95) in milliseconds by layer and tiles."""
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("| layer | tiles | median ms | p95 ms | most ms |\n|---|---|---|---|---|")
    chance, found = random.Random(seed), {}
    for which in ("before", "after", "difference"):
        for name, least in (("all levels", min(LEAST_LEVEL, picture.last)), ("level 0", picture.last)):
            wanted = min(count, 4 ** max(0, picture.last - 10))
            times = [
                1e3 * ask(connection, f"/slides/{job}/{which}_files/{place}.jpeg")
                for place in random_tiles(picture, wanted, chance, least=least)
            ]
            found[f"{which}, {name}"] = statistics.median(times), percentile(times, 95)
            figures = " | ".join(f"{one:.1f}" for one in (*found[f"{which}, {name}"], max(times)))
            print(f"| {which}, {name} | {len(times)} | {figures} |", flush=True)
    return found


@contextmanager
def daemon(folder: Path, side: int, nice: int) -> Iterator[Callable[[], int]]:
    """Start a daemon at a slide, and give what tells how many blocks it has finished once it works on them."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "inbox").mkdir(parents=True)
    large_slide.write(folder / "inbox" / "busy.tiff", side)
    store = JobStore(f"sqlite:///{folder / '.wsi-denoise' / 'jobs.sqlite'}")
    store.upgrade()
    program = Path(sys.executable).with_name("wsi-denoise")
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            [program, "watch", "--preset", "paper", "--set", f"compute.nice={nice}"],
            cwd=folder,
            stdout=said,
            stderr=said,
        )

    def done() -> int:
        return sum(job.blocks_done for job in store.jobs().jobs)

    try:
        while done() < 2:
            assert process.poll() is None, (folder / "said").read_text()
            time.sleep(0.5)
        yield done
    finally:
        process.terminate()
        process.wait(120)
        store.close()
        shutil.rmtree(folder, ignore_errors=True)


def watch(pid: int, connection: http.client.HTTPConnection, job: int, picture: DeepZoom, walk: int) -> None:
    """Print the server's resident memory over many tiles, before and after in turn."""
    server = psutil.Process(pid)
    chance = random.Random(8)
    start = server.memory_info().rss
    print(f"resident memory before the walk: {start / 1e6:.0f} MB")
    for number in range(1, walk + 1):
        level = chance.randint(min(LEAST_LEVEL, picture.last), picture.last)
        columns, rows = picture.shape(level)
        which = ("before", "after")[number % 2]
        place = f"{level}/{chance.randrange(columns)}_{chance.randrange(rows)}"
        ask(connection, f"/slides/{job}/{which}_files/{place}.jpeg")
        if number % max(1, walk // 10) == 0:
            print(f"after {number} tiles: {server.memory_info().rss / 1e6:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
