"""The routes as a program asks them, without Streamlit: what they answer, and that nothing but that can be reached."""

import asyncio
import io
import json
import os
import re
from urllib.parse import quote, unquote
from xml.etree import ElementTree as ET

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.middleware.gzip import GZipMiddleware

from dashboard import routes
from dashboard.api import export, slides
from dashboard.api.jobs import description
from dashboard.responses import refusal
from dashboard.tiles import render as tiles
from dashboard.viewer import openseadragon
from wsi_denoise.errors import TruncatedSlide
from wsi_denoise.jobs.states import JobState


@pytest.fixture
def case(processed):
    return processed()


@pytest.fixture
def asked(asking):
    return lambda settings: asking(routes.application(settings))


@pytest.fixture
def client(case, asked):
    return asked(case.settings)


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


CLIMBS = (
    "..",
    "%2e%2e",
    "%2E%2E",
    ".%2e",
    "%252e%252e",
    "..%2f..",
    "..%5c..",
    "%2e%2e%2fetc%2fpasswd",
    "..%00",
    "....//",
)
NOTHING = (
    "/slides", "/slides/", "/slides/99/info.json", "/slides/x/info.json", "/slides/-1/before.dzi",
    "/slides/1/label.dzi",
    "/slides/1/before_files/11/0_0.jpeg", "/slides/1/before_files/10/2_0.jpeg", "/slides/1/before_files/10/0_9.jpeg",
    "/slides/1/before_files/10/-1_0.jpeg", "/slides/1/before_files/10/0_0.gif", "/slides/1/before_files/10/0_0",
    "/slides/1/difference_files/10/0_0.jpeg?gain=65", "/slides/1/difference_files/10/0_0.jpeg?gain=0",
    "/slides/1/difference_files/10/0_0.jpeg?gain=1e1", "/slides/1/maps/tissue.png",
    "/slides/1/thumbnail.jpeg?side=9999",
    "/slides/99999999999999999999999/info.json", "/viewer/99", "/viewer/99999999999999999999999", "/viewer/static/x.js",
    "/viewer/static/__init__.py", "/viewer/static/viewer.html", "/viewer", "/api", "/api/jobs/99", "/api/nothing",
    "/api/jobs/99999999999999999999999", "/upload", "/upload/a/b.svs",
)  # fmt: skip


def test_what_is_not_there_is_404(client):
    for path in NOTHING:
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert set(answer.json()) == {"error_code", "error"}, path


PLACES = (
    "/{}", "/slides/{}", "/slides/1/{}", "/slides/1/before_files/10/{}", "/slides/1/maps/{}.png", "/viewer/{}",
    "/viewer/static/{}", "/viewer/static/{}/guard.py", "/api/{}", "/upload/{}", "/metrics/{}",
)  # fmt: skip


def test_nobody_climbs_out(client):
    for place in PLACES:
        for climb in CLIMBS:
            for method in ("GET", "PUT"):
                path = place.format(climb)
                assert raw(client.app, method, path) in {404, 405}, f"{method} {path}"


