"""Security headers, and refusal of requests by other sites' pages. Pure ASGI, websockets included."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FRAMES = "frame-ancestors 'self'"
HEADERS = {
    "X-Frame-Options": "SAMEORIGIN",  # for browsers without frame-ancestors
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    # Sec-Fetch-Site is sent to https and to this machine only; this header also works over plain http.
    "Cross-Origin-Resource-Policy": "same-origin",
}

_DENIAL = "websocket.http.response"


class Protection:
    """Adds the security headers to every answer of an application.

    A websocket that the application closes before it accepts it is answered with 403 and the same headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and add the headers to what comes back."""
        if scope["type"] not in {"http", "websocket"}:
            return await self._app(scope, receive, send)
        accepted = False

        async def protected(message: Message) -> None:
            nonlocal accepted
            accepted = accepted or message["type"] == "websocket.accept"
            if message["type"] == "websocket.close" and not accepted:
                await deny(Response(status_code=403), scope, receive, with_headers)
            else:
                await with_headers(message)

        async def with_headers(message: Message) -> None:
            if message["type"] in {"http.response.start", f"{_DENIAL}.start", "websocket.accept"}:
                message.setdefault("headers", [])
                _add(MutableHeaders(scope=message))
            await send(message)

        return await self._app(scope, receive, protected)


def _add(headers: MutableHeaders) -> None:
    policy = headers.get("content-security-policy", "")
    if "frame-ancestors" not in policy:
        headers["Content-Security-Policy"] = f"{policy.rstrip('; ')}; {FRAMES}" if policy else FRAMES
    for name, value in HEADERS.items():
        headers[name] = value


async def deny(answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send an answer instead of passing a request or a websocket on."""
    if scope["type"] == "http":
        await answer(scope, receive, send)
    elif _DENIAL in scope.get("extensions", {}):
        await send({"type": f"{_DENIAL}.start", "status": answer.status_code, "headers": answer.raw_headers})
        await send({"type": f"{_DENIAL}.body", "body": answer.body})
    else:
        # The server answers 403 and knows no headers of ours.
        await send({"type": "websocket.close", "code": 1008})


def is_own_origin(headers: Headers) -> bool:
    """Return whether a request that has an Origin has that of the host it was sent to."""
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != ""
    except ValueError:
        return False


def is_from_elsewhere(scope: Scope) -> bool:
    """Return whether a browser says that a page of another origin made it request this."""
    return Headers(scope=scope).get("sec-fetch-site", "none") not in {"same-origin", "none"}


def is_cross_site(scope: Scope) -> bool:
    """Return whether another site's page requests this, by Fetch metadata (https://www.w3.org/TR/fetch-metadata/).

    A link on another site is followed. An image, a script, a frame, a form or a websocket of another site is not; nor
    is one of another port or host of the same site.
    """
    if not is_from_elsewhere(scope):
        return False
    headers = Headers(scope=scope)
    follows_link = (
        scope["type"] == "http"
        and scope["method"] in {"GET", "HEAD"}
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest", "document") == "document"
    )
    return not follows_link
