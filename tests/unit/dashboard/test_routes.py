"""Addresses that exist, and those that must not."""

import asyncio
from urllib.parse import unquote

from dashboard import routes

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
