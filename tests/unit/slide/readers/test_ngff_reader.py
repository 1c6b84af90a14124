"""NGFF stores written here with the ``zarr`` package: what is read exactly, what is refused, and with which reason."""

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image
from zarr.codecs import BloscCodec

from wsi_denoise.errors import (
    IncompleteSlide,
    NotARegularFile,
    NotRGB,
    SlideError,
    SlideVanished,
    TooLarge,
    UnsupportedSlide,
)
from wsi_denoise.slide.geometry import Lattice
from wsi_denoise.slide.reader import open_cached, open_slide, probe
from wsi_denoise.slide.tissue import thumbnail_side, tissue_patches

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")


def image(width: int, height: int) -> np.ndarray:
    """Colours without any plane symmetry, so that turned or swapped axes show; never a value of 0 or 255."""
    y, x = np.mgrid[:height, :width]
    return np.stack([40 + (x * 3 + y) % 180, 30 + (y * 2) % 200, 20 + (x * x + y) % 210], axis=-1).astype(np.uint8)


def halves(pixels: np.ndarray, count: int) -> list[np.ndarray]:
    levels = [pixels]
    for _ in range(count - 1):
        size = (max(1, levels[-1].shape[1] // 2), max(1, levels[-1].shape[0] // 2))
        levels.append(np.asarray(Image.fromarray(levels[-1]).resize(size, Image.Resampling.BOX)))
    return levels


def write(
    path: Path,
    pixels: np.ndarray,
    *,
    version: str = "0.4",
    axes: str = "yxc",
    levels: int = 3,
    names: list[str] | None = None,
    unit: str | None = "micrometer",
    mpp: float = 0.5,
    whole: float | None = None,
    chunk: int = 128,
    channel_chunk: int = 3,
    order: tuple[int, int, int] = (0, 1, 2),
    ome: dict | None = None,
    empty: bool = True,
    below: str = "",
    **options: object,
) -> Path:
    """Write a store as its users have it; `empty` says whether chunks of nothing but the fill value are stored."""
    zarr_format = 2 if version < "0.5" else 3
    group = zarr.open_group(path / below, mode="w", zarr_format=zarr_format)
    names = names or [str(level) for level in range(levels)]
    options = {"fill_value": 0, **options}
    if zarr_format == 2:
        options.setdefault("chunk_key_encoding", {"name": "v2", "separator": "/"})
    datasets = []
    for level, (name, small) in enumerate(zip(names, halves(pixels, len(names)), strict=True)):
        stored = small[..., list(order)]
        stored = stored.reshape(*stored.shape, *(1 for axis in axes if axis not in "yxc"))
        stored = stored.transpose([("yxc" + "".join(a for a in axes if a not in "yxc")).index(axis) for axis in axes])
        chunks = tuple({"y": chunk, "x": chunk, "c": channel_chunk}.get(axis, 1) for axis in axes)
        array = group.create_array(
            name, shape=stored.shape, chunks=chunks, dtype="u1", config={"write_empty_chunks": empty}, **options
        )
        array[...] = stored
        scale = [mpp * 2**level if axis in "yx" else 1.0 for axis in axes]
        steps = [{"type": "scale", "scale": scale}]
        if level:
            steps.append({"type": "translation", "translation": [0.0] * len(axes)})
        datasets.append({"path": name, "coordinateTransformations": steps})
    kinds = {"c": "channel", "t": "time"}
    stated = [
        {"name": axis, "type": kinds.get(axis, "space"), **({"unit": unit} if unit and axis in "xyz" else {})}
        for axis in axes
    ]
    multiscale = {"axes": stated, "datasets": datasets, "name": "a"}
    if whole is not None:
        factors = [whole if axis in "yx" else 1.0 for axis in axes]
        multiscale["coordinateTransformations"] = [{"type": "scale", "scale": factors}]
    if zarr_format == 2:
        group.attrs.update({"multiscales": [{**multiscale, "version": version}], **(ome or {})})
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [multiscale], **(ome or {})}
    return path


def same(path: Path, pixels: np.ndarray) -> None:
    with open_slide(path) as slide:
        height, width = pixels.shape[:2]
        assert (slide.info.width, slide.info.height, slide.info.reader) == (width, height, "zarr")
        np.testing.assert_array_equal(slide.read(0, 0, width, height), pixels)
        np.testing.assert_array_equal(slide.read(width - 7, height - 5, 7, 5), pixels[-5:, -7:])
        np.testing.assert_array_equal(slide.read(100, 50, 140, 90), pixels[50:140, 100:240])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["yxc", "cyx", "tczyx", "czyx", "xyc", "xcy", "zyxct", "tcyx"])
