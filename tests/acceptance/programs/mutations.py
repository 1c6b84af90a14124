"""Damage done to real slides, drawn from a seed: case number N of a seed is the same bytes on every machine.

A mutation takes the bytes of a file and gives others. Those of TIFF know its directories; every format gets the blind
ones.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Rng = np.random.Generator
Mutate = Callable[[bytearray, Rng], bytearray]

EDGES = (0, 1, 2, 7, 255, 256, 65_535, 65_536, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
SUFFIXES = (
    ".svs",
    ".tif",
    ".tiff",
    ".ndpi",
    ".mrxs",
    ".scn",
    ".bif",
    ".vms",
    ".dcm",
    ".qptiff",
    ".jp2",
    ".png",
    ".jpg",
)
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True)
class Case:
    """One damaged slide.

    Parameters
    ----------
    number : int
    specimen : str
        The real slide, relative to the folder of slides.
    mutation : str
    path : Path
        What was written: a file, or the folder of a DICOM series.
    """

    number: int
    specimen: str
    mutation: str
    path: Path


# -- a TIFF's entries, found again without trust


@dataclass(frozen=True)
class Entry:
    """One entry of a directory: where it lies in the file, and what it says."""

    at: int
    tag: int
    kind: int
    count: int
    value_at: int
    link_at: int  # of the directory's link to the next
    order: str
    big: bool

    def put(self, data: bytearray, value: int, index: int = 0) -> None:
        """Write one value of the entry, cut to its width."""
        width = _BYTES.get(self.kind, 4)
        where = self.value_at + index * width
        if width in (1, 2, 4, 8) and where + width <= len(data):
            data[where : where + width] = (value % (1 << 8 * width)).to_bytes(
                width, "little" if self.order == "<" else "big"
            )


def entries(data: bytes) -> list[Entry]:
    """Return the entries of all directories in the chain."""
    found: list[Entry] = []
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None:
        return found
    try:
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        while offset and len(found) < 2000:
            (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
            start, size = offset + (8 if big else 2), 20 if big else 12
            link = start + count * size
            for at in range(start, link, size):
                tag, kind, values = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, at)
                inline = at + (12 if big else 8)
                room = 8 if big else 4
                where = inline
                if values * _BYTES.get(kind, 1) > room:
                    (where,) = struct.unpack_from(order + ("Q" if big else "I"), data, inline)
                found.append(Entry(at, tag, kind, values, where, link, order, big))
            (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, link)
    except struct.error:
        pass
    return found


def _one(data: bytes, rng: Rng, *tags: int) -> Entry | None:
    chosen = [entry for entry in entries(data) if not tags or entry.tag in tags]
    return chosen[int(rng.integers(len(chosen)))] if chosen else None


def _repoint(data: bytearray, entry: Entry, content: bytes) -> None:
    """Give an entry another value, put at the end of the file."""
    at = len(data)
    data += content
    count = len(content) // _BYTES.get(entry.kind, 1)
    if entry.big:
        struct.pack_into(entry.order + "QQ", data, entry.at + 4, count, at)
    else:
        struct.pack_into(entry.order + "II", data, entry.at + 4, count, at)


def _segment(data: bytes, rng: Rng) -> tuple[int, int] | None:
    """Return (offset, bytes) of a tile or strip of some directory."""
    offsets, counts = _one(data, rng, 324, 273), None
    if offsets is None or offsets.kind not in (3, 4, 16):
        return None
    for entry in entries(data):
        if entry.link_at == offsets.link_at and entry.tag == offsets.tag + (1 if offsets.tag == 324 else 6):
            counts = entry
    if counts is None or counts.kind not in (3, 4, 16):
        return None
    index = int(rng.integers(min(offsets.count, counts.count)))
    values = []
    for entry in (offsets, counts):
        width = _BYTES[entry.kind]
        raw = bytes(data[entry.value_at + index * width : entry.value_at + (index + 1) * width])
        values.append(int.from_bytes(raw, "little" if entry.order == "<" else "big"))
    return values[0], values[1]


# -- blind damage, for every format


def truncate(data: bytearray, rng: Rng) -> bytearray:
    """Cut off anywhere; near both ends more often."""
    places = (
        int(rng.integers(len(data))),
        int(rng.integers(min(len(data), 4096))),
        len(data) - 1 - int(rng.integers(64)),
    )
    return data[: max(1, places[int(rng.integers(3))])]


def empty(_data: bytearray, _rng: Rng) -> bytearray:
    """Leave nothing."""
    return bytearray()


def header(data: bytearray, rng: Rng) -> bytearray:
    """Overwrite bytes among the first few hundred."""
    for _ in range(int(rng.integers(1, 33))):
        data[int(rng.integers(min(len(data), 512)))] = int(rng.integers(256))
    return data


def scatter(data: bytearray, rng: Rng) -> bytearray:
    """Overwrite single bytes anywhere."""
    for _ in range(int(rng.integers(1, 257))):
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    return data


def stretch(data: bytearray, rng: Rng) -> bytearray:
    """Overwrite a stretch with noise, zeros or ones, as a bad disk or a hole does."""
    at, length = int(rng.integers(len(data))), int(rng.integers(1, max(2, len(data) // 4)))
    length = min(length, len(data) - at)
    fill = (rng.bytes(length), b"\0" * length, b"\xff" * length)[int(rng.integers(3))]
    data[at : at + length] = fill
    return data


def remove(data: bytearray, rng: Rng) -> bytearray:
    """Take a stretch out, so that everything behind it has moved."""
    at = int(rng.integers(len(data)))
    del data[at : at + int(rng.integers(1, 4096))]
    return data


def append(data: bytearray, rng: Rng) -> bytearray:
    """Put garbage behind the end."""
    return data + rng.bytes(int(rng.integers(1, 65_536)))


def noise(_data: bytearray, rng: Rng) -> bytearray:
    """Replace everything."""
    return bytearray(rng.bytes(int(rng.integers(1, 20_000))))


# -- TIFF


def tag(data: bytearray, rng: Rng) -> bytearray:
    """Overwrite an entry's number, type, count or value."""
    entry = _one(data, rng)
    if entry is None:
        return header(data, rng)
    part = int(rng.integers(4))
    at, width = ((0, 2), (2, 2), (4, 8 if entry.big else 4), (12 if entry.big else 8, 8 if entry.big else 4))[part]
    value = EDGES[int(rng.integers(len(EDGES)))] if rng.random() < 0.5 else int(rng.integers(2**32))
    value %= 1 << 8 * width
    data[entry.at + at : entry.at + at + width] = value.to_bytes(width, "little" if entry.order == "<" else "big")
    return data


