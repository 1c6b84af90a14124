"""Resolution, objective and date of a TIFF, from its description and tags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from wsi_denoise.slide import metadata, ome, units
from wsi_denoise.slide.base import SlideInfo
from wsi_denoise.slide.metadata import Statement
from wsi_denoise.slide.readers.tiff_directory import DESCRIPTION, Directory

#: Values of ResolutionUnit. TIFF defines 2 and 3; some writers use 4 for millimetre and 5 for micrometre.
_UNITS = {2: "inch", 3: "centimeter", 4: "millimeter", 5: "micrometer"}


def described(info: SlideInfo, main: Directory, path: Path) -> SlideInfo:
    """Return the facts of a slide with resolution, objective, date and notes from its TIFF.

    Parameters
    ----------
    info : SlideInfo
        Other facts about the slide. Its notes are replaced.
    main : Directory
        First image of the TIFF.
    path : Path
        The TIFF.
    """
    facts = ome.OmeFacts()
    text = main.text(DESCRIPTION)
    if ome.is_ome(text):
        facts = ome.ome_facts(text, main.size, path.name)
    mpp, notes = metadata.first_believed(_statements(text, facts, main))
    aperio = metadata.number(_aperio(text).get("AppMag"))
    return replace(
        info,
        mpp=mpp,
        objective_power=facts.objective if facts.objective is not None else aperio or info.objective_power,
        scan_week=metadata.scan_week(facts.date) or info.scan_week,
        notes=notes,
    )


def _statements(text: str, facts: ome.OmeFacts, main: Directory) -> Iterator[Statement]:
    """Yield the file's statements about its resolution, most specific first."""
    yield Statement(facts.x, facts.y, facts.problem)
    aperio = _aperio(text)
    if "MPP" in aperio:
        value, problem = units.quantity("MPP", aperio["MPP"], "µm")
        yield Statement(value, value, problem)
    # ImageJ's own unit has priority if the tags have none.
    imagej = _from_imagej(text, main)
    if imagej is not None and _UNITS.get(main.resolution_unit or 0) is None:
        yield imagej
    else:
        yield _from_tags(main)
        if imagej is not None:
            yield imagej


def _aperio(text: str) -> dict[str, str]:
    """Return the items ``name = value`` of an Aperio description, which vertical bars separate."""
    if not text.startswith("Aperio"):
        return {}
    items = (item.partition("=") for item in text.split("|")[1:])
    return {name.strip(): value.strip() for name, _, value in items}


def _from_imagej(text: str, main: Directory) -> Statement | None:
    """Return the resolution of an ImageJ TIFF, whose description states the unit, or None."""
    if not text.startswith("ImageJ=") or main.resolution is None:
        return None
    items = dict(line.partition("=")[::2] for line in text.splitlines())
    unit = items.get("unit", "").strip()
    if not unit or units.plain(unit).lower().rstrip("s") in {"pixel", "px"}:
        return None
    names = (unit, items.get("yunit", "").strip() or unit)
    return _per_unit(main.resolution, names, "ImageJ's unit")


def _from_tags(main: Directory) -> Statement:
    """Return the resolution of the tags XResolution, YResolution and ResolutionUnit."""
    if main.resolution is None or not any(main.resolution):
        return Statement()
    number = 2 if main.resolution_unit is None else main.resolution_unit
    if number in _UNITS:
        return _per_unit(main.resolution, (_UNITS[number], _UNITS[number]), "ResolutionUnit")
    if number == 1 and main.resolution == (1.0, 1.0):
        return Statement()
    what = "no unit" if number == 1 else f"a ResolutionUnit of {number}, which is not known"
    x, y = main.resolution
    return Statement(problem=f"its tags state {x:.6g} x {y:.6g} pixels per unit, and {what}")


def _per_unit(resolution: tuple[float, float], names: tuple[str, str], what: str) -> Statement:
    """Return micrometres per pixel of a resolution in pixels per unit."""
    lengths, printed = [], False
    for pixels, name in zip(resolution, names, strict=True):
        factor = units.micrometres(name)
        if factor is None:
            return Statement(problem=f"{what}, {units.quoted(name)}, is not understood")
        lengths.append(factor / pixels if pixels else 0.0)
        printed = printed or factor >= units.CENTIMETRE
    return Statement(lengths[0], lengths[1], tags=printed)