def test_any_order_of_the_axes_is_read_exactly(tmp_path, version, axes):
    pixels = image(300, 210)
    path = write(tmp_path / "a.zarr", pixels, version=version, axes=axes, channel_chunk=1 if axes == "tczyx" else 3)
    same(path, pixels)
    info = probe(path)
    assert (info.mpp, info.levels, info.notes) == ((0.5, 0.5), ((300, 210), (150, 105), (75, 52)), ())


LAYOUTS = {
    "flat names": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    "not compressed": {"compressors": None},
    "levels of any name": {"names": ["s0", "scale1/image", "small"]},
    "one level": {"levels": 1},
    "one chunk": {"chunk": 700},
    "large chunks": {"chunk": 1024},
    "channels in two chunks": {"axes": "cyx", "channel_chunk": 2},
    "fill value 255": {"fill_value": 255},
    "no suffix": {},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_version_4_are_read_exactly(tmp_path, layout):
    big = layout == "large chunks"
    pixels = image(1500, 1300) if big else image(300, 210)
    path = write(tmp_path / ("a" if layout == "no suffix" else "a.ome.zarr"), pixels, **LAYOUTS[layout])
    same(path, pixels)


@pytest.mark.parametrize(
    "options",
    [
        {"shards": (256, 256, 3), "chunk": 64},
        {"shards": (128, 384, 3), "chunk": 128},
        {"compressors": [BloscCodec(cname="zstd")]},
        {"chunk_key_encoding": {"name": "default", "separator": "."}},
        {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
    ],
)
def test_layouts_of_version_5_are_read_exactly(tmp_path, options):
    pixels = image(300, 210)
    same(write(tmp_path / "a.zarr", pixels, version="0.5", **options), pixels)


@pytest.mark.parametrize(
    ("unit", "scale", "whole", "mpp"),
    [
        ("micrometer", 0.5, None, 0.5),
        ("millimeter", 0.0005, None, 0.5),
        ("nanometer", 250.0, None, 0.25),
        ("meter", 5e-7, None, 0.5),
        ("inch", 0.5 / 25400, None, 0.5),
        ("angstrom", 5000.0, None, 0.5),
        ("micrometer", 1.0, 0.25, 0.25),
        ("millimeter", 0.5, 0.001, 0.5),
    ],
)
def test_resolution_is_in_micrometres_whatever_the_unit(tmp_path, unit, scale, whole, mpp):
    path = write(tmp_path / "a.zarr", image(300, 210), unit=unit, mpp=scale, whole=whole)
    assert probe(path).mpp == pytest.approx((mpp, mpp))


@pytest.mark.parametrize(("unit", "word"), [(None, "without a unit"), ("parrot", "parrot")])
def test_a_resolution_without_a_known_unit_is_none_and_noted(tmp_path, unit, word):
    info = probe(write(tmp_path / "a.zarr", image(300, 210), unit=unit))
    assert info.mpp is None
    assert word in " ".join(info.notes)


def test_older_versions_without_axes_or_transformations_are_read(tmp_path):
    pixels = image(300, 210)
    path = write(tmp_path / "a.zarr", pixels, axes="tczyx")
    attributes = json.loads((path / ".zattrs").read_text())
    (multiscale,) = attributes["multiscales"]
    for axes in (["t", "c", "z", "y", "x"], None):
        multiscale["version"], multiscale["axes"] = "0.3", axes
        multiscale["datasets"] = [{"path": each["path"]} for each in multiscale["datasets"]]
        if axes is None:
            del multiscale["axes"]
        (path / ".zattrs").write_text(json.dumps(attributes))
        same(path, pixels)
    assert probe(path).notes == ("the file states no resolution",)


@pytest.mark.parametrize(
    "omero",
    [
        {},
        {"channels": [{"label": "R"}, {"label": "G"}, {"label": "B"}]},
        {"channels": [{"color": "ffffff"}] * 3},
        {"channels": [{"color": "FF0000"}, {"color": "00FF00"}, {"color": "0000FF"}], "rdefs": {"model": "color"}},
        {"channels": "nonsense"},
        7,
    ],
)
def test_omero_metadata_of_any_kind_does_not_matter(tmp_path, omero):
    pixels = image(300, 210)
    same(write(tmp_path / "a.zarr", pixels, ome={"omero": omero}), pixels)


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0)])
def test_channels_go_by_their_colours(tmp_path, order):
    pixels = image(300, 210)
    colours = [("FF0000", "00FF00", "0000FF")[index] for index in order]
    omero = {"channels": [{"color": colour} for colour in colours]}
    path = write(tmp_path / "a.zarr", pixels, order=order, ome={"omero": omero})
    same(path, pixels)
    assert "another order" in " ".join(probe(path).notes)


