"""Resolution as TIFFs state it: OME-XML, ImageJ, Aperio's description, and tags."""

import math

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from wsi_denoise.slide import units
from wsi_denoise.slide.ome import is_ome, ome_facts
from wsi_denoise.slide.reader import open_slide

WIDTH, HEIGHT = 96, 80
SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def write(path, description: str | bytes = b"", *, pages: int = 1, **options):
    """Write a TIFF with a description of any bytes; later pages are smaller."""
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    raw = description if isinstance(description, bytes) else description.encode()
    with tifffile.TiffWriter(path, ome=False) as tiff:
        for page in range(pages):
            extra = [(270, 2, len(raw) + 1, raw + b"\0", True)] if raw and page == 0 else []
            shown = pixels[: HEIGHT - 8 * page, : WIDTH - 8 * page]
            if options.get("planarconfig") == "separate":
                shown = np.moveaxis(shown, 2, 0)
            tiff.write(shown, photometric="rgb", metadata=None, extratags=extra, **{"tile": (64, 64), **options})
    return path


def resolution(path):
    with open_slide(path) as slide:
        return slide.info.mpp, slide.info.notes


def pixels(attributes: str, size: tuple[int, int] = (WIDTH, HEIGHT), inside: str = "") -> str:
    return f'<Pixels ID="p" SizeX="{size[0]}" SizeY="{size[1]}" {attributes}>{inside}</Pixels>'


def document(*images: str, root: str = f'xmlns="{SCHEMA}"', before: str = "", below: str = "") -> str:
    inside = "".join(f'<Image ID="Image:{number}">{image}</Image>' for number, image in enumerate(images))
    return f"{before}<OME {root}>{below}{inside}</OME>"


def data(ifd: int | None, uuid: str = "", name: str = "") -> str:
    number = "" if ifd is None else f'IFD="{ifd}"'
    other = f'<UUID FileName="{name}">{uuid}</UUID>' if uuid else ""
    return f'<TiffData {number} PlaneCount="1">{other}</TiffData>'


HALF = 'PhysicalSizeX="0.5" PhysicalSizeY="0.5"'


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        *[(name, "0.5") for name in ("µm", "μm", "um", "micrometer", "micrometre", "Micrometers", "micron", "microns")],
        *[(name, "500") for name in ("nm", "nanometer")],
        *[(name, "5e-4") for name in ("mm", "MM", "millimeter", "millimetre")],
        *[(name, "5000") for name in ("Å", "Angstrom", "angstroms", "ångström")],
        *[(name, repr(0.5 / 25_400)) for name in ("in", "inch", "inches")],
        *[
            ("&#181;m", "0.5"),
            ("&#xB5;m", "0.5"),
            ("&#956;m", "0.5"),
            ("&#x3bc;m", "0.5"),
            (" µm ", " 0.5 "),
            ("", "0.5"),
        ],
        *[("cm", "5e-5"), ("m", "5e-7"), ("pm", "500000"), ("ft", repr(0.5 / 304_800)), ("thou", repr(0.5 / 25.4))],
        *[("µm", "0,5"), ("µm", ".5"), ("µm", "+5.0E-1"), ("Âµm", "0.5")],
    ],
)
def test_ome_units_of_any_name_are_understood(tmp_path, unit, value):
    attributes = " ".join(f'PhysicalSize{axis}="{value}" PhysicalSize{axis}Unit="{unit}"' for axis in "XY")
    mpp, notes = resolution(write(tmp_path / "a.ome.tif", document(pixels(attributes))))
    assert mpp == pytest.approx((0.5, 0.5))
    assert notes == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"', "'"),
        lambda text: text.replace("=", " = "),
        lambda text: text.replace(" Physical", "\n\t Physical"),
        lambda text: text.replace("<", "<ome:").replace("<ome:/", "</ome:").replace("xmlns=", "xmlns:ome="),
        lambda text: text.replace("<", "<ome:").replace("<ome:/", "</ome:").replace("xmlns=", "about="),
        lambda text: f'<?xml version="1.0" encoding="UTF-8"?>\n<!-- {"Warning: a comment. " * 200} -->\n{text}',
        lambda text: f"<?xml version='1.0'?><!DOCTYPE OME>{text}",
        lambda text: text.replace("<Image", "<!-- <Image><Pixels PhysicalSizeX='7'/></Image> --><Image"),
        lambda text: text.replace("</OME>", "<StructuredAnnotations><Pixels PhysicalSizeX='7'/>" * 9),
    ],
)
def test_ome_xml_in_any_writing_is_read(tmp_path, change):
    attributes = 'PhysicalSizeX="0.5" PhysicalSizeXUnit="µm" PhysicalSizeY="0.25" PhysicalSizeYUnit="µm"'
    path = write(tmp_path / "a.ome.tif", change(document(pixels(attributes))))
    assert resolution(path) == ((0.5, 0.25), ())


