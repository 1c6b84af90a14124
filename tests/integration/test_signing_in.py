"""Signing in by OIDC, with a provider of our own and the page as a user starts it."""

import asyncio
import html
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Route
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from dashboard.access import signing_in
from wsi_denoise.errors import SettingsInvalid
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.settings import load

pytest.importorskip("authlib", reason="Authlib is not installed")
jwt = pytest.importorskip("joserfc.jwt")
jwk = pytest.importorskip("joserfc.jwk")

SECRET = "a secret of sixteen and more"
AUTH = """[auth]
redirect_uri = "{page}oauth2callback"
cookie_secret = "{secret}"
client_id = "wsi"
client_secret = "of the client"
server_metadata_url = "{provider}.well-known/openid-configuration"
"""


def free():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def provider():
    """A provider that identifies every client as `person`, without password and consent."""
    port = free()
    own = f"http://127.0.0.1:{port}"
    key = jwk.RSAKey.generate_key(2048, parameters={"kid": "one"})
    state = SimpleNamespace(url=f"{own}/", person={"email": "nobody@nowhere.example"})
    asked = {}

    async def about(_request):
        return JSONResponse({
            "issuer": own, "authorization_endpoint": f"{own}/authorize", "token_endpoint": f"{own}/token",
            "jwks_uri": f"{own}/keys", "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"], "code_challenge_methods_supported": ["S256"],
            "end_session_endpoint": f"{own}/end",
        })  # fmt: skip

    async def authorize(request):
        query = request.query_params
        asked["nonce"] = query.get("nonce")
        if state.person is None:
            return RedirectResponse(f"{query['redirect_uri']}?error=access_denied&state={query['state']}")
        return RedirectResponse(f"{query['redirect_uri']}?code=once&state={query['state']}")

    async def token(_request):
        now = int(time.time())
        said = {
            "iss": own,
            "sub": "1",
            "aud": "wsi",
            "iat": now,
            "exp": now + 60,
            "nonce": asked["nonce"],
            **state.person,
        }
        signed = jwt.encode({"alg": "RS256", "kid": "one"}, said, key)
        return JSONResponse({"access_token": "a", "token_type": "Bearer", "expires_in": 60, "id_token": signed})

    async def end(request):
        return RedirectResponse(request.query_params["post_logout_redirect_uri"])

    async def keys(_request):
        return JSONResponse({"keys": [key.as_dict(private=False)]})

    routes = [
        Route("/.well-known/openid-configuration", about), Route("/authorize", authorize),
        Route("/token", token, methods=["POST"]), Route("/keys", keys), Route("/end", end),
    ]  # fmt: skip
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=port, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield state
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def page(provider, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    port = free()
    url = f"http://127.0.0.1:{port}/"
    (folder / ".streamlit").mkdir()
    secrets = AUTH.format(page=url, secret=SECRET, provider=provider.url)
    (folder / ".streamlit" / "secrets.toml").write_text(secrets)
    (folder / "wsi-denoise.toml").write_text('[dashboard]\npeople = ["@Lab.example", "guest@other.example"]\n')
    store = JobStore(f"sqlite:///{folder / '.wsi-denoise' / 'jobs.sqlite'}")
    store.upgrade()
    store.close()
    program = Path(sys.executable).with_name("wsi-denoise")
    with (folder / "terminal").open("wb") as terminal:
        process = subprocess.Popen(
            [program, "dashboard", "--port", str(port)], cwd=folder, stdout=terminal, stderr=terminal
        )
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "terminal").read_text()
            try:
                httpx.get(f"{url}healthz", timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def signed_in(page, provider, target="", **person):
    """Return a browser that has been to the provider and back."""
    provider.person = person or None
    browser = httpx.Client(base_url=page, follow_redirects=True, timeout=60, headers={"accept": "text/html"})
    asked = browser.get(f"/{target}")
    assert asked.status_code == 401
    [(address, words)] = re.findall(r'<a href="([^"]+)">([^<]+)</a>', asked.text)
    assert words == "Sign in"
    browser.back = browser.get(html.unescape(address))
    return browser


def handshake(page, cookies):
    """Return the head of the answer to a websocket's handshake, in lower case."""
    ask = (
        "GET /_stcore/stream HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: streamlit\r\nOrigin: http://{host}\r\nCookie: {cookies}\r\n\r\n"
    )
    host = page.removeprefix("http://").rstrip("/")

    async def head():
        reader, writer = await asyncio.open_connection(*host.split(":"))
        writer.write(ask.format(host=host, cookies=cookies).encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return answer.decode().lower()

    return asyncio.run(head())


def opens(page, cookies):
    """Whether the websocket is opened for a user with these cookies."""
    return " 101 " in handshake(page, cookies).splitlines()[0]


def test_every_answer_of_the_server_has_the_security_headers(page):
    heads = [handshake(page, "")]
    for path in ("", "healthz", "oauth2callback?code=x", "static/none.js", "login/oidc?provider=none", "%2e%2e/x"):
        answer = httpx.get(page + path, headers={"accept": "text/html"}, timeout=60)
        heads.append("\n".join(f"{name}: {value}" for name, value in answer.headers.items()).lower())
    for head in heads:
        assert "frame-ancestors 'self'" in head
        assert "x-content-type-options: nosniff" in head
        assert "referrer-policy: same-origin" in head
    assert " 401 " in heads[0].splitlines()[0]


def cookies(browser):
    return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())


@pytest.mark.timeout(300)
def test_who_is_named_comes_in_by_signing_in_and_nobody_else(page, provider):
    with httpx.Client(base_url=page, timeout=60) as stranger:
        for path in ("/", "/api/jobs", "/metrics", "/slides/1/before.dzi", "/export/jobs.csv", "/history"):
            assert stranger.get(path).status_code == 401, path
        assert stranger.put("/upload/a.svs", content=b"x").status_code == 401
        assert stranger.post("/oauth2callback").status_code == 401
        assert stranger.get("/login/oidc?provider=other").status_code == 404
    assert not opens(page, "")

    for address in ("doctor@lab.example", "Guest@other.example"):
        with closing(signed_in(page, provider, email=address, email_verified=True)) as browser:
            assert (browser.back.status_code, browser.back.url) == (200, httpx.URL(page))
            assert browser.get("/api/jobs").json() == {"jobs": [], "total": 0}
            assert browser.get("/slides/1/before.dzi").status_code == 404
            assert opens(page, cookies(browser))
            # A request that another site's page makes carries the cookie, and is refused.
            assert browser.get("/api/jobs", headers={"origin": "http://elsewhere.example"}).status_code in {401, 403}
            kept = cookies(browser)
            # By way of the provider's own sign-out.
            assert browser.get("/logout").url == httpx.URL(page)
            assert browser.get("/api/jobs").status_code == 401
            assert httpx.get(f"{page}api/jobs", headers={"cookie": kept}).status_code == 401

    for person in (
        {"email": "doctor@elsewhere.example"},
        {"email": "x@notlab.example"},
        {"email": "<b>@elsewhere.example"},
    ):
        with closing(signed_in(page, provider, **person)) as browser:
            assert browser.back.status_code == 403
            assert "may not open this dashboard" in browser.back.text
            assert "<b>" not in browser.back.text
            assert browser.get("/api/jobs").status_code == 403
            assert not opens(page, cookies(browser))
    for person in ({"email": "doctor@lab.example", "email_verified": False}, {"name": "no address"}):
        with closing(signed_in(page, provider, **person)) as browser:
            assert browser.back.status_code == 401
            assert browser.get("/api/jobs").status_code == 401


@pytest.mark.timeout(300)
def test_a_cookie_that_the_page_did_not_sign_opens_nothing(page, provider):
    with closing(signed_in(page, provider, email="doctor@lab.example")) as browser:
        name, value = next((one, text) for one, text in browser.cookies.items() if one.startswith("wsi_denoise"))
        for forged in (f"{value[:-3]}abc", value[1:], "", "null", value.split(".")[0]):
            answer = httpx.get(f"{page}api/jobs", headers={"cookie": f"{name}={forged}"})
            assert answer.status_code == 401, forged
        # Signed, but for another purpose.
        assert httpx.get(f"{page}api/jobs", headers={"cookie": f"_streamlit_user={value}"}).status_code == 401
        assert httpx.get(f"{page}api/jobs", headers={"cookie": f"{name}={value}"}).status_code == 200


@pytest.mark.timeout(300)
@pytest.mark.parametrize("target", ["compare?job=3&x=0.5&note=%C3%A9%26", "history?state=failed&state=done"])
def test_a_link_keeps_its_target_through_the_provider(page, provider, target):
    with closing(signed_in(page, provider, target, email="doctor@lab.example")) as browser:
        assert browser.back.status_code == 200
        assert str(browser.back.url) == f"{page}{target}"
        # The Back button of the browser.
        assert browser.get("/oauth2callback?code=once&state=old").url == httpx.URL(page)


@pytest.mark.timeout(300)
def test_the_provider_leads_to_no_other_site(page, provider):
    provider.person = {"email": "doctor@lab.example"}
    for target in ("//evil.example/", "https://evil.example/", "/\\evil.example"):
        with httpx.Client(base_url=page, follow_redirects=True, timeout=60) as browser:
            assert browser.get("/login/oidc", params={"next": target}).url == httpx.URL(page)


@pytest.mark.timeout(300)
def test_a_sign_in_that_was_not_started_here_opens_nothing(page, provider):
    provider.person = {"email": "doctor@lab.example"}
    with httpx.Client(base_url=page, timeout=60, headers={"accept": "text/html"}) as browser:
        assert browser.get("/oauth2callback?code=once&state=guessed").status_code == 401
        browser.get("/login/oidc")
        assert browser.get("/oauth2callback?code=once&state=guessed").status_code in {401, 503}
        assert browser.get("/api/jobs").status_code == 401
    with closing(signed_in(page, provider)) as browser:
        assert browser.back.status_code == 401
        assert "refused" in browser.back.text


def end_of(socket):
    """Read a websocket to its end, and return the code of that."""
    try:
        while True:
            socket.recv(timeout=120)
    except ConnectionClosed as closed:
        return closed.rcvd.code


@pytest.mark.timeout(300)
def test_the_page_says_who_is_signed_in(page, provider):
    with closing(signed_in(page, provider, email="doctor@lab.example")) as browser:
        host, given = page.removeprefix("http://").rstrip("/"), cookies(browser)
    with connect(
        f"ws://{host}/_stcore/stream",
        subprotocols=["streamlit"],
        additional_headers={"Cookie": given},
        open_timeout=120,
    ) as socket:
        message = BackMsg()
        message.rerun_script.query_string = ""
        socket.send(message.SerializeToString())
        shown = ""
        while "Sign out" not in shown:
            shown += str(ForwardMsg.FromString(socket.recv(timeout=120)))
        assert "Signed in as <bdi>doctor@lab.example</bdi>" in shown
        # Signing out ends what is open.
        httpx.get(f"{page}logout", headers={"cookie": given})
        assert end_of(socket) == 1008


def test_no_private_module_of_streamlit_is_imported():
    sources = Path(signing_in.__file__).parent.rglob("*.py")
    private = re.compile(r"streamlit\.(auth_util|web|runtime)\b")
    assert [file.name for file in sources if private.search(file.read_text("utf-8"))] == []


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        ("", "has no"),
        (AUTH.format(page="http://x/", secret="short", provider="http://y/"), "16 characters"),
        (AUTH.format(page="http://x/", secret=SECRET, provider="http://y/").replace("oauth2", "other"), "does not end"),
        ("[auth\n", "cannot be read"),
    ],
)
def test_people_without_a_provider_are_refused_at_the_start(tmp_path, monkeypatch, secrets, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "secrets.toml").write_text(secrets)
    page = load(folder=tmp_path, environ={}, overrides={"dashboard.people": '["a@b.example"]'}).settings.dashboard
    with pytest.raises(SettingsInvalid, match=said):
        signing_in.prepare(page)