def bioformats2raw(path: Path, sizes: list[tuple[int, int]], version: str = "0.4") -> list[np.ndarray]:
    images = [image(*size) for size in sizes]
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    layout = {"bioformats2raw.layout": 3}
    group.attrs.update(layout if version == "0.4" else {"ome": {"version": version, **layout}})
    for number, pixels in enumerate(images):
        write(path, pixels, version=version, axes="tczyx", channel_chunk=1, below=str(number))
    ome = zarr.open_group(path / "OME", mode="w", zarr_format=2 if version == "0.4" else 3)
    series = {"series": [str(number) for number in range(len(images))]}
    ome.attrs.update(series if version == "0.4" else {"ome": {"version": version, **series}})
    described = [
        f'<Image ID="Image:{number}"><AcquisitionDate>2009-12-29T09:59:15</AcquisitionDate><Pixels SizeX="{width}" '
        f'SizeY="{height}" PhysicalSizeX="0.25" PhysicalSizeY="0.25"><MetadataOnly/></Pixels></Image>'
        for number, (width, height) in enumerate(sizes)
    ]
    (path / "OME" / "METADATA.ome.xml").write_text(f"<OME>{''.join(described)}</OME>")
    return images


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_of_a_bioformats2raw_store_the_first_image_is_the_slide(tmp_path, version):
    first, *_ = bioformats2raw(tmp_path / "a.zarr", [(300, 210), (280, 160)], version)
    same(tmp_path / "a.zarr", first)
    info = probe(tmp_path / "a.zarr")
    assert info.mpp == (0.5, 0.5)
    assert info.notes == ("the store holds 1 further image, not read",)
    assert info.scan_week == "2009-W53"
    shutil.rmtree(tmp_path / "a.zarr" / "OME")
    same(tmp_path / "a.zarr", first)


def test_resolution_without_a_unit_is_taken_from_the_ome_xml_of_bioformats2raw(tmp_path):
    bioformats2raw(tmp_path / "a.zarr", [(300, 210), (280, 160)])
    edit(tmp_path / "a.zarr" / "0", lambda found: found["multiscales"][0].update(axes=list("tczyx")), ".zattrs")
    info = probe(tmp_path / "a.zarr")
    assert info.mpp == (0.25, 0.25)
    assert "without a unit" in info.notes[0]


def test_of_a_bioformats2raw_store_one_image_can_be_given(tmp_path):
    _, second = bioformats2raw(tmp_path / "a.zarr", [(300, 210), (400, 360)])
    with pytest.raises(UnsupportedSlide, match="image 1"):
        open_slide(tmp_path / "a.zarr")
    same(tmp_path / "a.zarr" / "1", second)