def offsets(data: bytearray, rng: Rng) -> bytearray:
    """Send tiles beyond the end of the file, or to another place in it."""
    entry = _one(data, rng, 324, 273)
    if entry is None:
        return stretch(data, rng)
    for _ in range(int(rng.integers(1, 5))):
        beyond = len(data) + int(rng.integers(2**31)) if rng.random() < 0.5 else int(rng.integers(len(data)))
        entry.put(data, beyond, int(rng.integers(entry.count)))
    return data


def counts(data: bytearray, rng: Rng) -> bytearray:
    """Give tiles no bytes, too few, or too many."""
    entry = _one(data, rng, 325, 279)
    if entry is None:
        return stretch(data, rng)
    for _ in range(int(rng.integers(1, 5))):
        entry.put(data, EDGES[int(rng.integers(len(EDGES)))], int(rng.integers(entry.count)))
    return data


def loop(data: bytearray, rng: Rng) -> bytearray:
    """Link a directory to an earlier one, to itself, or to anywhere."""
    entry = _one(data, rng)
    if entry is None:
        return header(data, rng)
    width = 8 if entry.big else 4
    first = int.from_bytes(data[8 : 8 + width] if entry.big else data[4:8], "little" if entry.order == "<" else "big")
    where = first if rng.random() < 0.6 else int(rng.integers(len(data)))
    data[entry.link_at : entry.link_at + width] = where.to_bytes(width, "little" if entry.order == "<" else "big")
    return data


