"""Who may ask the page, called as a server calls it."""

import asyncio
import json
from urllib.parse import quote

import pytest
from streamlit.web.server import server_util
from streamlit.web.server.starlette.starlette_app_utils import create_signed_value
from streamlit.web.server.starlette.starlette_server_config import USER_COOKIE_NAME

from dashboard.guard import COOKIE, Guard
from dashboard.signing_in import SigningIn

TOKEN = "lång & secret"


async def _open(scope, receive, send):
    """Stands for the page: answers everything."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"secret"})


def ask(path="/", *, token="", kind="http", method="GET", query="", body=b"", **headers):
    """(status, headers, body) of one request; a websocket gives 101 or 403."""
    sent = []
    named = {"host": "127.0.0.1:8501", **headers}
    scope = {
        "type": kind,
        "path": path,
        "method": method,
        "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in named.items()],
    }

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(_open, token=token)(scope, receive, send))
    if kind == "websocket":
        return {"websocket.accept": 101, "websocket.close": 403}[sent[0]["type"]], {}, b""
    found = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("path", ["/", "/api/jobs", "/_stcore/stream", "/healthz/", "/login", "//healthz"])
def test_without_the_token_nothing_is_answered(path, kind):
    status, _, body = ask(path, token=TOKEN, kind=kind)
    assert status in {401, 403}
    assert b"secret" not in body


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_wrong_token_is_none(kind):
    for headers in ({"authorization": "Bearer wrong"}, {"authorization": "Bearer "}, {"cookie": f"{COOKIE}="}, {}):
        assert ask("/", token=TOKEN, kind=kind, query="token=wrong", **headers)[0] in {401, 403}


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_program_sends_the_token_in_a_header(kind):
    assert ask("/api/jobs", token="abc", kind=kind, authorization="Bearer abc")[0] in {200, 101}


def test_a_person_is_asked_once():
    status, _, body = ask("/", token=TOKEN, accept="text/html")
    assert status == 401
    assert b"<form" in body
    status, headers, _ = ask("/login", token=TOKEN, method="POST", body=f"token={quote(TOKEN)}".encode())
    assert (status, headers["location"]) == (303, "/")
    assert "HttpOnly" in headers["set-cookie"]
    assert "samesite=strict" in headers["set-cookie"].lower()
    cookie = headers["set-cookie"].partition(";")[0]
    for kind, good in (("http", 200), ("websocket", 101)):
        assert ask("/_stcore/stream", token=TOKEN, kind=kind, cookie=cookie)[0] == good
    # Another site's page gets the browser to send the cookie along.
    elsewhere = ask("/_stcore/stream", token=TOKEN, kind="websocket", cookie=cookie, origin="http://evil.example")
    assert elsewhere[0] == 403


def test_a_token_in_the_address_becomes_a_cookie_and_leads_nowhere_else():
    status, headers, _ = ask("//evil.example", token="abc", query="token=abc")
    assert (status, headers["location"]) == (303, "/evil.example")
    assert headers["set-cookie"].startswith(f"{COOKIE}=abc;")


def test_whether_it_lives_is_no_secret():
    assert ask("/healthz", token=TOKEN)[0] == 200


@pytest.mark.parametrize("host", ["localhost:8501", "127.0.0.1", "[::1]:8501", "127.1.2.3"])
def test_without_a_token_this_machine_may_ask(host):
    assert ask("/", host=host)[0] == 200
    assert ask("/", kind="websocket", host=host, origin=f"http://{host}")[0] == 101


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:8501", "["])
def test_under_another_name_it_is_not_this_machine(host):
    assert ask("/", host=host)[0] == 403
    assert ask("/", kind="websocket", host=host)[0] == 403


def test_another_sites_page_may_not_ask():
    assert ask("/api/jobs", origin="http://evil.example")[0] == 403
    assert ask("/", kind="websocket", origin="null")[0] == 403


@pytest.mark.parametrize(
    ("said", "vouched"),
    [({}, True), *(({"email_verified": value}, True) for value in (True, "true", "True")),
     *(({"email_verified": value}, False) for value in (False, "false", "False", "", "no", 0, 1, None, [True]))],
)  # fmt: skip
def test_an_address_that_the_provider_did_not_check_is_nobodys(monkeypatch, said, vouched):
    monkeypatch.setattr(server_util, "get_cookie_secret", lambda: "a secret")
    person = {"is_logged_in": True, "email": "doctor@lab.example", **said}
    cookie = create_signed_value("a secret", USER_COOKIE_NAME, json.dumps(person)).decode()
    who = SigningIn(("@lab.example",), ("default",)).who(f"{USER_COOKIE_NAME}={cookie}")
    assert who == ("doctor@lab.example" if vouched else None)
