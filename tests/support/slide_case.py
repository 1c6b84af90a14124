"""A slide, and what a run of it on a cluster needs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import ImageCms

from support.events import RecordedEvents
from wsi_denoise.processing.dask.cluster import Cluster
from wsi_denoise.processing.dask.prefetch import Prefetch
from wsi_denoise.processing.events import Progress
from wsi_denoise.processing.publish import Output
from wsi_denoise.processing.slide import Request, Result, denoise_slide
from wsi_denoise.processing.values import SlidePlan
from wsi_denoise.settings import Settings, load
from wsi_denoise.slide.base import as_found
from wsi_denoise.slide.geometry import BlockIndex
from wsi_denoise.slide.verify import sha256

ICC = bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
MPP = 0.5
FIRST, SECOND = BlockIndex(0, 0), BlockIndex(0, 1)


def settings_in(folder: Path, **values: object) -> Settings:
    overrides = {
        "compute.workers": 1,
        "compute.threads": 1,
        "compute.device": "cpu",
        "output.compression": "deflate",
        "tissue.mode": "all",
        **{name.replace("__", "."): value for name, value in values.items()},
    }
    return load(overrides=overrides, folder=folder, environ={}).settings


def noisy(clean: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(11).normal(0, sigma, clean.shape)
    return np.rint(np.clip(clean + noise, 0, 255)).astype(np.uint8)


def write_slide(path: Path, pixels: np.ndarray) -> Path:
    tifffile.imwrite(
        path,
        pixels,
        tile=(256, 256),
        photometric="rgb",
        compression="adobe_deflate",
        resolution=(1e4 / MPP, 1e4 / MPP),
        resolutionunit="centimeter",
        iccprofile=ICC,
        metadata=None,
    )
    return path


@dataclass
class Case:
    """One slide and all that a run of it needs."""

    cluster: Cluster
    folder: Path
    slide: Path
    settings: Settings
    watched: bool = True
    events: RecordedEvents = field(default_factory=RecordedEvents)
    """Of the latest run."""

    @property
    def output(self) -> Path:
        return self.folder / "denoised" / "a.tiff.denoised.tiff"

    @property
    def maps(self) -> Path:
        return self.folder / "maps" / "1.npz"

    def run(self, events: RecordedEvents | None = None, *, prefetch: Prefetch | None = None, **wishes: Any) -> Result:
        self.events = events or RecordedEvents()
        return denoise_slide(self.request(**wishes), self.cluster, self.events, prefetch=prefetch)

    def request(
        self, *, check_source: Callable[[], None] = lambda: None, preset: str = "paper", **wishes: Any
    ) -> Request:
        return Request(
            path=self.slide,
            fingerprint=sha256(self.slide),
            settings=self.settings,
            preset=preset,
            output=Output(self.settings.output, lambda _facts: self.output),
            maps=self.maps,
            check_source=check_source,
            files=(as_found(self.slide),) if self.watched else (),
            **wishes,
        )

    @property
    def plan(self) -> SlidePlan:
        return self.events.plans[0]

    @property
    def seen(self) -> list[Progress]:
        return self.events.progress

    @property
    def spooled(self) -> Path:
        return self.plan.work.spool

    def pixels(self) -> np.ndarray:
        with tifffile.TiffFile(self.output) as tiff:
            return tiff.pages.first.asarray()

    def left_over(self) -> list[str]:
        """Files in the output folder that are not the output."""
        folder = self.output.parent
        return sorted(file.name for file in folder.iterdir() if file != self.output) if folder.is_dir() else []


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))