def size(data: bytearray, rng: Rng) -> bytearray:
    """Declare another width or height, up to 2^31 and more."""
    for _ in range(int(rng.integers(1, 3))):
        entry = _one(data, rng, 256, 257)
        if entry is None:
            return _dicom_size(data, rng)
        entry.put(data, EDGES[int(rng.integers(len(EDGES)))] if rng.random() < 0.7 else int(rng.integers(1, 20_000)))
    return data


def tile_size(data: bytearray, rng: Rng) -> bytearray:
    """Declare another size of tiles, or other rows per strip."""
    entry = _one(data, rng, 322, 323, 278)
    if entry is None:
        return _dicom_size(data, rng)
    entry.put(data, EDGES[int(rng.integers(len(EDGES)))] if rng.random() < 0.7 else 16 * int(rng.integers(1, 64)))
    return data


def kind(data: bytearray, rng: Rng) -> bytearray:
    """Declare another codec, colour model, depth or number of samples."""
    entry = _one(data, rng, 258, 259, 262, 277, 284, 317, 338, 339)
    if entry is None:
        return header(data, rng)
    codecs = (0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 33003, 33005, 34712, 34887, 34925, 50000, 50001, 50002, 65_535)
    entry.put(data, codecs[int(rng.integers(len(codecs)))])
    return data


def resolution(data: bytearray, rng: Rng) -> bytearray:
    """Say nonsense about micrometres per pixel, in tags and in the description."""
    entry = _one(data, rng, 282, 283)
    if entry is not None and entry.value_at + 8 <= len(data):
        pairs = ((0, 0), (1, 0), (0, 1), (2**32 - 1, 1), (1, 2**32 - 1), (25_400, 264))
        struct.pack_into(entry.order + "II", data, entry.value_at, *pairs[int(rng.integers(len(pairs)))])
    for word in (b"MPP = ", b'PhysicalSizeX="', b"AppMag = "):
        at = data.find(word)
        if at >= 0:
            value = (b"1e300", b"-0.50", b"nan  ", b"inf  ", b"0.000", b"\xff\x00\xfe<>")[int(rng.integers(6))]
            data[at + len(word) : at + len(word) + len(value)] = value
    return data


def bomb(data: bytearray, rng: Rng) -> bytearray:
    """Put in a tile that decodes to far more than its size: gigabytes of zeros, or a picture of 65,500 px a side."""
    entry = _one(data, rng, 324, 273)
    found = _segment(data, rng)
    if entry is None or found is None:
        at = data.find(b"\xff\xc0\x00\x11")
        if at >= 0:
            data[at + 5 : at + 9] = b"\xff\xdc\xff\xdc"
        return data if at >= 0 else stretch(data, rng)
    if rng.random() < 0.5:
        content = zlib.compress(bytes(64 << 20), 9)
        codec = _one(data, rng, 259)
        if codec is not None:
            codec.put(data, 8)
    else:
        frame = b"\xff\xc0\x00\x11\x08\xff\xdc\xff\xdc\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00"
        content = b"\xff\xd8" + frame + bytes(rng.bytes(2000)) + b"\xff\xd9"
    index = int(rng.integers(entry.count))
    at = len(data)
    data += content
    entry.put(data, at, index)
    for other in entries(data):
        if other.link_at == entry.link_at and other.tag in (325, 279):
            other.put(data, len(content), index)
    return data


def text(data: bytearray, rng: Rng) -> bytearray:
    """Replace the description: entities that expand without end, megabytes, quotes, bytes that are not text."""
    entry = _one(data, rng, 270)
    if entry is None:
        return scatter(data, rng)
    laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    choices = (
        f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a0 "ha">{laughs}]><OME>&a11;</OME>'.encode(),
        b"Aperio Image Library v12\r\n|AppMag = 40|MPP = 0.25|" * 40_000,
        b'<OME><Image><Pixels PhysicalSizeX="\'"/><script>' + bytes(range(256)) * 4,
        b"wsi-denoise \0\0" + rng.bytes(500),
        b"Hamamatsu\0" * 10 + b"\x1b]0;x\x07",
    )
    _repoint(data, entry, choices[int(rng.integers(len(choices)))] + b"\0")
    return data


