"""Plan a slide: its size, tissue, blocks and numerics, and the names of everything that is made from it."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np

from wsi_denoise import __version__
from wsi_denoise.errors import RegionOutside
from wsi_denoise.network import candidates, weights
from wsi_denoise.network import denoiser as network
from wsi_denoise.network.candidates import CANDIDATES
from wsi_denoise.processing.dask import worker
from wsi_denoise.processing.spool import content_of, folder_name
from wsi_denoise.processing.triage import Denoise, triage
from wsi_denoise.processing.values import Mask, SlidePlan, SlideWork
from wsi_denoise.quality import noise
from wsi_denoise.quality.triage import Triage
from wsi_denoise.settings import Settings
from wsi_denoise.slide import overview, provenance, reader, tissue
from wsi_denoise.slide.base import Slide, SlideInfo, SourceFile, check_files
from wsi_denoise.slide.encoding import Encoding, Pixels
from wsi_denoise.slide.geometry import PATCH, Lattice

NOISY_GLASS, GLASS_SAMPLES = 2.0, 12
"""Background is denoised too if its noise has a sigma above this many grey levels, as the median of this many patches.
The background of the real slides at hand is at 0.0 to 0.4."""


def plan_slide(
    path: Path,
    fingerprint: str,
    settings: Settings,
    preset: str,
    spool: Path,
    region: tuple[int, int, int, int] | None = None,
    files: tuple[SourceFile, ...] = (),
) -> SlidePlan:
    """Open a slide, find its tissue, and choose device and numerics.

    Parameters
    ----------
    fingerprint : str
        SHA-256 of the source.
    spool : Path
        Folder of all spool folders.
    region : tuple of int, optional
        (x, y, width, height) at level 0; clipped to the slide.
    files : tuple of SourceFile
        The fingerprinted files, which must not have changed.

    Raises
    ------
    SlideError, SourceError, ModelError
    """
    compute, output, limit = settings.compute, settings.output, settings.limits.megapixels
    asked = candidates.checksum(preset)
    check_files(files)
    slide = reader.open_cached(path, max_megapixels=limit, content=content_of(fingerprint))
    x, y, width, height = _inside(region, slide.info)
    mask, thumbnail = _mask(slide, Lattice(width, height), settings, region)
    found = _triage(slide, settings, mask.patches, (x, y, width, height), fingerprint, preset)
    # Without a network to run, the device is that of the presets that were tried.
    card = weights.card(found.used or CANDIDATES[0])
    plan = network.choose(compute, card.filters, worker.room())
    made = {
        "fingerprint": fingerprint,
        "preset": preset,
        "used": found.used,
        "model_sha256": asked,
        "settings": settings.pixel_settings(),
        "numerics": plan.numerics,
        "region": list(region) if region else None,
    }
    version = provenance.describe({}).partition("\n")[0]
    work = SlideWork(
        path=path,
        width=width,
        height=height,
        offset=(x, y),
        preset=found.used,
        plan=plan,
        halo=compute.halo,
        background=_background(settings.tissue.background, slide, mask.patches, (x, y)),
        glass=slide.info.background,
        encoding=Encoding(output.compression, output.quality, output.subsampling),
        spool=spool / folder_name(fingerprint, {**made, "version": version, "halo": compute.halo}),
        max_megapixels=limit,
        model_sha256=card.sha256,
        version=__version__,
        files=files,
        overview=region is None and overview.needed(slide),
    )
    facts = {
        **made,
        "triage": found.to_json(),
        "plan": str(plan),
        "background": work.background,
        "reader": slide.info.reader,
        "source_name_sha256": _digest(path.name),
    }
    check_files(files)
    return SlidePlan(work, slide.info, mask.patches, mask.note, provenance.describe(facts), facts, found, thumbnail)


def _mask(
    slide: Slide, lattice: Lattice, settings: Settings, region: tuple[int, int, int, int] | None
) -> tuple[tissue.TissueMask, bytes | None]:
    """Return the tissue, and a JPEG of the image in which it was found."""
    shape = lattice.patch_shape
    if region is not None:
        return tissue.TissueMask(np.ones(shape, np.bool_), found=True, note="a region is processed whole"), None
    thumbnail = slide.thumbnail(tissue.thumbnail_side(shape))
    size, chosen = (lattice.width, lattice.height), settings.tissue
    mask = tissue.tissue_patches(thumbnail, shape, size, mode=chosen.mode, dilate=chosen.dilate)
    return mask, bytes(imagecodecs.jpeg8_encode(thumbnail, level=90, subsampling="444"))


def _triage(
    slide: Slide, settings: Settings, patches: Mask, area: tuple[int, int, int, int], fingerprint: str, preset: str
) -> Triage:
    """Try presets on a sample of the slide or region (x, y, width, height)."""
    left, top, width, height = area

    def read(x: int, y: int, across: int, down: int) -> Pixels:
        return slide.read(left + x, top + y, across, down)

    def denoiser(name: str) -> Denoise:
        card = weights.card(name)
        plan = network.choose(settings.compute, card.filters, worker.room())
        return partial(worker.denoiser(name, plan, card.sha256).denoise, fitted=True)

    return triage(read, (width, height), patches, fingerprint, preset, denoiser)


def _background(wanted: str, slide: Slide, patches: Mask, offset: tuple[int, int]) -> str:
    """Return the background policy. For ``auto``, keep clean background and denoise noisy background.

    Noisy background beside denoised tissue would show the outline of the mask.
    """
    if wanted != "auto":
        return wanted
    # Whole patches only: a partial one at the right or lower edge reaches beyond the slide.
    rows, columns = np.nonzero(~patches[: slide.info.height // PATCH, : slide.info.width // PATCH])
    chosen = np.linspace(0, len(rows) - 1, min(GLASS_SAMPLES, len(rows))).astype(int)
    sigmas = []
    for row, column in zip(rows[chosen], columns[chosen], strict=True):
        pixels = slide.read(offset[0] + int(column) * PATCH, offset[1] + int(row) * PATCH, PATCH, PATCH)
        sigma = noise.wavelet_sigma(noise.wavelet_histogram(noise.diagonal(pixels)))
        sigmas.append(float(np.mean(sigma)) if sigma else 0.0)
    return "denoise" if sigmas and float(np.median(sigmas)) > NOISY_GLASS else "keep"


def _digest(name: str) -> str:
    """Hash a file name, which often contains an accession number: the hash can be matched without revealing it."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _inside(region: tuple[int, int, int, int] | None, info: SlideInfo) -> tuple[int, int, int, int]:
    if region is None:
        return 0, 0, info.width, info.height
    x, y, width, height = region
    left, top = max(0, x), max(0, y)
    right, bottom = min(info.width, x + width), min(info.height, y + height)
    if right <= left or bottom <= top:
        asked = f"x {x}, y {y}, {width} x {height} px"
        raise RegionOutside(f"{asked}, of a slide of {info.width} x {info.height} px")
    return left, top, right - left, bottom - top
