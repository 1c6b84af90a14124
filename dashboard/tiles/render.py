"""Tiles of a job's slide, before and after, and their difference. Decoding and encoding, without HTTP."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np

from dashboard.responses import NotFound
from dashboard.tiles import difference
from dashboard.tiles.colour import ToSrgb
from dashboard.tiles.deepzoom import Box, DeepZoom
from dashboard.tiles.recent import Recent
from dashboard.tiles.slides import LevelPlane, OpenSlides, PicturePlane, Pixels, Plane, View, level_planes
from wsi_denoise.errors import NoSuchJob, SlideVanished
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import LARGEST, Job
from wsi_denoise.settings import Settings
from wsi_denoise.slide.base import Slide, stat_source

WHICH = ("before", "after", "difference")
FORMATS = {"jpeg": "image/jpeg", "png": "image/png"}
MOST_GAIN = 64
QUALITY = 90
CACHE_BYTES = 64 << 20
"""Encoded tiles that are kept: about 1,500 of tissue."""

JOB_SECONDS = 2.0
"""Seconds for which a job is kept: every tile of a screen needs it."""

LEAST_STEP = 4.0
"""Only levels at least this many times smaller than level 0 stand in for the original's."""

_MOST_JOBS = 256
_MOST_PROFILES = 8
_LARGEST_THUMBNAIL_FILE = 64 << 20


@dataclass(frozen=True)
class Shown:
    """One side of a job: its pixels, and where low zoom comes from.

    Parameters
    ----------
    slide : Slide or None
        None if only a thumbnail exists.
    low_zoom : str
        ``levels`` of the file, an ``overview``, the ``thumbnail`` that exists while the slide is processed, the
        denoised file (``after``), or ``none``.
    """

    view: View
    slide: Slide | None
    low_zoom: str


