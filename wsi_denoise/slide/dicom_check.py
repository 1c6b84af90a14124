"""What a DICOM file says about itself when OpenSlide refuses it, and which codec its pixels have."""

from __future__ import annotations

import warnings
from pathlib import Path

from wsi_denoise.errors import EmptyFile, IncompleteSlide, NotRGB, SlideError, TruncatedSlide, UnsupportedSlide

_CODECS = {
    "1.2.840.10008.1.2.4.50": "jpeg",
    "1.2.840.10008.1.2.4.51": "jpeg",
    "1.2.840.10008.1.2.4.57": "lossless jpeg",
    "1.2.840.10008.1.2.4.70": "lossless jpeg",
    "1.2.840.10008.1.2.4.80": "jpeg-ls",
    "1.2.840.10008.1.2.4.81": "jpeg-ls",
    "1.2.840.10008.1.2.4.90": "jpeg2000",
    "1.2.840.10008.1.2.4.91": "jpeg2000",
    "1.2.840.10008.1.2.5": "rle",
}

_BESIDE = (["LABEL"], ["OVERVIEW"], ["THUMBNAIL"])
"""Third value of the ImageType of what a series holds besides the slide."""


def is_dicom(head: bytes) -> bool:
    """Whether a file that starts so is a DICOM file."""
    return head[128:132] == b"DICM"


def codec(file: Path) -> str | None:
    """Return the codec that the transfer syntax names, from the start of the file."""
    with file.open("rb") as opened:
        head = opened.read(4096)
    # The file's meta group is always explicit little endian: tag (0002,0010), type UI, two bytes of length.
    at = head.find(b"\x02\x00\x10\x00UI", 132)
    if at < 0:
        return None
    length = int.from_bytes(head[at + 6 : at + 8], "little")
    syntax = head[at + 8 : at + 8 + length].decode("ascii", "replace").rstrip("\0 ")
    if syntax in _CODECS:
        return _CODECS[syntax]
    return "other" if syntax.startswith("1.2.840.10008.1.2.4.") else "none"


def refusal(file: Path, reason: str) -> SlideError:
    """Return the true reason why a DICOM file cannot be read, given what OpenSlide said."""
    if file.stat().st_size == 0:
        return EmptyFile(file.name)
    if "end of filehandle" in reason:
        return TruncatedSlide(f"DICOM: {reason}")
    try:
        import pydicom  # noqa: PLC0415

        with warnings.catch_warnings():
            # Its remarks on odd values are no help to a user.
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(file, stop_before_pixels=True)
            modality = str(data.get("Modality", "unknown"))
            samples, bits = int(data.get("SamplesPerPixel", 0)), int(data.get("BitsAllocated", 0))
            photometric = str(data.get("PhotometricInterpretation", "unknown"))
            image_type = [str(word) for word in data.get("ImageType", None) or ()]
    except Exception as error:  # noqa: BLE001 - damage makes pydicom raise anything, and all of it is in the reason
        return UnsupportedSlide(f"DICOM: {reason} ({error})")
    if modality != "SM":
        reason = f"DICOM of modality {modality}, not slide microscopy (SM)"
    elif image_type[2:3] in _BESIDE:
        return IncompleteSlide(f"of the DICOM series only {image_type[2].lower()} and the like are there")
    elif (samples, bits) != (3, 8):
        return NotRGB(f"DICOM with {samples} sample{'s' * (samples != 1)} of {bits} bits, {photometric}")
    else:
        reason = f"DICOM: {reason}"
    return UnsupportedSlide(reason)
