"""Reader of slides in NGFF (OME-Zarr) with the ``zarr`` package.

``docs/evidence/formats.md`` lists the supported and rejected images. Before pixels are read, the metadata of a folder
is checked, then the files of every array, then its missing chunks.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsi_denoise.errors import (
    IncompleteSlide,
    NotARegularFile,
    NotRGB,
    SlideError,
    TooLarge,
    UnsupportedSlide,
)
from wsi_denoise.slide import metadata, ome
from wsi_denoise.slide.base import Pixels, Slide, SlideInfo, stat_source
from wsi_denoise.slide.readers import ngff_metadata
from wsi_denoise.slide.readers.ngff_array import ZarrArray, array_at, read_metadata
from wsi_denoise.slide.readers.ngff_gaps import check_gaps
from wsi_denoise.slide.readers.ngff_level import ChunkGone, Level, placement_of

METADATA_NAMES = (".zattrs", ".zgroup", ".zarray", "zarr.json")
"""Files that make a folder a Zarr group or array."""

#: Maximum number of images in a store of bioformats2raw.
MAX_IMAGES = 1_000
#: Maximum bytes of OME-XML that are read.
MAX_DESCRIPTION = 16 << 20


def is_ngff(folder: Path) -> bool:
    """Return whether a folder is a Zarr group or array, by its metadata files."""
    return any(os.path.lexists(folder / name) for name in METADATA_NAMES)


def open_ngff(path: Path, max_megapixels: float) -> Slide:
    """Open an NGFF image.

    Parameters
    ----------
    path : Path
        Folder of the image, or of a store of bioformats2raw.
    max_megapixels : float
        Limit of pixels at level 0, in millions. It is checked before the files of a level are listed.

    Raises
    ------
    IncompleteSlide
        Metadata or chunks are missing or truncated.
    UnsupportedSlide, NotRGB, TooLarge, NotARegularFile
    """
    attributes = _group(path)
    if attributes is None:
        raise UnsupportedSlide("it is a single Zarr array, without NGFF's multiscales metadata")
    folder = path
    description = ""
    notes: tuple[str, ...] = ()
    if ngff_metadata.is_bioformats2raw(attributes):
        folder, attributes, notes = _first_image(path)
        description = _description(path)
    image = ngff_metadata.image_of(attributes)
    arrays, more = _arrays(folder, image, max_megapixels)
    order = image.channels or (0, 1, 2)
    levels = [Level(array, image.axes, order) for array in arrays]
    check_gaps(levels)
    return NgffSlide(_info(path, image, levels, description, (*notes, *image.notes, *more)), levels)


def _group(folder: Path) -> dict[str, object] | None:
    """Return the attributes of a Zarr group, or None for an array.

    Raises
    ------
    IncompleteSlide
    """
    found = read_metadata(folder / "zarr.json")
    if found is not None:
        attributes = found[1].get("attributes")
        if found[1].get("node_type") != "group":
            return None
        return attributes if isinstance(attributes, dict) else {}
    if os.path.lexists(folder / ".zarray"):
        return None
    found = read_metadata(folder / ".zattrs")
    if found is None:
        raise IncompleteSlide(f"{folder.name} has no .zattrs, which holds the NGFF metadata")
    return found[1]


def _first_image(store: Path) -> tuple[Path, dict[str, object], tuple[str, ...]]:
    """Return folder and attributes of the slide in a store of several images, with notes.

    The first image is the slide. Of the others, such as a label or macro image, only the size is read.

    Raises
    ------
    IncompleteSlide
        The first image, or one that the store lists, is missing.
    UnsupportedSlide
        A later image is larger, so it is unknown which of them is the slide.
    """
    names = _series(store)
    found = _group(_inside(store, names[0].split("/"))) if names else None
    if found is None:
        raise IncompleteSlide(f"{store.name} holds no image yet")
    if len(names) == 1:
        return store / names[0], found, ()
    first = _megapixels(store / names[0], found)
    for name in names[1:]:
        other = _group(_inside(store, name.split("/")))
        if other is not None and _megapixels(store / name, other) > first:
            raise UnsupportedSlide(
                f"its first image is smaller than image {name}: which of them is the slide is not known; "
                "give the folder of one image"
            )
    more = len(names) - 1
    return store / names[0], found, (f"the store holds {more} further image{'s' * (more > 1)}, not read",)


def _series(store: Path) -> list[str]:
    """Return the names of the images' groups: those that the group ``OME`` lists, else 0, 1, 2 and so on."""
    listed = None
    if os.path.lexists(store / "OME"):
        _inside(store, ("OME",))
        for name in ("zarr.json", ".zattrs"):
            found = read_metadata(store / "OME" / name)
            if found is not None:
                held = found[1].get("attributes") if name == "zarr.json" else found[1]
                listed = ngff_metadata.ome_attributes(held).get("series") if isinstance(held, dict) else None
                break
    if isinstance(listed, list) and listed:
        if len(listed) > MAX_IMAGES:
            raise UnsupportedSlide(f"the store lists {len(listed)} images; at most {MAX_IMAGES:,} are supported")
        return ["/".join(ngff_metadata.folder_names(each)) for each in listed]
    numbered = itertools.takewhile(lambda name: os.path.lexists(store / name), map(str, range(MAX_IMAGES)))
    return list(numbered)


