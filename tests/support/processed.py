"""A processed slide as a daemon leaves it: files, evidence and a done job."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from support.slides import pyramid, tissue, write_tiff
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import Job
from wsi_denoise.quality.patch_map import PatchMap, save
from wsi_denoise.settings import Settings, load


@dataclass(frozen=True)
class Processed:
    """A done slide in a folder that the dashboard can serve; `before` and `after` are its pixels."""

    folder: Path
    store: JobStore
    job: Job
    before: np.ndarray
    after: np.ndarray
    patch_map: PatchMap

    @property
    def settings(self) -> Settings:
        return load(folder=self.folder, environ={}).settings


def process(folder: Path, name: str = "slide.tiff", *, levels: int = 2, icc: bytes | None = None) -> Processed:
    """Write a done job of real tissue, 700 x 900 px, with so many smaller levels; the caller closes the store."""
    after = np.ascontiguousarray(tissue()[:900, :700])
    noise = np.random.default_rng(3).normal(0, 20, after.shape)
    before = np.clip(after + noise, 0, 255).astype(np.uint8)
    source = write_tiff(folder / "inbox" / name, pyramid(before, levels), icc=icc)
    output = write_tiff(folder / "denoised" / f"{name}.denoised.tiff", pyramid(after, 2), icc=icc)
    strength = np.full((10, 8), 0.5, np.float32)
    strength[2, 3], strength[8, 1], strength[0, 0] = -9.5, 4.0, np.nan
    patch_map = PatchMap(np.linspace(5, 20, 80, dtype=np.float32).reshape(10, 8), strength)
    store = JobStore(f"sqlite:///{folder / '.wsi-denoise' / 'jobs.sqlite'}")
    store.upgrade()
    daemon = store.register_daemon()
    status = source.stat()
    seen = store.see(
        source, name, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns, preset="paper", origin="daemon:1"
    )
    fingerprint = hashlib.sha256(source.read_bytes()).hexdigest()
    store.queue(
        seen.id, fingerprint=fingerprint, settings={}, settings_hash=str(seen.id), preset="paper", origin="daemon:1"
    )
    store.claim(daemon, 60, only=seen.id)
    store.set_slide_facts(seen.id, 700, 900, (0.5, 0.5), {})
    maps = folder / ".wsi-denoise" / "maps" / f"{seen.id}.npz"
    maps.parent.mkdir(exist_ok=True)
    save(maps, patch_map)
    job = store.finish(
        seen.id, daemon, verdict="review", reasons=["structure_removed: <b>one</b> patch"],
        metrics={"sigma_before_wavelet": 20.0}, output=output, output_sha256="0" * 64, maps=maps,
        provenance={"preset": "paper"},
    )  # fmt: skip
    return Processed(folder, store, job, before, after, patch_map)
