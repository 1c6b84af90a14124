"""Addresses that do not exist are 404, and those that do are not."""

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dashboard.access.addresses import PAGES, Addresses


@pytest.fixture
def client(asking, tmp_path):
    """What answers as Streamlit does: any address is its page."""
    (tmp_path / "static").mkdir()
    for name in ("index.html", "favicon.png", "static/app.js"):
        (tmp_path / name).write_text("x")
    everything = Starlette(routes=[Route("/{rest:path}", lambda _: PlainTextResponse("page"), methods=["GET", "POST"])])
    own = [Route("/export{rest:path}", lambda _: None), Route("/slides/{job:int}/download", lambda _: None)]
    return asking(Addresses(everything, routes=own, files=tmp_path))


@pytest.mark.parametrize(
    "path",
    ["/", *(f"/{page}" for page in PAGES[1:]), "/history/", "/history/_stcore/health", "/_stcore/stream",
     "/favicon.png", "/static/app.js", "/export/jobs.csv", "/slides/1/download", "/media/a.png"],
)  # fmt: skip
def test_what_exists_is_passed_on(client, path):
    assert client.get(path).text == "page"


@pytest.mark.parametrize(
    "path",
    ["/nonsense", "/nonsense/", "/Historys", "/history/x", "/history/../x", "/compare/1", "/static/nothing.js",
     "/static", "/favicon.ico", "/index.htm", "/slide", "/historyx", "/%20"],
)  # fmt: skip
def test_what_does_not_exist_is_404(client, path):
    answer = client.get(path, headers={"accept": "text/html,*/*"})
    assert answer.status_code == 404
    assert "<h1>Not found</h1>" in answer.text
    assert "<title>Not found" in answer.text
    assert client.get(path).json()["error_code"] == "not_found"


def test_the_first_page_has_one_address(client):
    answer = client.get("/queue?x=1")
    assert (answer.status_code, answer.headers["location"]) == (307, "/?x=1")