def _megapixels(folder: Path, attributes: dict[str, object]) -> float:
    """Return the size of another image in megapixels; 0 if it cannot be read."""
    try:
        image = ngff_metadata.image_of(attributes)
        array = array_at(_inside(folder, image.datasets[0].path))
    except IncompleteSlide:
        raise
    except SlideError:
        return 0.0
    if len(array.shape) != len(image.axes):
        return 0.0
    return array.shape[image.axes.index("x")] * array.shape[image.axes.index("y")] / 1e6


def _inside(folder: Path, parts: Sequence[str]) -> Path:
    """Return a folder below another one.

    Raises
    ------
    IncompleteSlide
        The folder does not exist.
    NotARegularFile
        A part of its path is a link or a file. A link could lead out of the store.
    """
    for part in parts:
        folder = folder / part
        try:
            mode = folder.lstat().st_mode
        except FileNotFoundError as error:
            raise IncompleteSlide(
                f"the folder {'/'.join(parts)}, which the NGFF metadata names, is not there"
            ) from error
        if not stat.S_ISDIR(mode):
            raise NotARegularFile(f"{'/'.join(parts)}, a part of the slide")
    return folder


def _arrays(folder: Path, image: ngff_metadata.Image, max_megapixels: float) -> tuple[list[ZarrArray], tuple[str, ...]]:
    """Return the arrays of the levels that can be used, largest first, and notes on the others."""
    arrays: list[ZarrArray] = []
    notes: list[str] = []
    for dataset in image.datasets:
        name = "/".join(dataset.path)
        try:
            array = array_at(_inside(folder, dataset.path))
            placement = placement_of(array, image.axes)
        except (NotRGB, UnsupportedSlide, TooLarge) as error:
            if not arrays:
                raise
            # Outputs are made from level 0 only, so an unusable smaller level does not matter.
            notes.append(f"level {name} is not used: {error.detail}")
            continue
        width, height = array.shape[placement.x], array.shape[placement.y]
        if width * height > max_megapixels * 1e6:
            raise TooLarge(f"{width:,} x {height:,} px; limits.megapixels is {max_megapixels:g}")
        if arrays and (width > arrays[-1].shape[placement.x] or height > arrays[-1].shape[placement.y]):
            raise UnsupportedSlide(f"level {name} is larger than the one before it")
        arrays.append(array)
    return arrays, tuple(notes)


def _description(store: Path) -> str:
    """Return the OME-XML of a store of bioformats2raw; empty if it has none."""
    try:
        handle = os.open(_inside(store, ("OME",)) / "METADATA.ome.xml", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, IncompleteSlide):
        return ""
    with open(handle, "rb") as file:  # noqa: PTH123 - a descriptor has no path
        return file.read(MAX_DESCRIPTION).decode("utf-8", "replace") if stat.S_ISREG(os.fstat(handle).st_mode) else ""