# -- DICOM

_DICOM_SIZES = (
    b"\x28\x00\x10\x00US\x02\x00",
    b"\x28\x00\x11\x00US\x02\x00",
    b"\x48\x00\x06\x00UL\x04\x00",
    b"\x48\x00\x07\x00UL\x04\x00",
)


def _dicom_size(data: bytearray, rng: Rng) -> bytearray:
    """Declare another size of frames or of the whole matrix."""
    element = _DICOM_SIZES[int(rng.integers(len(_DICOM_SIZES)))]
    at = data.find(element)
    if at < 0:
        return header(data, rng)
    at += len(element)
    width = 2 if element[4:6] == b"US" else 4
    data[at : at + width] = (EDGES[int(rng.integers(len(EDGES)))] % (1 << 8 * width)).to_bytes(width, "little")
    return data


def length(data: bytearray, rng: Rng) -> bytearray:
    """Overwrite the length of a DICOM element, or bytes of the attributes."""
    if data[128:132] != b"DICM":
        return tag(data, rng)
    at = 140 + int(rng.integers(min(3000, len(data) - 150)))
    found = data.find(b"\x00", at, at + 200)
    data[found if found > 0 else at] = int(rng.integers(256))
    return data


MUTATIONS: dict[str, Mutate] = {
    each.__name__: each
    for each in (
        truncate, empty, header, scatter, stretch, remove, append, noise, tag, offsets, counts, loop, size, tile_size,
        kind, resolution, bomb, text, length,
    )
}  # fmt: skip
RARE = ("empty", "noise")
EXTENSION, UNCHANGED = "extension", "unchanged"


def specimens(folder: Path) -> list[Path]:
    """Return every real slide below a folder: files, and the folders of DICOM series."""
    found = {file.parent if file.suffix == ".dcm" else file for file in folder.rglob("*") if file.is_file()}
    return sorted(path for path in found if path.suffix not in ("", ".md", ".txt", ".csv") and path != folder)


def make(folder: Path, seed: int, number: int, target: Path) -> Case:
    """Write case `number` of a seed below `target`, and return what it is.

    Parameters
    ----------
    folder : Path
        The real slides.
    target : Path
        An existing folder; the case gets a name of its own in it, complete at once.
    """
    rng = np.random.default_rng([seed, number])
    known = specimens(folder)
    specimen = known[number % len(known)]
    names = [name for name in MUTATIONS if name not in RARE or rng.random() < 0.2] + [EXTENSION]
    mutation = names[int(rng.integers(len(names)))]
    if rng.random() < 0.02:
        mutation = UNCHANGED
    name = f"{number:06d}-{mutation}-{specimen.name}"
    path = target / name
    part = target / f".{name}.part"
    if specimen.is_dir():
        part.mkdir()
        files = sorted(specimen.iterdir())
        hit = int(rng.integers(len(files)))
        for index, file in enumerate(files):
            content = file.read_bytes()
            (part / file.name).write_bytes(_changed(content, mutation, rng) if index == hit else content)
    else:
        part.write_bytes(_changed(specimen.read_bytes(), mutation, rng))
        if mutation == EXTENSION:
            path = path.with_suffix(SUFFIXES[int(rng.integers(len(SUFFIXES)))])
    part.rename(path)
    return Case(number, str(specimen.relative_to(folder)), mutation, path)


def _changed(content: bytes, mutation: str, rng: Rng) -> bytes:
    if mutation in (EXTENSION, UNCHANGED) or not content:
        return content
    return bytes(MUTATIONS[mutation](bytearray(content), rng))


def every(folder: Path, seed: int, numbers: range, target: Path) -> Iterator[Case]:
    """Write a range of cases."""
    for number in numbers:
        yield make(folder, seed, number, target)
