"""NGFF (OME-Zarr) metadata: axes, levels, scale and channel order of an image. Pure.

Versions 0.1 to 0.5 are supported. The attributes come from an untrusted file, so the type of every value is checked
before use.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsi_denoise.errors import NotRGB, UnsupportedSlide
from wsi_denoise.slide import metadata, units

#: Maximum number of levels of an image; more indicate a damaged or malicious file.
MAX_LEVELS = 64
#: Axes of versions 0.1 and 0.2, which do not state them.
_IMPLICIT_AXES = ("t", "c", "z", "y", "x")
_PRIMARIES = ("FF0000", "00FF00", "0000FF")


@dataclass(frozen=True)
class Dataset:
    """One level of an image in the metadata.

    Parameters
    ----------
    path : tuple of str
        Folder names below the image's group.
    scale : tuple of float or None
        Size of a pixel along each axis, in the axis's unit.
    """

    path: tuple[str, ...]
    scale: tuple[float, ...] | None


@dataclass(frozen=True)
class Image:
    """One multiscale image in the metadata.

    Parameters
    ----------
    axes : tuple of str
        ``t``, ``c``, ``z``, ``y``, ``x``, each at most once, in the order of the arrays' dimensions; other axes keep
        their own name.
    units : tuple of str
        Unit of each axis; empty if it is not stated.
    datasets : tuple of Dataset
        Levels, largest first.
    channels : (int, int, int) or None
        Positions of red, green and blue along ``c``, if the metadata states the channels' colours.
    notes : tuple of str
        Peculiarities of the metadata.
    """

    axes: tuple[str, ...]
    units: tuple[str, ...]
    datasets: tuple[Dataset, ...]
    channels: tuple[int, int, int] | None = None
    notes: tuple[str, ...] = ()


def ome_attributes(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the NGFF attributes: below ``ome`` since version 0.5, at the top level before."""
    inner = attributes.get("ome")
    return inner if isinstance(inner, Mapping) else attributes


def is_bioformats2raw(attributes: Mapping[str, Any]) -> bool:
    """Return whether a group has the layout of bioformats2raw: images in sub-groups, and none in the group itself."""
    ome = ome_attributes(attributes)
    return "bioformats2raw.layout" in ome and not {"multiscales", "plate"} & set(ome)


def image_of(attributes: Mapping[str, Any]) -> Image:
    """Return the image that a group's attributes describe.

    Raises
    ------
    UnsupportedSlide
        The attributes describe other content, or are invalid NGFF.
    NotRGB
        The channels have colours other than red, green and blue.
    """
    ome = ome_attributes(attributes)
    multiscales = ome.get("multiscales")
    if multiscales is None:
        raise UnsupportedSlide(_other_content(ome))
    if not (isinstance(multiscales, Sequence) and multiscales and isinstance(multiscales[0], Mapping)):
        raise UnsupportedSlide("its NGFF metadata is invalid: multiscales is not a list of images")
    if "image-label" in ome:
        raise UnsupportedSlide("it is an NGFF label image (a segmentation), not a slide")
    first = multiscales[0]
    datasets = first.get("datasets")
    if not (isinstance(datasets, Sequence) and datasets and all(isinstance(each, Mapping) for each in datasets)):
        raise UnsupportedSlide("its NGFF metadata is invalid: multiscales lists no datasets")
    if len(datasets) > MAX_LEVELS:
        raise UnsupportedSlide(f"its NGFF metadata lists {len(datasets)} levels; at most {MAX_LEVELS} are supported")
    axes, axis_units = _axes(first, str(first.get("version", ome.get("version", ""))))
    whole = _scale(first, len(axes))
    found = tuple(
        Dataset(folder_names(each.get("path")), _combined(_scale(each, len(axes)), whole)) for each in datasets
    )
    more = len(multiscales) - 1
    notes = (f"the store lists {more} further image{'s' * (more > 1)}, not read",) if more else ()
    return Image(axes, axis_units, found, _channels(ome.get("omero")), notes)


def resolution(image: Image) -> metadata.Statement:
    """Return the resolution of level 0 in the metadata.

    A scale without a unit is not used as a resolution: writers state 1.0 if they know none.
    """
    scale = image.datasets[0].scale
    if scale is None:
        return metadata.Statement()
    values = []
    for name in "xy":
        position = image.axes.index(name)
        unit, value = image.units[position], scale[position]
        if not unit:
            return metadata.Statement(problem=f"the axis {name} has a scale of {value:.6g} without a unit")
        factor = units.micrometres(unit)
        if factor is None:
            return metadata.Statement(
                problem=f"the axis {name} has a scale of {value:.6g} in the unit {units.quoted(unit)}, which is not "
                "understood"
            )
        values.append(value * factor)
    return metadata.Statement(values[0], values[1])


