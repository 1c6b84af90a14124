"""Resolution, objective and date of one image in OME-XML.

The XML comes from an untrusted file. expat parses it as a stream. A document type declaration, which could define
entities, stops the parser.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.parsers import expat

from wsi_denoise.slide import metadata, units

_ROOT = re.compile(r"<(?:[\w.-]+:)?OME[\s>]")
_Attributes = dict[str, str]


@dataclass(frozen=True)
class OmeFacts:
    """Values of one image in OME-XML.

    Parameters
    ----------
    x, y : float or None
        Micrometres per pixel as stated, without a plausibility check.
    problem : str
        Reason why x or y is None although the file states a value; quotes that value.
    objective : float or None
        Nominal magnification.
    """

    x: float | None = None
    y: float | None = None
    problem: str = ""
    objective: float | None = None
    date: str | None = None


@dataclass
class _Image:
    pixels: _Attributes = field(default_factory=dict)
    planes: list[_Attributes] = field(default_factory=list)
    objective: str = ""
    date: str = ""

    @property
    def size(self) -> tuple[str, str]:
        return self.pixels.get("SizeX", "").strip(), self.pixels.get("SizeY", "").strip()


def is_ome(text: str) -> bool:
    """Return whether a TIFF's description is OME-XML."""
    return text.lstrip("\ufeff \t\r\n").startswith("<") and ("openmicroscopy.org" in text or bool(_ROOT.search(text)))


def ome_facts(text: str, size: tuple[int, int], file_name: str) -> OmeFacts:
    """Return the values of a TIFF's first image from OME-XML.

    These are from the Image whose TiffData refers to directory 0 of this file. Images may be in any order, and in other
    files. An Image with a different size is not used.

    Parameters
    ----------
    text : str
        XML; it may be truncated.
    size : (int, int)
        (width, height) of the TIFF's first image in pixels.
    file_name : str
        Name of the TIFF.
    """
    parser = _Parser()
    error = parser.parse(text)
    chosen = _of_first_directory(parser.images, parser.uuid, file_name)
    fitting = [image for image in chosen if _fits(image, size)]
    if not fitting:
        return OmeFacts(problem=_nothing(parser, error, chosen, size))
    results = {_sizes(image) for image in fitting}
    if len(results) > 1:
        return OmeFacts(problem="its OME-XML describes several images, and none of them as the first directory")
    x, y, problem = results.pop()
    powers = parser.objectives
    reference = fitting[0].objective
    power = powers.get(reference) if reference else next(iter(powers.values())) if len(powers) == 1 else None
    return OmeFacts(x, y, problem, metadata.number(power), fitting[0].date.strip() or None)


def _nothing(parser: _Parser, error: str, chosen: list[_Image], size: tuple[int, int]) -> str:
    """Return the reason why no Image is used."""
    if chosen:
        described = " x ".join(chosen[0].size)
        return f"its OME-XML describes an image of {described} px, and the first image has {size[0]} x {size[1]} px"
    if error:
        return f"its OME-XML cannot be read ({error})"
    if parser.companion:
        return f"its OME-XML is in another file, {units.quoted(parser.companion)}, which is not read"
    return "its OME-XML does not describe the first directory" if parser.images else ""


def _sizes(image: _Image) -> tuple[float | None, float | None, str]:
    """Return x and y in micrometres per pixel, and the problem with them."""
    lengths, problems = [], []
    for axis in "XY":
        name = f"PhysicalSize{axis}"
        stated, unit = (image.pixels.get(key, "").strip() for key in (name, f"{name}Unit"))
        value, problem = units.length(name, stated, unit or "µm") if stated else (None, "")
        lengths.append(value)
        problems += [problem] if problem else []
    if problems:
        # If one direction is invalid, the other is not used: it may contradict the invalid one.
        return None, None, f"in its OME-XML {problems[0]}"
    return lengths[0], lengths[1], ""