def test_a_bioformats2raw_store_that_lacks_a_listed_image_is_waited_for(tmp_path):
    bioformats2raw(tmp_path / "a.zarr", [(300, 210), (280, 160)])
    shutil.rmtree(tmp_path / "a.zarr" / "1")
    with pytest.raises(IncompleteSlide):
        open_slide(tmp_path / "a.zarr")


def edit(path: Path, change, name: str = ".zarray") -> None:
    found = json.loads((path / name).read_text())
    change(found)
    (path / name).write_text(json.dumps(found))


def array_of(path: Path, **values: object) -> None:
    edit(path / "0", lambda found: found.update(values))


def attributes_of(path: Path, change) -> None:
    edit(path, change, ".zattrs")


def plain_store(path: Path, shape: tuple[int, ...], dtype: str, axes: str) -> None:
    group = zarr.open_group(path, mode="w", zarr_format=2)
    array = group.create_array("0", shape=shape, chunks=shape, dtype=dtype, fill_value=0)
    array[...] = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * len(axes)}]}]
    stated = [{"name": axis} for axis in axes]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": stated, "datasets": datasets}]


@pytest.mark.parametrize(
    ("shape", "dtype", "axes", "error", "words"),
    [
        ((64, 64), "u1", "yx", NotRGB, "1 channel,"),
        ((1, 64, 64), "u1", "cyx", NotRGB, "1 channel,"),
        ((2, 64, 64), "u1", "cyx", NotRGB, "2 channels"),
        ((4, 64, 64), "u1", "cyx", NotRGB, "4 channels"),
        ((64, 64, 7), "u1", "yxc", NotRGB, "7 channels"),
        ((3, 64, 64), "u2", "cyx", NotRGB, "uint16"),
        ((3, 64, 64), "i1", "cyx", NotRGB, "int8"),
        ((3, 64, 64), "f4", "cyx", NotRGB, "float32"),
        ((3, 64, 64), "?", "cyx", NotRGB, "bool"),
        ((3, 5, 64, 64), "u1", "czyx", UnsupportedSlide, "5 focal planes"),
        ((2, 3, 1, 64, 64), "u1", "tczyx", UnsupportedSlide, "2 points in time"),
        ((3, 64, 64, 2), "u1", "cyxq", UnsupportedSlide, "axis q"),
    ],
)
def test_other_images_are_refused_with_the_true_reason(tmp_path, shape, dtype, axes, error, words):
    plain_store(tmp_path / "a.zarr", shape, dtype, axes)
    with pytest.raises(error, match=words) as caught:
        open_slide(tmp_path / "a.zarr")
    assert type(caught.value) is error


def is_raw_plate(found: dict) -> None:
    found.clear()
    found.update({"plate": {}, "bioformats2raw.layout": 3})


def is_three_colours(found: dict) -> None:
    found["omero"] = {"channels": [{"color": "FF00FF"}, {"color": "00FFFF"}, {"color": "FFFF00"}]}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda found: found.update(multiscales=None, plate={"wells": []}), UnsupportedSlide, "plate"),
        (is_raw_plate, UnsupportedSlide, "plate"),
        (lambda found: found.update(multiscales=None, well={"images": []}), UnsupportedSlide, "well"),
        (lambda found: found.update(multiscales=None, labels=["cells"]), UnsupportedSlide, "label images"),
        (lambda found: found.update({"image-label": {}}), UnsupportedSlide, "label image"),
        (lambda found: found.clear(), UnsupportedSlide, "without NGFF's multiscales"),
        (lambda found: found.update(multiscales=[]), UnsupportedSlide, "multiscales"),
        (lambda found: found["multiscales"][0].update(datasets=[]), UnsupportedSlide, "datasets"),
        (lambda found: found["multiscales"][0]["axes"].pop(), UnsupportedSlide, "axes"),
        (lambda found: found["multiscales"][0].update(axes=["y", "y", "c"]), UnsupportedSlide, "axes are"),
        (is_three_colours, NotRGB, "FF00FF"),
    ],
)  # fmt: skip
def test_other_metadata_is_refused_with_the_true_reason(tmp_path, change, error, words):
    path = write(tmp_path / "a.zarr", image(300, 210))
    attributes_of(path, change)
    with pytest.raises(error, match=words):
        open_slide(path)