@pytest.mark.parametrize(
    "declared", ["", '<?xml version="1.0" encoding="ISO-8859-1"?>', '<?xml version="1.0" encoding="UTF-8"?>']
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le", "utf-16-be"])
def test_ome_xml_in_any_encoding_is_read_whatever_it_declares(tmp_path, declared, encoding):
    attributes = 'PhysicalSizeX="500" PhysicalSizeXUnit="nm" PhysicalSizeY="0.5" PhysicalSizeYUnit="µm"'
    path = write(tmp_path / "a.ome.tif", document(pixels(attributes), before=declared).encode(encoding))
    assert resolution(path) == ((0.5, 0.5), ())


def test_units_of_both_directions_are_their_own_and_one_direction_serves_both(tmp_path):
    mixed = 'PhysicalSizeX="500" PhysicalSizeXUnit="nm" PhysicalSizeY="0.0004" PhysicalSizeYUnit="mm"'
    assert resolution(write(tmp_path / "a.ome.tif", document(pixels(mixed))))[0] == pytest.approx((0.5, 0.4))
    assert resolution(write(tmp_path / "b.ome.tif", document(pixels('PhysicalSizeY="0.5"')))) == ((0.5, 0.5), ())


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="furlong"', '"0.5" in the unit "furlong"'),
        ('PhysicalSizeX="0.5" PhysicalSizeY="0.5" PhysicalSizeYUnit="pixel"', 'the unit "pixel"'),
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="reference frame"', 'the unit "reference frame"'),
        ('PhysicalSizeX="NaN" PhysicalSizeY="0.5"', 'PhysicalSizeX is "NaN"'),
        ('PhysicalSizeX="INF"', 'PhysicalSizeX is "INF"'),
        ('PhysicalSizeX="1e999"', 'PhysicalSizeX is "1e999"'),
        ('PhysicalSizeX="half"', 'PhysicalSizeX is "half"'),
        ('PhysicalSizeX="-0.5" PhysicalSizeY="-0.5"', "-0.5 x -0.5 um/px, not believed"),
        ('PhysicalSizeX="0" PhysicalSizeY="0"', "0 x 0 um/px, not believed"),
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="Mm"', "5e+11 x 5e+11 um/px, not believed"),
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="m"', "5e+05 x 5e+05 um/px, not believed"),
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="&micro;m"', "cannot be read (undefined entity"),
        ('PhysicalSizeXUnit="µm"', "the file states no resolution"),
        ('PhysicalSizeX=""', "the file states no resolution"),
    ],
)
def test_what_is_not_understood_is_quoted_and_no_resolution_is_made_of_it(tmp_path, attributes, words):
    mpp, notes = resolution(write(tmp_path / "a.ome.tif", document(pixels(attributes))))
    assert mpp is None
    assert len(notes) == 1
    assert words in notes[0]


def test_tags_serve_where_ome_xml_is_not_understood_and_the_note_stays(tmp_path):
    description = document(pixels('PhysicalSizeX="1" PhysicalSizeXUnit="cubit"'))
    path = write(tmp_path / "a.ome.tif", description, resolution=(20000, 20000), resolutionunit=3)
    mpp, notes = resolution(path)
    assert mpp == (0.5, 0.5)
    assert '"cubit"' in notes[0]


SLIDE, MACRO = (WIDTH, HEIGHT), (WIDTH - 8, HEIGHT - 8)
TEN = 'PhysicalSizeX="10" PhysicalSizeY="10"'


@pytest.mark.parametrize(
    "images",
    [
        (pixels(TEN, MACRO, data(1)), pixels(HALF, SLIDE, data(0))),
        (pixels(TEN, MACRO, data(1)), pixels(HALF, SLIDE, data(None))),
        (pixels(TEN, SLIDE, data(1)), pixels(HALF, SLIDE, data(0))),
        (pixels(TEN, MACRO), pixels(HALF, SLIDE)),
        (pixels("", MACRO, data(1)), pixels(HALF, SLIDE, data(0)), pixels(TEN, MACRO, data(2))),
        (pixels(TEN, SLIDE, data(0, "urn:b", "b.ome.tif")), pixels(HALF, SLIDE, data(0, "urn:a", "a.ome.tif"))),
        (pixels(TEN, MACRO, data(1, "urn:a", "old.ome.tif")), pixels(HALF, SLIDE, data(0, "urn:a", "old.ome.tif"))),
        (pixels("", (7, 7)), pixels(HALF, SLIDE, data(5) + data(0))),
    ],
)
def test_the_resolution_is_that_of_the_image_in_the_first_directory(tmp_path, images):
    assert resolution(write(tmp_path / "a.ome.tif", document(*images), pages=3)) == ((0.5, 0.5), ())