def _of_first_directory(images: list[_Image], uuid: str, file_name: str) -> list[_Image]:
    """Return the Images that state directory 0 of this file, else those that state no directory."""
    files = {plane["UUID"]: plane.get("FileName", "") for image in images for plane in image.planes if "UUID" in plane}
    if uuid in files:
        own = {uuid}
    else:
        # Without a UUID of this file, its name identifies it. A single file may have been renamed.
        own = {each for each, name in files.items() if name == file_name} or (set(files) if len(files) == 1 else set())
    stating = [image for image in images if any(_is_first(plane, own) for plane in image.planes)]
    return stating or ([image for image in images if not image.planes] if len(images) > 1 else images)


def _is_first(plane: _Attributes, own: set[str]) -> bool:
    """Return whether a TiffData element covers directory 0 of this file."""
    if "UUID" in plane and plane["UUID"] not in own:
        return False
    return plane.get("IFD", "0").strip() in ("", "0") and plane.get("PlaneCount", "1").strip() != "0"


def _fits(image: _Image, size: tuple[int, int]) -> bool:
    """Return whether an Image has this (width, height), or states no size."""
    stated = image.size
    return not all(text.isdecimal() for text in stated) or (int(stated[0]), int(stated[1])) == size


class _Refused(Exception):
    """The XML has content that the parser rejects."""


class _Parser:
    """A collector of Images and objectives from OME-XML of any schema version."""

    def __init__(self) -> None:
        self.images: list[_Image] = []
        self.objectives: dict[str, str] = {}
        self.uuid = ""
        self.companion = ""
        self._path: list[str] = []
        self._image = _Image()
        self._text = ""

    def parse(self, text: str) -> str:
        """Parse XML up to its end or first error, and return the error."""
        parser = expat.ParserCreate("UTF-8")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._doctype
        try:
            parser.Parse(text.lstrip("\ufeff \t\r\n").split("\0", 1)[0].encode("utf-8", "replace"), True)  # noqa: FBT003
        except expat.ExpatError as error:
            return str(error)
        except _Refused as error:
            return str(error)
        return ""

    def _doctype(self, _name: str, system: str | None, public: str | None, internal: bool) -> None:  # noqa: FBT001
        if system or public or internal:
            # It could define entities, which may expand without bound or refer to other files.
            raise _Refused("it has a document type declaration")

    def _start(self, tag: str, attributes: _Attributes) -> None:
        # Only local names: prefixes differ between writers, and some are not declared.
        self._path.append(tag.rpartition(":")[2])
        self._text = ""
        values = {name.rpartition(":")[2]: value for name, value in attributes.items()}
        match self._path:
            case ["OME"]:
                self.uuid = values.get("UUID", "")
            case ["OME", "BinaryOnly"]:
                self.companion = values.get("MetadataFile", "")
            case ["OME", "Image"]:
                self._image = _Image()
            case ["OME", "Image", "Pixels"]:
                self._image.pixels = values
            case ["OME", "Image", "Pixels", "TiffData"]:
                self._image.planes.append(values)
            case ["OME", "Image", "Pixels", "TiffData", "UUID"]:
                self._image.planes[-1]["FileName"] = values.get("FileName", "")
            case ["OME", "Image", "ObjectiveSettings" | "ObjectiveRef"]:
                self._image.objective = values.get("ID", "")
            case ["OME", "Instrument", "Objective"]:
                self.objectives[values.get("ID", "")] = values.get("NominalMagnification", "")
            case _:
                pass

    def _characters(self, text: str) -> None:
        if self._path[-1] in ("UUID", "AcquisitionDate", "AcquiredDate", "CreationDate"):
            self._text += text

    def _end(self, _tag: str) -> None:
        match self._path:
            case ["OME", "Image", "Pixels", "TiffData", "UUID"]:
                self._image.planes[-1]["UUID"] = self._text.strip()
            case ["OME", "Image", "AcquisitionDate" | "AcquiredDate" | "CreationDate"]:
                self._image.date = self._text.strip()
            case ["OME", "Image"]:
                self.images.append(self._image)
            case _:
                pass
        self._path.pop()