def raw(app, method, path):
    """The status, asked with the scope that a server makes: a client library would tidy the path up before."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": unquote(path),
        "raw_path": path.encode(), "query_string": b"", "headers": [(b"host", b"127.0.0.1:8501")],
        "server": ("127.0.0.1", 8501), "client": ("127.0.0.1", 5), "root_path": "",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"]


def test_without_the_token_nothing_is_answered(case, asked):
    settings = case.settings.with_values({"dashboard.token": "secret"})
    own = ["/slides/1/info.json", "/slides/1/before_files/10/0_0.jpeg", "/slides/1/download", "/viewer/1", "/metrics",
           "/viewer/static/viewer.js", "/api/jobs", "/api/openapi.json", "/slides/1/maps/noise.png"]  # fmt: skip
    client = asked(settings)
    for path in own:
        assert client.get(path).status_code == 401, path
        assert client.get(path, headers={"authorization": "Bearer secret"}).status_code == 200, path
    assert client.put("/upload/a.svs", content=b"x").status_code == 401


def test_without_a_token_only_this_machine_is_answered_wherever_the_server_listens(case, asking):
    app = routes.application(case.settings)
    elsewhere = asking(app, base_url="http://192.168.7.7:8501")
    assert elsewhere.get("/api/jobs", headers={"host": "127.0.0.1:8501"}).status_code == 403
    assert asking(app).get("/api/jobs").status_code == 200


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
    header = slides._Download("x", filename=slides.safe_name(name)).headers["content-disposition"]
    assert re.fullmatch(r"attachment; filename(=\"[ -~]+\"|\*=utf-8''[ -~]+)", header)


def test_jobs_are_what_the_command_line_prints(client, case):
    page = client.get("/api/jobs", params={"state": "done", "verdict": "review"}).json()
    assert (page["total"], page["jobs"][0]["id"]) == (1, case.job.id)
    assert client.get("/api/jobs", params={"state": "failed"}).json() == {"jobs": [], "total": 0}
    wrong = client.get("/api/jobs", params={"state": "gone"})
    assert (wrong.status_code, wrong.json()["error_code"]) == (400, "usage")
    assert client.get(f"/api/jobs/{case.job.id}").json() == json.loads(json.dumps(case.store.details(case.job.id)))


def test_the_description_describes_what_is_answered(client, case):
    document = client.get("/api/openapi.json").json()
    assert document == json.loads(json.dumps(description()))
    # Every route but the viewer's own files, and the addresses that are answered with 404.
    every = [*routes.routes(case.settings), *export.ROUTES]
    paths = [re.sub(r":int", "", getattr(route, "path", "")) for route in every]
    nothing = re.compile(r"/viewer/static/|.*\{rest|/(slides|viewer|api|upload)$")
    assert set(document["paths"]) == {path for path in paths if not nothing.match(path)}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            named = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path)), path
    text = json.dumps(document)
    for name in re.findall(r"#/components/schemas/(\w+)", text):
        assert name in document["components"]["schemas"]
    asked = {one["name"]: one["schema"] for one in document["paths"]["/api/jobs"]["get"]["parameters"]}
    for name in asked["sort"]["enum"]:
        assert client.get("/api/jobs", params={"sort": name}).status_code == 200
    assert asked["state"]["items"]["enum"] == [state.value for state in JobState]
    assert {"pass", "review", "not_needed"} == set(asked["verdict"]["enum"])
    tile = document["paths"]["/slides/{job}/{which}_files/{level}/{column}_{row}.{suffix}"]["get"]["parameters"]
    enums = {one["name"]: one["schema"].get("enum") for one in tile}
    assert (enums["which"], enums["suffix"], enums["of"]) == (
        ["before", "after", "difference"],
        ["jpeg", "png"],
        ["mean", "rms"],
    )
    schema = document["components"]["schemas"]["JobDetails"]
    job = client.get(f"/api/jobs/{case.job.id}").json()
    assert set(schema["properties"]) == set(job)
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}
    for name, value in job.items():
        allowed = schema["properties"][name].get("anyOf", [schema["properties"][name]])
        names = {each["type"] for each in allowed}
        assert any(value is None if kind == "null" else isinstance(value, kinds[kind]) for kind in names), name


def test_the_viewer_runs_no_script_but_its_own(client, case):
    page = client.get(f"/viewer/{case.job.id}")
    assert page.status_code == 200, "OpenSeadragon is missing: python -m dashboard.viewer.openseadragon"
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'self'" in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", page.text)
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
        assert client.get(path).status_code == 200, path


def test_without_its_library_the_viewer_says_so(client, case, monkeypatch, tmp_path):
    monkeypatch.setattr(openseadragon, "SCRIPT", tmp_path / "openseadragon.min.js")
    page = client.get(f"/viewer/{case.job.id}")
    assert page.status_code == 503
    assert "python -m dashboard.viewer.openseadragon" in page.text


def test_another_package_is_not_taken_for_the_library(tmp_path):
    with pytest.raises(openseadragon.LibraryMissing, match="digest"):
        openseadragon.unpack(b"not what was published", tmp_path / "library")
    assert not (tmp_path / "library").exists()
    assert openseadragon.present()


@pytest.mark.parametrize("name", ["<b>&'\"\u202e.tiff", quote("%41.tiff")])
def test_names_travel_as_text(processed, asked, name):
    case = processed(name)
    client = asked(case.settings)
    assert client.get(f"/slides/{case.job.id}/info.json").json()["name"] == name
    assert client.get(f"/slides/{case.job.id}/download").status_code == 200


def test_a_name_that_is_no_text_is_answered_as_it_is(processed, asked):
    name = os.fsdecode(b"caf\xe9.tiff")
    case = processed(name)
    client = asked(case.settings)
    assert client.get("/api/jobs").json()["jobs"][0]["relative"] == name
    assert client.get(f"/api/jobs/{case.job.id}").json()["slide"] == case.job.slide
    assert client.get(f"/slides/{case.job.id}/info.json").json()["name"] == name
    refused = client.get("/api/jobs", params={"state": "caf\u00e9"})
    assert (refused.status_code, "caf\u00e9" in refused.json()["error"]) == (400, True)
    said = refusal(404, "not_found", f"{name} is gone")
    assert json.loads(said.body)["error"] == f"{name} is gone"