def test_an_array_without_ngff_metadata_is_refused(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(64, 64, 3), dtype="u1", zarr_format=2)
    array[...] = 1
    with pytest.raises(UnsupportedSlide, match="multiscales"):
        open_slide(tmp_path / "a.zarr")


@pytest.mark.parametrize("where", ["..", "0/../../b.zarr/0", "/etc", "", ".", None, 3, "0\0", "\ud800", "a" * 300])
def test_a_level_never_leads_out_of_the_store(tmp_path, where):
    write(tmp_path / "b.zarr", image(300, 210))
    path = write(tmp_path / "a.zarr", image(300, 210))
    attributes_of(path, lambda found: found["multiscales"][0]["datasets"][0].update(path=where))
    with pytest.raises(UnsupportedSlide, match="its NGFF metadata names"):
        open_slide(path)


@pytest.mark.parametrize("part", ["0", "0/0", "0/0/0/0", "0/.zarray", ".zattrs"])
def test_a_link_inside_a_store_is_refused(tmp_path, part):
    other = write(tmp_path / "b.zarr", image(300, 210))
    path = write(tmp_path / "a.zarr", image(300, 210))
    if (path / part).is_dir():
        shutil.rmtree(path / part)
    else:
        (path / part).unlink()
    (path / part).symlink_to(other / part)
    with pytest.raises(NotARegularFile):
        open_slide(path)


def test_a_linked_image_of_a_bioformats2raw_store_is_refused(tmp_path):
    bioformats2raw(tmp_path / "a.zarr", [(300, 210), (280, 160)])
    (tmp_path / "a.zarr" / "0").rename(tmp_path / "elsewhere")
    (tmp_path / "a.zarr" / "0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotARegularFile):
        open_slide(tmp_path / "a.zarr")


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("place", ["compressor", "filters", "dtype"])
def test_nothing_is_ever_unpickled(tmp_path, place):
    path = write(tmp_path / "a.zarr", image(300, 210))
    for chunk in (path / "0").rglob("*"):
        if chunk.name.isdigit() and chunk.is_file():
            chunk.write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
    codec = {"id": "pickle", "protocol": 5}
    values = {"compressor": codec, "filters": [codec], "dtype": "|O"}
    array_of(path, **{place: values[place]}, **({"filters": [codec]} if place == "dtype" else {}))
    with pytest.raises((NotRGB, UnsupportedSlide)):
        open_slide(path)
    assert not (tmp_path / "mark").exists()


def test_codecs_of_version_3_that_are_not_known_are_refused(tmp_path):
    path = write(tmp_path / "a.zarr", image(300, 210), version="0.5")
    edit(path / "0", lambda found: found["codecs"].append({"name": "numcodecs.pickle"}), "zarr.json")
    with pytest.raises(UnsupportedSlide, match=r"numcodecs\.pickle"):
        open_slide(path)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"shape": [10**6, 10**6, 3]}, TooLarge),
        ({"chunks": [1, 1, 1], "shape": [90_000, 90_000, 3]}, UnsupportedSlide),
        ({"chunks": [30_000, 30_000, 3], "shape": [30_000, 30_000, 3]}, TooLarge),
        ({"shape": [300, -1, 3]}, UnsupportedSlide),
        ({"shape": [300, 3]}, UnsupportedSlide),
        ({"shape": "300"}, UnsupportedSlide),
        ({"chunks": [0, 1, 3]}, UnsupportedSlide),
        ({"fill_value": "x"}, UnsupportedSlide),
        ({"dimension_separator": "+"}, UnsupportedSlide),
        ({"zarr_format": 9}, UnsupportedSlide),
        ({"order": "Q"}, UnsupportedSlide),
    ],
)
def test_array_metadata_that_makes_no_sense_is_refused(tmp_path, values, error):
    path = write(tmp_path / "a.zarr", image(300, 210))
    array_of(path, **values)
    with pytest.raises(error):
        open_slide(path)