def _info(
    path: Path, image: ngff_metadata.Image, levels: Sequence[Level], description: str, notes: Sequence[str]
) -> SlideInfo:
    first = levels[0]
    facts = ome.ome_facts(description, first.size, "") if ome.is_ome(description) else ome.OmeFacts()
    own, described = ngff_metadata.resolution(image), metadata.Statement(facts.x, facts.y, facts.problem)
    mpp, unknown = metadata.first_believed([own, described] if own.x is None else [own])
    left_out = int((~first.stored).sum())
    gap = f"{left_out:,} of {first.stored.size:,} chunks are not stored and count as empty: their value is the file's"
    channels = (
        () if image.channels in {None, (0, 1, 2)} else ("the file stores its channels in another order than RGB",)
    )
    return SlideInfo(
        path=path,
        width=first.size[0],
        height=first.size[1],
        mpp=mpp,
        objective_power=facts.objective,
        levels=tuple(level.size for level in levels),
        scan_week=metadata.scan_week(facts.date),
        compression=first.array.compression,
        reader="zarr",
        tile=first.chunk if max(first.chunk) <= 4096 else (256, 256),
        notes=(*unknown, *notes, *channels, *((f"{gap} fill value, {first.array.fill or 0}",) if left_out else ())),
    )


class NgffSlide(Slide):
    """A slide in NGFF."""

    def __init__(self, info: SlideInfo, levels: Sequence[Level]) -> None:
        self.info = info
        self._levels: Sequence[Level] | None = tuple(levels)

    def close(self) -> None:
        """Release the arrays. No file stays open between reads."""
        self._levels = None

    def trim(self) -> None:
        """Free decoded chunks."""
        for level in self._open_levels():
            level.trim()

    def is_empty(self, level: int, x: int, y: int, width: int, height: int) -> bool:
        """Return whether no chunk of a region of a level is stored."""
        return self._open_levels()[level].is_gap(x, y, width, height)

    def thumbnail(self, max_side: int) -> Pixels:
        """Return the whole slide as :meth:`Slide.thumbnail`, with the background instead of missing chunks.

        The tissue mask is made from it, and the fill value, black in most files, would count as tissue. :meth:`read`
        returns the fill value, as other readers of the file do.
        """
        pixels = super().thumbnail(max_side)
        first = self._open_levels()[0]
        if first.stored.all():
            return pixels
        share = _share_of_gaps(first, (pixels.shape[1], pixels.shape[0]))
        behind = np.array(self.info.background, np.float32) - (first.array.fill or 0)
        # The thumbnail is a mean over areas, so the fill value's share of it can be replaced.
        painted: Pixels = np.clip(np.rint(pixels + share * behind), 0, 255).astype(np.uint8)
        return painted

    def _open_levels(self) -> Sequence[Level]:
        if self._levels is None:
            raise ValueError("the slide is closed")
        return self._levels

    def _read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        try:
            return self._open_levels()[level].read(x, y, width, height)
        except ChunkGone as error:
            stat_source(self.info.path)
            raise IncompleteSlide(f"the chunk {error} is not there any more") from error


def _share_of_gaps(level: Level, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return the share of each pixel of a thumbnail of `size` that has no stored chunk, (height, width, 3)."""
    across = _overlaps(level.size[0], level.chunk[0], size[0])
    down = _overlaps(level.size[1], level.chunk[1], size[1])
    share = np.zeros((size[1], size[0], 3), np.float32)
    for which in range(level.stored.shape[0]):
        gaps = (~level.stored[which]).astype(np.float32)
        share[..., level.channels((which, 0, 0))] = (down.T @ gaps @ across)[..., None]
    return share


def _overlaps(full: int, step: int, small: int) -> npt.NDArray[np.float32]:
    """Return the share of each thumbnail pixel that is in each chunk along one side, (chunks, pixels)."""
    starts = np.arange(0, full, step)[:, None]
    ends = np.minimum(starts + step, full)
    edges = np.arange(small + 1) * (full / small)
    inside = np.minimum(ends, edges[1:]) - np.maximum(starts, edges[:-1])
    overlaps: npt.NDArray[np.float32] = (np.clip(inside, 0, None) / (full / small)).astype(np.float32)
    return overlaps