class Tiles:
    """Renders tiles. Safe to use from several threads.

    Parameters
    ----------
    job : callable
        From a number to the job; raises NoSuchJob.
    """

    def __init__(self, settings: Settings, job: Callable[[int], Job]) -> None:
        self._state = settings.jobs.state
        self._ask = job
        self.slides = OpenSlides(settings.limits.megapixels)
        self.cache: Recent[str, bytes] = Recent(CACHE_BYTES, len)
        self._lock = threading.Lock()
        self._jobs: Recent[int, tuple[float, Job]] = Recent(_MOST_JOBS)
        self._colours: Recent[bytes | None, ToSrgb] = Recent(_MOST_PROFILES)
        self._true: weakref.WeakKeyDictionary[Slide, tuple[int, ...]] = weakref.WeakKeyDictionary()

    def job(self, number: int) -> Job:
        """Return a job as it was at most two seconds ago.

        Raises
        ------
        NoSuchJob, StoreError
        """
        now = time.monotonic()
        known = self._jobs.get(number)
        if known is not None and now - known[0] < JOB_SECONDS:
            return known[1]
        if number > LARGEST:
            raise NoSuchJob(str(number))
        found = self._ask(number)
        self._jobs.put(number, (now, found))
        return found

    def geometry(self, job: Job) -> DeepZoom:
        """Return the geometry of a job's slide, or of the region that it is about.

        Raises
        ------
        NotFound
            For a slide that was not opened yet.
        """
        _, _, width, height = extent(job)
        return DeepZoom(width, height)

    def tile(
        self, job: Job, which: str, place: tuple[int, int, int], suffix: str, gain: int = 1, of: str = "mean"
    ) -> bytes:
        """Return an encoded tile.

        Parameters
        ----------
        which : str
            One of :data:`WHICH`.
        place : (int, int, int)
            Level, column and row.
        suffix : str
            One of :data:`FORMATS`.
        gain : int
            Of the difference; 1 to 64.
        of : str
            One of :data:`dashboard.tiles.difference.MEASURES`.

        Raises
        ------
        NotFound, SlideError, SourceError
        """
        key = self.version(job, which, place, suffix, gain, of)
        found = self.cache.get(key)
        if found is not None:
            return found
        geometry = self.geometry(job)
        box = geometry.box(*place)
        if box is None:
            raise NotFound("The slide has no such tile.")
        if which != "difference":
            pixels = self.pixels(job, which, box)
        elif place[0] < difference.least_level(geometry):
            raise NotFound(
                f"The difference of a slide of this size starts at level {difference.least_level(geometry)}."
            )
        else:
            pixels = self.difference(job, box, gain, of)
        data = encode(pixels, suffix)
        self.cache.put(key, data)
        return data

    def version(self, job: Job, *parts: object) -> str:
        """Return a hash that changes with the pixels; used as ETag and as key of the cache."""
        # A running job's low zoom comes from something else than a finished one's.
        facts = (job.id, job.fingerprint, job.output_sha256, job.state.value, job.region, *parts)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:24]

    def pixels(self, job: Job, which: str, box: Box) -> Pixels:
        """Return a part of the slide before or after, (box.height, box.width, 3) uint8, in sRGB."""
        shown = self.before(job) if which == "before" else self.after(job)
        return self._to_srgb(shown.slide)(shown.view.read(box))

    def difference(self, job: Job, box: Box, gain: int, of: str) -> Pixels:
        """Return the difference of the stored values of level 0, (box.height, box.width, 3) uint8."""
        before, after = self.before(job).view.planes[0], self.after(job).view.planes[0]
        return difference.to_pixels(difference.area_differences(before, after, box, of), gain, of)

    def colours(self, job: Job) -> str:
        """Return a note on the conversion of colours."""
        return self._to_srgb(self.before(job).slide).note

    def after(self, job: Job) -> Shown:
        """Return the denoised slide.

        Raises
        ------
        NotFound
            When it is not written yet, or its file is gone.
        """
        if job.output is None or job.state is not JobState.DONE:
            raise NotFound(f"Job {job.id} has no denoised slide: it is {job.state.value}.")
        try:
            slide = self.slides.get(Path(job.output))
        except SlideVanished as error:
            raise NotFound(f"The denoised slide of job {job.id} is not where it was written any more.") from error
        _, _, width, height = extent(job)
        if (slide.info.width, slide.info.height) != (width, height):
            raise NotFound(f"The denoised slide of job {job.id} has been replaced by another one.")
        return Shown(View(width, height, level_planes(slide, range(len(slide.info.levels)))), slide, "levels")

    def before(self, job: Job) -> Shown:
        """Return the original, with pixels for low zoom if it has no smaller levels.

        Raises
        ------
        NotFound
            When the file is not the one that was processed any more, or was found to be damaged.
        """
        if job.state is JobState.QUARANTINED:
            # What was found to be damaged is not given to the libraries of this process again.
            raise NotFound(f"The slide of job {job.id} is quarantined and is not opened.")
        left, top, width, height = extent(job)
        path = Path(job.slide)
        status = stat_source(path)
        single = not path.is_dir() and path.suffix.lower() not in {".mrxs", ".vms", ".vmu"}
        if single and (status.st_size, status.st_mtime_ns) != (job.size_bytes, job.mtime_ns):
            raise NotFound(f"The original of job {job.id} has been changed since it was processed.")
        slide = self.slides.get(path)
        if job.region:
            return Shown(View(width, height, [LevelPlane(slide, 0, (width, height), (left, top))]), slide, "none")
        planes = level_planes(slide, self._true_levels(slide))
        low_zoom, more = self._low_zoom(job, planes)
        return Shown(View(width, height, [*planes, *more]), slide, low_zoom)

    def _low_zoom(self, job: Job, planes: list[Plane]) -> tuple[str, list[Plane]]:
        """Return the source of low zoom, and the planes beside the slide's own."""
        if _suffices(planes):
            return "levels", []
        done = job.state is JobState.DONE
        overview = self._state / "overviews" / f"{job.id}.tiff"
        if done and overview.is_file():
            slide = self.slides.get(overview)
            return "overview", level_planes(slide, range(len(slide.info.levels)))
        thumbnail = self.kept_thumbnail(job)
        if thumbnail is not None:
            return "thumbnail", [PicturePlane(thumbnail)]
        return self._from_after(job, planes[0].size[0]) if done else ("none", [])

    def _from_after(self, job: Job, width: int) -> tuple[str, list[Plane]]:
        try:
            return "after", [plane for plane in self.after(job).view.planes if plane.size[0] * LEAST_STEP <= width]
        except NotFound:
            return "none", []

    def kept_thumbnail(self, job: Job) -> Pixels | None:
        """Return the thumbnail that exists while a slide is processed, (height, width, 3) uint8."""
        for folder in spool_folders(self._state, job):
            file = folder / "thumbnail.jpeg"
            try:
                if file.stat().st_size <= _LARGEST_THUMBNAIL_FILE:
                    return np.asarray(imagecodecs.jpeg8_decode(file.read_bytes()))
            except (OSError, ValueError, RuntimeError):
                continue
        return None

    def thumbnail(self, job: Job, side: int) -> bytes:
        """Return the whole original as a JPEG whose longer side is at most `side` pixels.

        Raises
        ------
        NotFound, SlideError, SourceError
        """
        key = self.version(job, "thumbnail", side)
        found = self.cache.get(key)
        if found is not None:
            return found
        kept = self.kept_thumbnail(job) if job.state is JobState.RUNNING and not job.region else None
        if kept is not None:
            # Without opening the slide: the workers have enough to read.
            view = View(kept.shape[1], kept.shape[0], [PicturePlane(kept)])
            pixels = view.read(DeepZoom(view.width, view.height).whole(side))
        else:
            pixels = self.pixels(job, "before", self.geometry(job).whole(side))
        data = encode(pixels, "jpeg")
        self.cache.put(key, data)
        return data

    def _true_levels(self, slide: Slide) -> tuple[int, ...]:
        from wsi_denoise.slide.overview import true_levels  # noqa: PLC0415

        with self._lock:
            known = self._true.get(slide)
        if known is None:
            known = true_levels(slide)
            with self._lock:
                self._true[slide] = known
        return known

    def _to_srgb(self, slide: Slide | None) -> ToSrgb:
        profile = slide.info.icc_profile if slide is not None else None
        known = self._colours.get(profile)
        if known is None:
            known = ToSrgb(profile)
            self._colours.put(profile, known)
        return known


