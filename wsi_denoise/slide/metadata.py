"""What is believed of a file's metadata, and what is kept of it. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime

#: Beyond these, a resolution is a leftover of some export and not a microscope's. 28.97 um/px, the overview level of a
#: DICOM series, is true; 264.58 um/px is 96 dpi.
MPP_RANGE = (0.01, 50.0)
#: Coarsest resolution that is believed where nothing but a TIFF's resolution tags, in inch or centimetre, states it. No
#: slide is scanned so; 1200 dpi, which a program may have meant for a printer, would be 21.2 um/px.
COARSEST_TAGS = 5.0

#: Names under which OpenSlide's readers give the few properties that are kept.
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
_UNITS = {
    "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "pm": 1e-6,
}  # fmt: skip


def believed_mpp(
    x: float | None, y: float | None, *, tags: bool = False
) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Return (x, y) micrometres per pixel, or None with a note that says why the file is not believed.

    A resolution stated for one direction only is taken for both.

    Parameters
    ----------
    x, y : float or None
        As the file states them.
    tags : bool
        Whether they come from the resolution tags of a generic TIFF, which serve printers as well.
    """
    x, y = (x if x is not None else y), (y if y is not None else x)
    if x is None or y is None:
        return None, ("the file states no resolution",)
    low, high = MPP_RANGE[0], COARSEST_TAGS if tags else MPP_RANGE[1]
    if not (low <= x <= high and low <= y <= high):
        return None, (f"the resolution tag says {x:.4g} x {y:.4g} um/px, not believed",)
    return (x, y), ()


def number(text: str | float | None) -> float | None:
    """Return a finite number, or None for anything else."""
    try:
        value = float(text) if text is not None else None
    except (TypeError, ValueError):
        return None
    return value if value is not None and abs(value) < 1e12 else None


def first(properties: Mapping[str, str], keys: tuple[str, ...]) -> str | None:
    """Return the first of the named properties that says something, in one line of at most 64 characters."""
    for key in keys:
        text = " ".join((properties.get(key) or "").split())[:64]
        if text and text.lower() != "unknown":
            return text
    return None


def serial_hash(serial: str | None) -> str | None:
    """Return 12 hexadecimal digits that tell scanners apart without naming them."""
    return hashlib.sha256(serial.encode("utf-8", "replace")).hexdigest()[:12] if serial else None


def scan_week(text: str | None) -> str | None:
    """Return the ISO week (``2009-W53``) of a date as scanners write it, or None.

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


def ome_facts(description: str) -> dict[str, float | str | None]:
    """Return ``mpp_x``, ``mpp_y``, ``objective`` and ``date`` of an OME-XML text.

    Patterns instead of an XML parser: four values are needed, and the text comes from an untrusted file.
    """
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", description)
    facts: dict[str, float | str | None] = {"mpp_x": None, "mpp_y": None, "objective": None, "date": None}
    for axis in "XY":
        size = re.search(rf'\bPhysicalSize{axis}="([^"]*)"', pixels.group() if pixels else "")
        unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]*)"', pixels.group() if pixels else "")
        factor = _UNITS.get(unit.group(1).strip().lower()) if unit else 1.0
        value = number(size.group(1)) if size else None
        facts[f"mpp_{axis.lower()}"] = value * factor if value is not None and factor is not None else None
    power = re.search(r'<(?:\w+:)?Objective\b[^>]*\bNominalMagnification="([^"]*)"', description)
    facts["objective"] = number(power.group(1)) if power else None
    date = re.search(r"<(?:\w+:)?AcquisitionDate>([^<]*)<", description)
    facts["date"] = date.group(1) if date else None
    return facts