def _other_content(ome: Mapping[str, Any]) -> str:
    """Return a description of a group without multiscales."""
    if "plate" in ome:
        return "it is an NGFF plate of many wells, not a slide; give the folder of one image"
    if "well" in ome:
        return "it is an NGFF well of several fields, not a slide; give the folder of one image"
    if "labels" in ome:
        return "it is an NGFF group of label images (segmentations), not a slide"
    return "it is a Zarr group without NGFF's multiscales metadata"


def _axes(multiscale: Mapping[str, Any], version: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names and units of the axes."""
    stated = multiscale.get("axes")
    if stated is None:
        if "coordinateSystems" in multiscale:
            raise UnsupportedSlide(f"its NGFF version {version or 'of coordinate systems'} is not supported")
        return _IMPLICIT_AXES, ("",) * len(_IMPLICIT_AXES)
    if not isinstance(stated, Sequence) or isinstance(stated, str) or not 2 <= len(stated) <= 8:
        raise UnsupportedSlide("its NGFF metadata is invalid: axes is not a list")
    names, stated_units = [], []
    for axis in stated:
        each = axis if isinstance(axis, Mapping) else {"name": axis}  # version 0.3 has names only
        name = str(each.get("name", "")).strip().lower()
        kind = str(each.get("type", "")).strip().lower()
        names.append({"channel": "c", "time": "t"}.get(kind, name))
        unit = each.get("unit")
        stated_units.append(unit.strip()[:64] if isinstance(unit, str) else "")
    if len(set(names)) < len(names) or not {"x", "y"} <= set(names):
        shown = ", ".join(names)[:80]
        raise UnsupportedSlide(f"its NGFF axes are {shown}; x and y are needed, and each axis only once")
    return tuple(names), tuple(stated_units)


def folder_names(stated: object) -> tuple[str, ...]:
    """Return the folder names of a path inside the store.

    Raises
    ------
    UnsupportedSlide
        The path would leave the store.
    """
    parts = tuple(stated.strip("/").split("/")) if isinstance(stated, str) else ()
    # Surrogates cannot be encoded in UTF-8, and file systems limit names to 255 bytes.
    if (
        not parts
        or any(
            part in {"", ".", ".."} or "\0" in part or not 0 < len(part.encode("utf-8", "ignore")) <= 255
            for part in parts
        )
        or not "".join(parts).isprintable()
    ):
        raise UnsupportedSlide(f"its NGFF metadata names {str(stated)[:80]!r}, not a folder inside the store")
    if isinstance(stated, str) and stated.startswith("/"):
        raise UnsupportedSlide(f"its NGFF metadata names {stated[:80]!r}, an absolute path")
    return parts


def _scale(holder: Mapping[str, Any], dimensions: int) -> tuple[float, ...] | None:
    """Return the product of the scales in ``coordinateTransformations``, or None without a usable one.

    A rotation or shear makes the size of a pixel unknown.
    """
    stated = holder.get("coordinateTransformations")
    result: tuple[float, ...] | None = None
    for each in stated if isinstance(stated, Sequence) else ():
        if not isinstance(each, Mapping):
            return None
        kind = each.get("type")
        if kind in ("translation", "identity"):
            continue
        values = each.get("scale")
        if kind != "scale" or not isinstance(values, Sequence) or len(values) != dimensions:
            return None
        numbers = tuple(float(value) for value in values if isinstance(value, int | float))
        if len(numbers) != dimensions or not all(math.isfinite(value) and value > 0 for value in numbers):
            return None
        result = numbers if result is None else tuple(a * b for a, b in zip(result, numbers, strict=True))
    return result


def _combined(own: tuple[float, ...] | None, whole: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Return a level's scale multiplied by that of all levels."""
    if own is None or whole is None:
        return own or whole
    return tuple(a * b for a, b in zip(own, whole, strict=True))


def _channels(omero: object) -> tuple[int, int, int] | None:
    """Return the positions of red, green and blue, from the channels' colours.

    Raises
    ------
    NotRGB
        Three channels of different colours, of which one is not red, green or blue: a multiplex image.
    """
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    if not isinstance(channels, Sequence) or len(channels) != 3:
        return None
    colours = [
        str(each.get("color", "")).strip().lstrip("#").upper()[:6] for each in channels if isinstance(each, Mapping)
    ]
    if len(set(colours)) < 3 or any(len(colour) != 6 for colour in colours):
        return None
    if set(colours) != set(_PRIMARIES):
        raise NotRGB(f"its three channels are shown in the colours {', '.join(colours)}, not red, green and blue")
    red, green, blue = (colours.index(colour) for colour in _PRIMARIES)
    return red, green, blue