CHUNKS = [("0.4", {}), ("0.4", {"levels": 1}), ("0.4", {"axes": "tczyx", "channel_chunk": 1}), ("0.5", {}),
          ("0.5", {"shards": (128, 128, 3), "chunk": 64}), ("0.4", {"fill_value": 255}), ("0.4", {"fill_value": 128}),
          ("0.4", {"levels": 1, "fill_value": 255})]  # fmt: skip


JUNK = (
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    "",
    "x",
    "..",
    "/",
    "\ud800",
    [],
    {},
    [None],
    [1, 2],
    [[]],
    {"a": 1},
    [{}],
    "µ" * 300,
)


def places(value: object, place: tuple = ()) -> list[tuple]:
    """Every place in a JSON value, by keys and positions."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(below for key, each in inside for below in places(each, (*place, key)))]


@pytest.mark.parametrize(("version", "options"), [("0.4", {}), ("0.5", {"shards": (128, 128, 3), "chunk": 64})])
def test_metadata_with_junk_anywhere_is_read_or_refused(tmp_path, version, options):
    colours = {"omero": {"channels": [{"color": "FF0000"}, {"color": "00FF00"}, {"color": "0000FF"}]}}
    path = write(tmp_path / "a.zarr", image(160, 130), version=version, levels=2, ome=colours, **options)
    random = np.random.default_rng(7)
    for name in (
        (".zattrs", "0/.zarray", "1/.zarray") if version == "0.4" else ("zarr.json", "0/zarr.json", "1/zarr.json")
    ):
        text = (path / name).read_text()
        every = places(json.loads(text))
        for _ in range(25):
            changed = [json.loads(text)]
            *keys, last = (0, *every[random.integers(len(every))])
            holder = changed
            for key in keys:
                holder = holder[key]
            holder[last] = JUNK[random.integers(len(JUNK))]
            (path / name).write_text(json.dumps(changed[0]))
            with contextlib.suppress(SlideError):
                open_slide(path).close()
        (path / name).write_text(text)


def chunk_files(path: Path, level: str = "0") -> list[Path]:
    return sorted(each for each in (path / level).rglob("*") if each.is_file() and each.name.isdigit())


@pytest.mark.parametrize(("version", "options"), CHUNKS)
def test_every_chunk_that_is_lost_makes_the_slide_incomplete(tmp_path, version, options):
    path = write(tmp_path / "a.zarr", image(300, 210), version=version, **options)
    probe(path)
    files = [
        chunk for level in options.get("levels", 3) * "0" and ["0", "1", "2"] for chunk in chunk_files(path, level)
    ]
    assert len(files) >= 6
    for chunk in files:
        content = chunk.read_bytes()
        chunk.unlink()
        with pytest.raises(IncompleteSlide, match="not stored"):
            open_slide(path)
        chunk.write_bytes(b"")
        with pytest.raises(IncompleteSlide, match="is empty"):
            open_slide(path)
        chunk.write_bytes(content)
    probe(path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_copy_is_incomplete_until_its_last_file_is_there(tmp_path, version):
    whole = write(tmp_path / "a.zarr", image(300, 210), version=version, compressors=None)
    copy = tmp_path / "copy.zarr"
    files = sorted(each for each in whole.rglob("*") if each.is_file())
    for file in files:
        if copy.exists():
            with pytest.raises(SlideError) as caught:
                open_slide(copy)
            assert isinstance(caught.value, IncompleteSlide), (file, caught.value)
        target = copy / file.relative_to(whole)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        # Half a file is none.
        with pytest.raises(SlideError) as caught:
            open_slide(copy)
        assert isinstance(caught.value, IncompleteSlide), (file, caught.value)
        target.write_bytes(file.read_bytes())
    same(copy, image(300, 210))


def test_a_shard_that_is_cut_off_makes_the_slide_incomplete(tmp_path):
    path = write(tmp_path / "a.zarr", image(300, 210), version="0.5", shards=(128, 128, 3), chunk=64)
    shard = chunk_files(path)[0]
    content = shard.read_bytes()
    for length in (1, 20, len(content) // 2, len(content) - 1):
        shard.write_bytes(content[:length])
        with pytest.raises(IncompleteSlide, match="cut off"):
            open_slide(path)


def test_a_chunk_that_is_lost_while_the_slide_is_open_is_not_filled(tmp_path):
    path = write(tmp_path / "a.zarr", image(300, 210))
    with open_slide(path) as slide:
        chunk_files(path)[0].unlink()
        with pytest.raises(IncompleteSlide, match="not there any more"):
            slide.read(0, 0, 300, 210)
        shutil.rmtree(path)
        with pytest.raises(SlideVanished):
            slide.read(0, 0, 300, 210)


@pytest.mark.parametrize("chunk", [128, 1024])
def test_a_chunk_that_changed_is_read_anew_for_the_new_content(tmp_path, chunk):
    pixels = image(1100, 900)
    path = write(tmp_path / "a.zarr", pixels, chunk=chunk)
    np.testing.assert_array_equal(open_cached(path, content="1").read(0, 0, 1100, 900), pixels)
    array = zarr.open_array(path / "0", mode="r+")
    array[:128, :128] = 7
    changed = open_cached(path, content="2").read(0, 0, 1100, 900)
    assert (changed[:128, :128] == 7).all()
    np.testing.assert_array_equal(changed[128:], pixels[128:])


def glass(width: int, height: int, fill: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A slide of which all but a box is the fill value; in it, tissue in a frame of glass."""
    pixels = np.full((height, width, 3), fill, np.uint8)
    x, y, w, h = box
    noise = np.random.default_rng(1).integers(-3, 4, (h, w, 3))
    pixels[y : y + h, x : x + w] = (np.array([238, 236, 240]) + noise).astype(np.uint8)
    tissue = np.random.default_rng(2).integers(-20, 20, (h - 400, w - 400, 3)) + np.array([190, 90, 150])
    pixels[y + 200 : y + h - 200, x + 200 : x + w - 200] = tissue
    return pixels