def test_the_uuid_of_the_root_says_which_of_several_files_this_is(tmp_path):
    images = (pixels(TEN, SLIDE, data(0, "urn:b", "a.ome.tif")), pixels(HALF, SLIDE, data(0, "urn:a", "b.ome.tif")))
    path = write(tmp_path / "a.ome.tif", document(*images, root='UUID="urn:a"'))
    assert resolution(path) == ((0.5, 0.5), ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (document(pixels(HALF, (700, 520), data(0))), "describes an image of 700 x 520 px"),
        (document(pixels(HALF, MACRO, data(1)), pixels(TEN, MACRO, data(2))), "does not describe the first directory"),
        (document(pixels(HALF, SLIDE), pixels(TEN, SLIDE)), "describes several images"),
        (document(below='<BinaryOnly MetadataFile="all.companion.ome" UUID="urn:a"/>'), '"all.companion.ome"'),
        (document(pixels(HALF))[:120], "cannot be read"),
    ],
)
def test_the_resolution_of_another_image_is_not_taken(tmp_path, text, words):
    mpp, notes = resolution(write(tmp_path / "a.ome.tif", text, pages=2))
    assert mpp is None
    assert words in notes[0]


def test_objective_and_date_are_those_of_the_same_image(tmp_path):
    powers = "".join(
        f'<Objective ID="O:{number}" NominalMagnification="{power}"/>' for number, power in ((0, 1), (1, 20))
    )
    macro = '<AcquisitionDate>2001-01-01T00:00:00</AcquisitionDate><ObjectiveSettings ID="O:0"/>' + pixels(
        TEN, MACRO, data(1)
    )
    slide = '<AcquisitionDate>2024-01-02T00:00:00</AcquisitionDate><ObjectiveSettings ID="O:1"/>' + pixels(
        HALF, SLIDE, data(0)
    )
    text = document(macro, slide, below=f"<Instrument>{powers}</Instrument>")
    with open_slide(write(tmp_path / "a.ome.tif", text, pages=2)) as opened:
        assert (opened.info.objective_power, opened.info.scan_week) == (20, "2024-W01")
    unnamed = document(pixels(HALF), below=f"<Instrument>{powers}</Instrument>")
    with open_slide(write(tmp_path / "b.ome.tif", unnamed)) as opened:
        assert opened.info.objective_power is None


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE OME [<!ENTITY a "0.5">]>',
        '<!DOCTYPE OME SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE OME [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE OME [<!ENTITY % b SYSTEM "http://127.0.0.1:9/b.dtd"> %b; <!ENTITY a "0.5">]>',
        "<!DOCTYPE OME ["
        '<!ENTITY a0 "0.5">'
        + "".join(f'<!ENTITY a{number} "{f"&a{number - 1};" * 10}">' for number in range(1, 30))
        + '<!ENTITY a "&a29;">]>',
    ],
)
def test_entities_are_not_expanded(tmp_path, doctype):
    path = write(tmp_path / "a.ome.tif", document(pixels('PhysicalSizeX="&a;" PhysicalSizeY="&a;"'), before=doctype))
    mpp, notes = resolution(path)
    assert mpp is None
    assert "document type declaration" in notes[0]


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_layout_and_codec_do_not_change_where_the_resolution_comes_from(tmp_path, planar, compression):
    path = write(tmp_path / "a.ome.tif", document(pixels(HALF)), planarconfig=planar, compression=compression)
    assert resolution(path) == ((0.5, 0.5), ())


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("ImageJ=1.54f\nunit=micron\n", {"resolution": (2, 2), "resolutionunit": 1}, (0.5, 0.5)),
        ("ImageJ=1.53f\nunit=\\u00B5m\n", {"resolution": (2, 4), "resolutionunit": 1}, (0.5, 0.25)),
        ("ImageJ=1.53f\r\nimages=1\r\nunit=\\u03bcm\r\n", {"resolution": (2, 2), "resolutionunit": 1}, (0.5, 0.5)),
        ("ImageJ=1.53f\nunit=µm".encode("latin-1"), {"resolution": (2, 2), "resolutionunit": 1}, (0.5, 0.5)),
        ("ImageJ=1.53f\nunit=mm\nyunit=nm", {"resolution": (2000, 0.002), "resolutionunit": 1}, (0.5, 0.5)),
        ("ImageJ=1.53f\nunit=cm\n", {"resolution": (20000, 20000), "resolutionunit": 3}, (0.5, 0.5)),
        ("ImageJ=1.53f\nunit=um\n", {"resolution": (20000, 20000), "resolutionunit": 3}, (0.5, 0.5)),
        ("ImageJ=1.53f\nunit=inch\n", {"resolution": (50800, 50800), "resolutionunit": 2}, (0.5, 0.5)),
        ("Aperio Image\r\n96x80|AppMag = 20|MPP = 0.5", {}, (0.5, 0.5)),
        ("Aperio Image\r\n96x80|AppMag = 20|MPP = 0.5000 um|Left = 2", {}, (0.5, 0.5)),
        ("Aperio Image\r\n96x80|MPP=500 nm/pixel", {}, (0.5, 0.5)),
        ("Aperio Image\r\n96x80|MPP = 0,5 µm".encode("latin-1"), {}, (0.5, 0.5)),
        ("", {"resolution": (2000, 4000), "resolutionunit": 4}, (0.5, 0.25)),
        ("", {"resolution": (2, 4), "resolutionunit": 5}, (0.5, 0.25)),
        ("", {"resolution": (0.1, 0.1), "resolutionunit": 5}, (10, 10)),
    ],
)
@pytest.mark.parametrize("tiled", [True, False])
def test_units_in_descriptions_and_tags_are_understood(tmp_path, text, options, expected, tiled):
    options = options if tiled else {**options, "tile": None}
    mpp, _ = resolution(write(tmp_path / "a.tif", text, **options))
    assert mpp == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("ImageJ=1.54f\nunit=cubit\n", {"resolution": (2, 2), "resolutionunit": 1}, 'ImageJ\'s unit, "cubit"'),
        ("ImageJ=1.54f\nunit=pixel\n", {"resolution": (1, 1), "resolutionunit": 1}, "the file states no resolution"),
        ("ImageJ=1.54f\n", {"resolution": (1, 1), "resolutionunit": 1}, "the file states no resolution"),
        ("ImageJ=1.54f\nunit=inch\n", {"resolution": (1200, 1200), "resolutionunit": 2}, "21.17"),
        ("Aperio Image\r\n96x80|MPP = 0.5 cubit", {}, '"0.5" in the unit "cubit"'),
        ("Aperio Image\r\n96x80|MPP = unknown", {}, 'MPP is "unknown"'),
        ("Aperio Image\r\n96x80|MPP = 0", {}, "not believed"),
        ("", {"resolution": (20000, 20000), "resolutionunit": 1}, "20000 x 20000 pixels per unit, and no unit"),
        ("", {"resolution": (0, 0), "resolutionunit": 3}, "the file states no resolution"),
    ],
)
def test_descriptions_and_tags_that_are_not_understood_are_quoted(tmp_path, text, options, words):
    mpp, notes = resolution(write(tmp_path / "a.tif", text, **options))
    assert mpp is None
    assert any(words in note for note in notes), notes


