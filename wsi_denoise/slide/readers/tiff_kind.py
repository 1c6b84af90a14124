"""Rejection of TIFFs that are not 8-bit RGB slides, with the kind of their images as the reason."""

from __future__ import annotations

from wsi_denoise.errors import NotRGB, UnsupportedSlide
from wsi_denoise.slide.readers.tiff_directory import CODECS, DESCRIPTION, MAX_SEGMENT_BYTES, Directory, TiffFacts

#: TIFF's numbers of codecs for black and white only.
_BILEVEL = {2, 3, 4, 34661}
_PHOTOMETRIC = {0: "grey", 1: "grey", 3: "palette", 4: "mask", 5: "CMYK", 8: "CIELab", 9: "ICCLab", 32803: "CFA"}
_VENDORS = {
    "hamamatsu": "a Hamamatsu NDPI",
    "leica": "a Leica SCN",
    "philips": "a Philips TIFF",
    "trestle": "a Trestle TIFF",
    "ventana": "a Ventana BIF",
}

_FORMATS = {2: "signed integers", 3: "floating point", 5: "complex integers", 6: "complex floating point"}


def _channels(pages: int, maker: str) -> str:
    if maker:
        return f", a multiplex or fluorescence file{maker}"
    if pages == 3:
        return "; whether they are red, green and blue or three stains or markers is uncertain"
    return ", such as markers of a multiplex or fluorescence file, or focal planes"


def check_rgb(facts: TiffFacts, main: Directory) -> None:
    """Reject a TIFF that is not 8-bit RGB, with the reason.

    Parameters
    ----------
    main : Directory
        Full resolution of the slide.

    Raises
    ------
    NotRGB
    UnsupportedSlide
        For an unknown or black-and-white codec, or a tile that is too large.
    """
    pages = sum(len(directory.path) == 1 and directory.size == main.size for directory in facts.directories)
    maker = " by Akoya/PerkinElmer" if "PerkinElmer-QPI" in facts.main.text(DESCRIPTION)[:400] else ""
    depths = "/".join(map(str, sorted(set(main.bits))))
    formats = main.sample_formats - {1, 4}
    if formats:
        kind = ", ".join(_FORMATS.get(each, f"format {each}") for each in sorted(formats))
        raise NotRGB(f"{kind}, {depths} bits per sample{maker}")
    if depths != "8":
        raise NotRGB(f"{depths} bits per sample{maker}")
    if main.samples == 1 and main.photometric in (0, 1) and pages > 1:
        raise NotRGB(f"{pages} images of one grey channel each{_channels(pages, maker)}")
    if main.photometric not in (2, 6) or main.samples not in (3, 4):
        kind = _PHOTOMETRIC.get(main.photometric, "of no known colour model")
        raise NotRGB(f"{main.samples} sample{'s' * (main.samples != 1)} per pixel, {kind}{maker}")
    if main.compression not in CODECS:
        raise UnsupportedSlide(f"its tiles are compressed with codec {main.compression}, which is not known")
    if main.compression in _BILEVEL:
        raise UnsupportedSlide(f"its tiles are compressed with {main.codec}, which has no colours")
    for directory in facts.directories:
        width, height = directory.segment
        if directory.is_tiled and not 0 < width * height * directory.samples <= MAX_SEGMENT_BYTES:
            raise UnsupportedSlide(f"a single tile of it is declared as {width:,} x {height:,} px")


def check_first(facts: TiffFacts) -> tuple[str, ...]:
    """Reject a generic TIFF whose first image may not be the slide, or is stored rotated or mirrored.

    Returns
    -------
    tuple of str
        Notes about the file.

    Raises
    ------
    UnsupportedSlide
        If a larger image follows: the first is then a label, an overview or another series. Also for a rotated or
        mirrored image, because readers interpret its orientation differently.
    """
    main = facts.main
    width, height = main.size
    others = [each for each in facts.directories[1:] if len(each.path) == 1]
    larger = max((each.size for each in others), key=lambda size: size[0] * size[1], default=(0, 0))
    if larger[0] * larger[1] > width * height:
        raise UnsupportedSlide(
            f"its first image, {width} x {height} px, is smaller than a later one, {larger[0]} x {larger[1]} px: which "
            "of them is the slide is not known"
        )
    if main.orientation not in (0, 1):
        raise UnsupportedSlide(f"its first image is stored turned or mirrored (orientation {main.orientation})")
    same = sum(each.size == main.size for each in others)
    return (f"it holds {same + 1} images of this size, of which the first is taken",) if same else ()


def vendor_refusal(vendor: str | None, facts: TiffFacts, words: str) -> str:
    """Return the reason why OpenSlide cannot open a scanner's TIFF.

    Parameters
    ----------
    vendor : str or None
        OpenSlide's name of the vendor.
    words : str
        OpenSlide's error message.
    """
    name = _VENDORS.get(vendor or "", f"a slide of the format {vendor}")
    planes = {each.focal_plane for each in facts.directories if each.focal_plane is not None}
    if planes and 0 not in planes:
        name += f" without the focal plane 0 (it has {', '.join(map(str, sorted(planes)))} nm)"
    return f"it is {name}, and OpenSlide says: {words}"
