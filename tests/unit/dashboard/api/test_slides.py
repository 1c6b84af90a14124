"""Routes of one slide."""

import io
import re
from urllib.parse import quote
from xml.etree import ElementTree as ET

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse

from dashboard.api import slides
from dashboard.tiles import render as tiles
from wsi_denoise.errors import TruncatedSlide
from wsi_denoise.jobs.states import JobState


def test_a_picture_says_its_size(client, case):
    answer = client.get(f"/slides/{case.job.id}/before.dzi?v=1")
    assert answer.headers["content-type"] == "application/xml"
    image = ET.fromstring(answer.text)
    (size,) = list(image)
    assert (size.get("Width"), size.get("Height")) == ("700", "900")
    assert (image.get("Overlap"), image.get("Format")) == ("0", "jpeg")


def test_a_tile_is_asked_for_once(client, case):
    url = f"/slides/{case.job.id}/difference_files/10/0_0.png"
    first = client.get(url, params={"gain": 2})
    assert first.headers["content-type"] == "image/png"
    assert "private" in first.headers["cache-control"]
    pixels = np.asarray(Image.open(io.BytesIO(first.content)))
    assert pixels.shape == (512, 512, 3)
    again = client.get(url, params={"gain": 2}, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get(url, params={"gain": 3}, headers={"if-none-match": first.headers["etag"]})
    assert other.status_code == 200
    assert other.headers["etag"] != first.headers["etag"]


def test_the_summary_says_what_a_viewer_has_to_know(client, case):
    info = client.get(f"/slides/{case.job.id}/info.json").json()
    assert (info["width"], info["height"], info["mpp"], info["patch"]) == (700, 900, [0.5, 0.5], 96)
    assert info["map_shape"] == [10, 8]
    assert [place["value"] for place in info["worst"]] == [-9.5, 4.0]
    assert set(info["maps"]) == {"noise", "structure"}
    assert (info["verdict"], info["missing"], info["low_zoom"]) == ("review", {}, "levels")
    picture = imagecodecs.png_decode(client.get(f"/slides/{case.job.id}/maps/noise.png").content)
    assert picture.shape == (10, 8, 4)


def test_a_slide_that_is_damaged_is_not_opened_here(client, case):
    seen = case.store.see(
        case.folder / "inbox" / "slide.tiff", "slide.tiff", size_bytes=1, mtime_ns=1, preset="paper", origin="daemon:1"
    )
    case.store.set_slide_facts(seen.id, 700, 900, None)
    case.store.quarantine(seen.id, TruncatedSlide("byte 7"), "daemon:1")
    assert client.get(f"/slides/{seen.id}/before.dzi").status_code == 404
    info = client.get(f"/slides/{seen.id}/info.json").json()
    assert "quarantined" in info["missing"]["before"]
    assert client.get("/metrics").text.count('wsi_denoise_failures{code="truncated"} 1.0') == 1


def test_blocks_come_from_the_spool_while_a_slide_runs(client, case, monkeypatch):
    monkeypatch.setattr(tiles, "JOB_SECONDS", 0)
    daemon = case.store.register_daemon()
    seen = case.store.see("/scans/b.svs", "b.svs", size_bytes=1, mtime_ns=1, preset="paper", origin="daemon:1")
    case.store.queue(seen.id, fingerprint="f" * 64, settings={}, settings_hash="1", preset="paper", origin="daemon:1")
    assert client.get(f"/slides/{seen.id}/blocks.json").status_code == 404
    case.store.claim(daemon, 60)
    case.store.set_slide_facts(seen.id, 5000, 3000, None)
    case.store.progress(seen.id, daemon, 2, 8, 0, 1.5, 9.0)
    spool = case.settings.jobs.state / "spool" / f"{'f' * 20}-{'0' * 20}"
    spool.mkdir(parents=True)
    for name in ("00000-00001.block", "00001-00003.block", "00009-00009.block", ".00001-00001.7.part", "x.block"):
        (spool / name).touch()
    blocks = client.get(f"/slides/{seen.id}/blocks.json").json()
    assert (blocks["rows"], blocks["columns"], blocks["done"], blocks["total"]) == (2, 4, 2, 8)
    assert blocks["finished"] == [[0, 1], [1, 3]]
    figures = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }
    assert figures["wsi_denoise_jobs", JobState.RUNNING.value] == 1
    assert figures["wsi_denoise_jobs", JobState.DONE.value] == 1
    assert figures["wsi_denoise_megapixels_per_second",] == 1.5
    assert figures["wsi_denoise_daemons_alive",] == 2
    assert figures["wsi_denoise_disk_free_bytes", "output"] > 0
    done = client.get(f"/slides/{case.job.id}/blocks.json").json()
    assert done["finished"] == [[0, 0]]


def test_the_file_is_given_out_in_ranges_under_its_name(client, case, asking):
    # Streamlit packs what it can around every route.
    client = asking(GZipMiddleware(client.app))
    whole = (case.folder / "denoised" / "slide.tiff.denoised.tiff").read_bytes()
    answer = client.get(f"/slides/{case.job.id}/download", headers={"accept-encoding": "gzip"})
    assert answer.content == whole
    assert int(answer.headers["content-length"]) == len(whole)
    assert answer.headers["content-disposition"] == 'attachment; filename="slide.tiff.denoised.tiff"'
    part = client.get(f"/slides/{case.job.id}/download", headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole)}"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a b.svs", "a b.svs"),
        ("sch\u00f6n.svs", "sch\u00f6n.svs"),
        ("\u202etxt.svs", "_txt.svs"),
        ('a"\r\nX: y.svs', "a___X: y.svs"),
        ("\udcff.svs", "_.svs"),
        ("a\u2028b", "a_b"),
    ],
)
def test_a_downloads_name_steers_nothing(name, shown):
    assert slides.safe_name(name) == shown
    header = FileResponse("x", filename=slides.safe_name(name)).headers["content-disposition"]
    assert re.fullmatch(r"attachment; filename(=\"[ -~]+\"|\*=utf-8''[ -~]+)", header)


@pytest.mark.parametrize("name", ["<b>&'\"\u202e.tiff", quote("%41.tiff")])
def test_names_travel_as_text(processed, asked, name):
    case = processed(name)
    client = asked(case.settings)
    assert client.get(f"/slides/{case.job.id}/info.json").json()["name"] == name
    assert client.get(f"/slides/{case.job.id}/download").status_code == 200