@given(st.text())
def test_ome_xml_of_any_content_gives_numbers_or_nothing(text):
    attributes = f'PhysicalSizeX="{text}" PhysicalSizeXUnit="{text}"'
    for each in (text, f"<OME{text}", document(pixels(attributes))):
        facts = ome_facts(each, (WIDTH, HEIGHT), "a.ome.tif")
        assert facts.x is None or math.isfinite(facts.x)
        assert is_ome(each) in (True, False)


@given(st.text(), st.text())
def test_lengths_of_any_text_are_numbers_or_reasons(value, unit):
    found, problem = units.length("size", value, unit)
    assert (found is None) == bool(problem)
    assert found is None or math.isfinite(found)
    assert problem.isprintable()


def test_a_deep_document_does_not_exhaust_the_stack():
    assert ome_facts("<OME>" + "<Image>" * 100_000, (1, 1), "a").x is None


@pytest.mark.shared
@pytest.mark.parametrize(
    ("case", "expected"),
    [
        *[(f"mpp-lost/{name}", 0.5) for name in ("ap_unit.svs", "ij_micron.tif", "ome_newline_attr.ome.tif")],
        *[(f"mpp-lost/ome_unit_{name}.ome.tif", 0.5) for name in ("entity_dec", "micrometer")],
        *[("mpp-lost/planar_ome.ome.tif", 0.5), ("mpp-lost/qp_cells.tif", 0.25)],
        ("mpp-wrong-other-image/ome_xml_order_macro_first.ome.tif", 0.5),
    ],
)
def test_the_cases_of_the_shared_folder_have_their_resolution(shared, case, expected):
    assert resolution(shared / "cases" / case) == ((expected, expected), ())
