"""Security headers, and requests of other sites' pages."""

import asyncio
from urllib.parse import quote

import pytest

from dashboard.guard import Guard, guarded
from support.asgi import CROSS, TOKEN, Page, exchange

HEADERS = {
    "content-security-policy": "frame-ancestors 'self'",
    "x-frame-options": "SAMEORIGIN",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.mark.parametrize("token", ["", TOKEN])
@pytest.mark.parametrize(
    "request_",
    [
        {"path": "/"}, {"path": "/healthz"}, {"path": "/", "accept": "text/html"}, {"path": "/../x"},
        {"path": "/fails"},
        {"path": "/login", "method": "POST", "body": b"token=x"}, {"path": "/", "query": "token=" + quote(TOKEN)},
        {"path": "/", "host": "evil.example"}, {"path": "/", **CROSS}, {"path": "/logout"},
        {"path": "/", "kind": "websocket"}, {"path": "/closed", "kind": "websocket"},
        {"path": "/", "kind": "websocket", "host": "evil.example"},
        {"path": "/", "kind": "websocket", "authorization": "Bearer x"},
        {"path": "/closed", "kind": "websocket", "query": "token=" + quote(TOKEN)},
        {"path": "/", "kind": "websocket", **CROSS},
    ],
)  # fmt: skip
def test_every_answer_has_the_headers(token, request_):
    _, headers, _ = asyncio.run(exchange(guarded(Page(), token=token), **request_))
    assert {name: headers.get(name) for name in HEADERS} == HEADERS


def test_a_policy_of_the_page_stays_and_frames_are_added():
    async def app(scope, receive, send):
        own = [(b"content-security-policy", b"default-src 'none';"), (b"referrer-policy", b"unsafe-url")]
        await send({"type": "http.response.start", "status": 200, "headers": own})
        await send({"type": "http.response.body", "body": b""})

    _, headers, _ = asyncio.run(exchange(guarded(app, token="")))
    assert headers == {**HEADERS, "content-security-policy": "default-src 'none'; frame-ancestors 'self'"}


def test_a_server_that_knows_no_answer_to_a_websocket_closes_it():
    assert asyncio.run(exchange(guarded(Page(), token=TOKEN), kind="websocket", extensions=False))[0] == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("mode", "dest"),
    [("no-cors", "image"), ("no-cors", "script"), ("cors", "empty"), ("navigate", "iframe"), ("navigate", "object"),
     ("navigate", "embed"), ("websocket", "websocket"), ("no-cors", "audio"), ("navigate", "frame")],
)  # fmt: skip
@pytest.mark.parametrize("token", ["", TOKEN])
def test_what_another_sites_page_embeds_is_refused(site, mode, dest, token):
    inner = Page()
    guard = Guard(inner, token=token)
    fetch = {"sec_fetch_site": site, "sec_fetch_mode": mode, "sec_fetch_dest": dest}
    for kind in ("http", "websocket"):
        for path in ("/slides/1/thumbnail.jpeg", "/healthz", "/api/jobs"):
            assert asyncio.run(exchange(guard, path, kind=kind, **fetch))[0] == 403
    assert inner.scopes == []