SPARSE = [
    ("0.4", {}),
    ("0.4", {"levels": 1}),
    ("0.5", {}),
    ("0.5", {"shards": (1024, 1024, 3)}),
    ("0.4", {"axes": "cyx", "channel_chunk": 1}),
]


@pytest.mark.parametrize("fill", [0, 255])
@pytest.mark.parametrize(("version", "options"), SPARSE)
def test_chunks_that_the_writer_left_out_are_noted_and_no_tissue(tmp_path, version, options, fill):
    pixels = glass(3000, 2600, fill, (700, 600, 1500, 1300))
    path = write(
        tmp_path / "a.zarr",
        pixels,
        version=version,
        chunk=512,
        empty=False,
        fill_value=fill,
        **{"levels": 4, **options},
    )
    info = probe(path)
    assert any("chunks are not stored" in note and f"fill value, {fill}" in note for note in info.notes)
    assert min(info.background) > 200
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(500, 400, 800, 700), pixels[400:1100, 500:1300])
        lattice = Lattice(3000, 2600)
        thumbnail = slide.thumbnail(thumbnail_side(lattice.patch_shape))
        mask = tissue_patches(thumbnail, lattice.patch_shape, (3000, 2600), dilate=0)
        patch = 96
        rows, columns = np.mgrid[: lattice.patch_shape[0], : lattice.patch_shape[1]]
        in_tissue = (columns >= 900 // patch + 1) & (columns < 2000 // patch) & (rows >= 800 // patch + 1)
        in_tissue &= rows < 1700 // patch
        assert mask.patches[in_tissue].all()
        # Chunks are left out beyond x 512 and 2560 and above y 512: patches that lie wholly there.
        left_out = (columns < 512 // patch) | (columns > 2560 // patch) | (rows < 512 // patch)
        assert not mask.patches[left_out].any()


def test_a_copy_of_a_store_with_chunks_left_out_is_incomplete_too(tmp_path):
    pixels = glass(2000, 1600, 255, (500, 300, 900, 900))
    path = write(tmp_path / "a.zarr", pixels, chunk=256, empty=False, fill_value=255)
    probe(path)
    for chunk in chunk_files(path)[::3]:
        content = chunk.read_bytes()
        chunk.unlink()
        with pytest.raises(IncompleteSlide):
            open_slide(path)
        chunk.write_bytes(content)


def test_a_writer_that_stores_empty_chunks_leaves_none_out(tmp_path):
    pixels = glass(2000, 1600, 255, (500, 300, 900, 900))
    path = write(tmp_path / "a.zarr", pixels, chunk=256, levels=1, fill_value=255)
    probe(path)
    (path / "0" / "5" / "7" / "0").unlink()
    with pytest.raises(IncompleteSlide, match="nothing but the fill value 255 are stored"):
        open_slide(path)


def test_a_store_without_a_fill_value_has_no_chunks_left_out(tmp_path):
    pixels = glass(2000, 1600, 0, (500, 300, 900, 900))
    path = write(tmp_path / "a.zarr", pixels, chunk=256, empty=False)
    probe(path)
    array_of(path, fill_value=None)
    with pytest.raises(IncompleteSlide, match="no fill value"):
        open_slide(path)


def test_reading_says_nothing_and_does_not_import_tiatoolbox(tmp_path):
    path = write(tmp_path / "a.zarr", image(300, 210), version="0.5")
    code = (
        "import logging, sys; logging.basicConfig(level=logging.DEBUG)\n"
        "from wsi_denoise.slide.reader import open_slide\n"
        "with open_slide(sys.argv[1]) as slide: slide.read(0, 0, 300, 210)\n"
        "assert 'tiatoolbox' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_smaller_level_of_another_kind_is_left_out_with_a_note(tmp_path):
    pixels = image(300, 210)
    path = write(tmp_path / "a.zarr", pixels)
    edit(path / "1", lambda found: found.update(dtype="<u2"))
    same(path, pixels)
    info = probe(path)
    assert info.levels == ((300, 210), (75, 52))
    assert "level 1 is not used" in " ".join(info.notes)


def test_a_damaged_chunk_is_named(tmp_path):
    path = write(tmp_path / "a.zarr", image(300, 210))
    chunk_files(path)[0].write_bytes(b"nonsense")
    with open_slide(path) as slide, pytest.raises(SlideError) as caught:
        slide.read(0, 0, 300, 210)
    assert caught.value.code == "unreadable_tile"
    assert "level 0, x 0, y 0" in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_in_a_store_is_not_opened(tmp_path):
    path = write(tmp_path / "a.zarr", image(300, 210))
    (path / ".zattrs").unlink()
    os.mkfifo(path / ".zattrs")
    with pytest.raises(NotARegularFile):
        open_slide(path)


@pytest.mark.parametrize("name", ["a.zarr.zip", "a.zip", "a.ozx"])
def test_a_store_in_a_zip_file_says_what_to_do(tmp_path, name):
    path = write(tmp_path / "a.zarr", image(300, 210))
    shutil.make_archive(str(tmp_path / "made"), "zip", path)
    (tmp_path / "made.zip").rename(tmp_path / name)
    with pytest.raises(UnsupportedSlide, match="unpack it"):
        open_slide(tmp_path / name)


@pytest.mark.parametrize("name", ["omezarrpy_04.ome.zarr", "r04_mm.zarr", "r04_tczyx.ome.zarr", "z04_yxc.zarr"])
def test_the_stores_that_users_had_are_read_exactly(shared, name):
    with Image.open(shared / "cases" / "expected_pixels.png") as expected:
        same(shared / "cases" / "ngff-refused" / name, np.asarray(expected.convert("RGB")))
    info = probe(shared / "cases" / "ngff-refused" / name)
    assert info.mpp == (None if name.startswith("omezarrpy") else (0.5, 0.5))


def test_the_store_with_a_lost_chunk_is_waited_for(shared):
    with pytest.raises(IncompleteSlide, match="0/1/1/0"):
        open_slide(shared / "cases" / "zarr-missing-chunk-black" / "r04_missingchunk.zarr")
