"""ASGI applications, called as a server calls them."""

import asyncio
from urllib.parse import quote

from dashboard.access.throttle import Throttle
from dashboard.guard import Guard

TOKEN = "lång & secret"
QUICK = {"first": 0.01, "most": 0.02}
"""Delays of the throttle, in seconds."""

CROSS = {"sec_fetch_site": "cross-site"}
LINK = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}


class Page:
    """Stands for the page: answers everything, and keeps what it was asked."""

    def __init__(self):
        self.scopes = []

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        if scope["path"] == "/fails":
            raise ValueError("a bug")
        if scope["type"] == "websocket":
            await send({"type": "websocket.close" if scope["path"] == "/closed" else "websocket.accept"})
            return
        # A page may have a session of its own, as Streamlit does.
        scope["session"] = {"id": "of the page"}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"content"})


async def exchange(app, path="/", *, kind="http", method="GET", query="", body=b"", extensions=True, **headers):
    """Return (status, headers, body) of one request; a websocket that is accepted gives 101."""
    sent = []
    named = {"host": "127.0.0.1:8501", **headers}
    scope = {
        "type": kind,
        "path": path,
        "method": method,
        "client": named.pop("client", ("127.0.0.1", 1)),
        "scheme": named.pop("scheme", "http"),
        "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in named.items()],
        "extensions": {"websocket.http.response": {}} if extensions and kind == "websocket" else {},
    }

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    try:
        await app(scope, receive, send)
    except ValueError:
        assert path == "/fails"
    if sent[0]["type"] == "websocket.close":
        return 403, {}, b""
    found = {name.decode().lower(): value.decode("latin-1") for name, value in sent[0].get("headers", [])}
    return sent[0].get("status", 101), found, b"".join(message.get("body", b"") for message in sent[1:])


def ask(path="/", *, token="", **options):
    """Return what a fresh page answers to one request."""
    return asyncio.run(exchange(Guard(Page(), token=token, throttle=Throttle(**QUICK)), path, **options))


def cookie_of(headers):
    return headers["set-cookie"].partition(";")[0]


def sign_in(page, target="/", **options):
    form = f"token={quote(TOKEN)}&next={quote(target, safe='')}".encode()
    status, headers, _ = page("/login", method="POST", body=form, **options)
    assert status == 303
    return headers
