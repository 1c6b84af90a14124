"""Selection and plausibility checks of a file's metadata. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

#: A resolution outside this range comes from an export and not from a microscope. 28.97 um/px, the overview level of a
#: DICOM series, is genuine; 264.58 um/px is 96 dpi.
MPP_RANGE = (0.01, 50.0)
#: Coarsest resolution that is accepted from a TIFF's resolution tags, in inch or centimetre. No scan is as coarse as
#: this; 1200 dpi, which a program may have set for a printer, would be 21.2 um/px.
COARSEST_TAGS = 5.0

#: OpenSlide's names of the properties that are kept.
MODEL_KEYS = (
    "dicom.ManufacturerModelName",
    "leica.device-model",
    "philips.DICOM_MANUFACTURERS_MODEL_NAME",
    "hamamatsu.Product",
    "mirax.GENERAL.SLIDE_SCANNER_TYPE",
    "tiff.Model",
)
SERIAL_KEYS = (
    "dicom.DeviceSerialNumber",
    "aperio.ScanScope ID",
    "hamamatsu.NDP.S/N",
    "philips.DICOM_DEVICE_SERIAL_NUMBER",
    "ventana.UnitNumber",
    "mirax.NONHIERLAYER_0_SECTION.SCANNER_HARDWARE_ID",
)
DATE_KEYS = (
    "dicom.AcquisitionDateTime",
    "aperio.Date",
    "hamamatsu.Created",
    "leica.creation-date",
    "philips.DICOM_ACQUISITION_DATETIME",
    "mirax.GENERAL.SLIDE_CREATIONDATETIME",
    "ventana.ScanDate",
)
MAKER_KEYS = ("dicom.Manufacturer", "philips.DICOM_MANUFACTURER", "tiff.Make")
KEPT_KEYS = (*MAKER_KEYS, *MODEL_KEYS, *SERIAL_KEYS, *DATE_KEYS)

_DATES = (
    (re.compile(r"^(\d{4})(\d{2})(\d{2})"), (0, 1, 2)),
    (re.compile(r"^(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})"), (0, 1, 2)),
    (re.compile(r"^(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})(?!\d)"), (2, 0, 1)),  # Aperio writes month/day/year
    (re.compile(r"^(\d{1,2})\.(\d{1,2})\.(\d{4})"), (2, 1, 0)),
)


@dataclass(frozen=True)
class Statement:
    """A resolution as one part of a file states it, without a plausibility check.

    Parameters
    ----------
    x, y : float or None
        Micrometres per pixel.
    problem : str
        Reason why x and y are None although the file states a value.
    tags : bool
        The values come from a TIFF's resolution tags in inch or centimetre, which are also used for printers.
    """

    x: float | None = None
    y: float | None = None
    problem: str = ""
    tags: bool = False


def believed_mpp(
    x: float | None, y: float | None, *, tags: bool = False
) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Return (x, y) micrometres per pixel and notes, as :func:`first_believed`, for a single statement."""
    return first_believed([Statement(x, y, tags=tags)])


def first_believed(statements: Iterable[Statement]) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Return (x, y) micrometres per pixel of the first statement that is plausible for a microscope.

    A resolution that is stated for one direction only is used for both.

    Returns
    -------
    ((float, float) or None, tuple of str)
        The resolution, and a note for each rejected statement before it.
    """
    notes: list[str] = []
    for statement in statements:
        x = statement.x if statement.x is not None else statement.y
        y = statement.y if statement.y is not None else statement.x
        low, high = MPP_RANGE[0], COARSEST_TAGS if statement.tags else MPP_RANGE[1]
        if statement.problem:
            notes.append(f"a stated resolution is not used: {statement.problem}")
        elif x is not None and y is not None:
            if low <= x <= high and low <= y <= high:
                return (x, y), tuple(notes)
            notes.append(f"the file states a resolution of {x:.4g} x {y:.4g} um/px, not believed")
    return None, tuple(notes) or ("the file states no resolution",)


def number(text: str | float | None) -> float | None:
    """Return a finite number, or None for anything else."""
    try:
        value = float(text) if text is not None else None
    except (TypeError, ValueError):
        return None
    return value if value is not None and abs(value) < 1e12 else None


def first(properties: Mapping[str, str], keys: tuple[str, ...]) -> str | None:
    """Return the first of the named properties that is set, in one line of at most 64 characters."""
    for key in keys:
        text = " ".join((properties.get(key) or "").split())[:64]
        if text and text.lower() != "unknown":
            return text
    return None


def serial_hash(serial: str | None) -> str | None:
    """Return 12 hexadecimal digits that distinguish scanners without storing serial numbers."""
    return hashlib.sha256(serial.encode("utf-8", "replace")).hexdigest()[:12] if serial else None


def scan_week(text: str | None) -> str | None:
    """Return the ISO week (``2009-W53``) of a date in one of the scanners' formats, or None.

    Examples
    --------
    >>> scan_week("12/29/09")
    '2009-W53'
    >>> scan_week("20240102120000.000")
    '2024-W01'
    """
    for pattern, order in _DATES:
        match = pattern.match((text or "").strip())
        if not match:
            continue
        year, month, day = (int(match.groups()[index]) for index in order)
        try:
            date = datetime(year + 2000 if year < 100 else year, month, day, tzinfo=UTC)
        except ValueError:
            return None
        week = date.isocalendar()
        return f"{week.year}-W{week.week:02d}"
    return None