def _suffices(planes: Sequence[Plane]) -> bool:
    """Return whether levels are close enough to one another, down to a small one."""
    from wsi_denoise.slide.overview import LARGEST_STEP, SMALL  # noqa: PLC0415

    sides = [max(plane.size) for plane in planes]
    close = all(larger <= smaller * LARGEST_STEP for larger, smaller in itertools.pairwise(sides))
    return close and sides[-1] <= SMALL


def extent(job: Job) -> tuple[int, int, int, int]:
    """Return the (x, y, width, height) of level 0 that a job is about.

    Raises
    ------
    NotFound
        Before the slide has been opened for the first time.
    """
    if not job.width or not job.height:
        raise NotFound(f"The slide of job {job.id} has not been opened yet.")
    if job.region is None:
        return 0, 0, job.width, job.height
    x, y, width, height = job.region
    left, top = max(0, x), max(0, y)
    right, bottom = min(job.width, x + width), min(job.height, y + height)
    if right <= left or bottom <= top:
        raise NotFound(f"The region of job {job.id} does not touch the slide.")
    return left, top, right - left, bottom - top


def spool_folders(state: Path, job: Job) -> Iterator[Path]:
    """Yield the folders that hold finished blocks of a job's slide, the one used last first."""
    if not job.fingerprint or not job.fingerprint.isalnum():
        return
    found = []
    for folder in (state / "spool").glob(f"{job.fingerprint[:20]}-*"):
        try:
            found.append((folder.stat().st_mtime, folder))
        except OSError:
            continue
    yield from (folder for _, folder in sorted(found, reverse=True))


def encode(pixels: Pixels, suffix: str) -> bytes:
    """Return (height, width, 3) uint8 as a file: JPEG without chroma subsampling, or PNG."""
    pixels = np.ascontiguousarray(pixels)
    if suffix == "png":
        return bytes(imagecodecs.png_encode(pixels, level=1))
    return bytes(imagecodecs.jpeg8_encode(pixels, level=QUALITY, subsampling="444"))
