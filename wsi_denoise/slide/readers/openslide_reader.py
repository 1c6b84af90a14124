"""Reader of slides with OpenSlide: SVS, NDPI, MRXS, SCN, BIF, VMS, Philips, CZI, DICOM and others.

tiatoolbox also reads these with OpenSlide, but is not used here. It composites transparent areas on white, loads some
pyramidal TIFFs into memory as a whole, and fails on DICOM without a Manufacturer. Its import takes seconds and a
gigabyte in every worker.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wsi_denoise.slide import metadata
from wsi_denoise.slide.base import DecodeFailure, Pixels, Slide, SlideInfo, check_unchanged, composite, stat_source

TILE_KEYS = ("openslide.level[0].tile-width", "openslide.level[0].tile-height")
GENERIC = "generic-tiff"
"""OpenSlide's vendor of a TIFF that is not in a scanner's own format."""
OPENSLIDE_KEYS = (
    "openslide.vendor",
    "openslide.mpp-x",
    "openslide.mpp-y",
    "openslide.objective-power",
    "openslide.background-color",
)


def open_handle(path: Path) -> Any:
    """Return an ``openslide.OpenSlide``, or None for an unknown format.

    Raises
    ------
    DecodeFailure
        If OpenSlide recognises the format but cannot open the file.
    """
    import openslide  # noqa: PLC0415

    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        return None
    except openslide.OpenSlideError as error:
        raise DecodeFailure(str(error)) from error


def vendor(path: Path) -> str | None:
    """Return OpenSlide's vendor of a file, even if it cannot be opened; None for an unknown format."""
    import openslide  # noqa: PLC0415

    name: str | None = openslide.OpenSlide.detect_format(path)
    return name


def info_from(handle: Any, path: Path) -> SlideInfo:
    """Return the facts of a slide from OpenSlide's properties on the allow-list.

    Raises
    ------
    DecodeFailure
    """
    import openslide  # noqa: PLC0415

    try:
        properties = _allowed(handle)
        levels = tuple((int(width), int(height)) for width, height in handle.level_dimensions)
        profile = openslide.lowlevel.read_icc_profile(handle._osr)  # noqa: SLF001 - the public API re-encodes it
    except openslide.OpenSlideError as error:
        raise DecodeFailure(str(error)) from error
    vendor = properties.get("openslide.vendor")
    mpp, notes = metadata.believed_mpp(
        metadata.number(properties.get("openslide.mpp-x")),
        metadata.number(properties.get("openslide.mpp-y")),
        tags=vendor == GENERIC,
    )
    tile = tuple(int(metadata.number(properties.get(name)) or 0) for name in TILE_KEYS)
    return SlideInfo(
        path=path,
        width=levels[0][0],
        height=levels[0][1],
        mpp=mpp,
        objective_power=metadata.number(properties.get("openslide.objective-power")),
        levels=levels,
        vendor=metadata.first(properties, metadata.MAKER_KEYS) or vendor,
        model=metadata.first(properties, metadata.MODEL_KEYS),
        serial_hash=metadata.serial_hash(metadata.first(properties, metadata.SERIAL_KEYS)),
        scan_week=metadata.scan_week(metadata.first(properties, metadata.DATE_KEYS)),
        icc_profile=bytes(profile) if profile else None,
        background=stated_background(properties) or (255, 255, 255),
        reader="openslide",
        tile=(tile[0], tile[1]) if min(tile) >= 16 and max(tile) <= 1024 else (256, 256),
        notes=notes,
    )


def _allowed(handle: Any) -> dict[str, str]:
    """Return only the properties on the allow-list, because others may name a patient."""
    keys = (*metadata.KEPT_KEYS, *OPENSLIDE_KEYS, *TILE_KEYS)
    return {key: value for key in keys if (value := handle.properties.get(key)) is not None}


def stated_background(properties: Mapping[str, str]) -> tuple[int, int, int] | None:
    """Return the background colour that the file states, or None."""
    text = properties.get("openslide.background-color", "")
    try:
        return (int(text[0:2], 16), int(text[2:4], 16), int(text[4:6], 16)) if len(text) == 6 else None
    except ValueError:
        return None


class OpenSlideSlide(Slide):
    """A slide read by OpenSlide.

    Parameters
    ----------
    handle : openslide.OpenSlide
    file : Path
        The file that OpenSlide opens: `info.path`, or one file of that folder.
    """

    def __init__(self, handle: Any, info: SlideInfo, file: Path) -> None:
        self.info = info
        self._file = file
        self._handle = handle
        self._distrusted: frozenset[int] = frozenset()
        self._lock = threading.Lock()
        status = stat_source(file)
        self._status = (status.st_size, status.st_mtime_ns)

    def distrust(self, levels: Iterable[int]) -> None:
        """Exclude smaller levels whose colours are uncertain."""
        self._distrusted = frozenset(levels)

    def level_is_true(self, level: int) -> bool:
        """Return whether a smaller level can be read and agrees with level 0."""
        return level not in self._distrusted and super().level_is_true(level)

    def close(self) -> None:
        """Close the handle."""
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    def _still_there(self) -> None:
        check_unchanged(self._file, *self._status)

    def _read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        import openslide  # noqa: PLC0415

        handle = self._fresh()
        # read_region expects the corner in level-0 pixels for every level.
        size, full = self.info.levels[level], self.info.levels[0]
        corner = (x, y) if level == 0 else (round(x * full[0] / size[0]), round(y * full[1] / size[1]))
        try:
            region = np.asarray(handle.read_region(corner, level, (width, height)))
        except openslide.OpenSlideError as error:
            # After an error every call on the handle fails. It is not closed, because another thread may be using it.
            with self._lock:
                if self._handle is handle:
                    self._handle = None
            raise DecodeFailure(str(error)) from error
        return composite(region[..., :3], region[..., 3], self.info.background)

    def _fresh(self) -> Any:
        with self._lock:
            if self._handle is None:
                self._handle = open_handle(self._file)
                if self._handle is None:
                    raise DecodeFailure("the file is no longer recognised")
            return self._handle
