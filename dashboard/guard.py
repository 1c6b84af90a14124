"""Who may ask. Pure ASGI, so that websockets, over which Streamlit sends everything, are guarded like pages."""

from __future__ import annotations

import hmac
from html import escape
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, unquote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dashboard.answers import Json
from dashboard.signing_in import LEAVE, START, STREAMLITS, SigningIn, links
from wsi_denoise.listening import is_loopback

COOKIE = "wsi_denoise_token"
LOGIN = "/login"
OPEN = frozenset({"/healthz"})
_LONGEST_FORM = 4096
_WEEK = 7 * 24 * 3600

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>wsi-denoise</title>
<body style="font-family: sans-serif; max-width: 30em; margin: 4em auto">
<h1>wsi-denoise</h1><p>{text}</p>{ways}</body></html>"""
_FORM = """<form method="post" action="/login"><label>Token
<input type="password" name="token" autocomplete="current-password" autofocus></label> <button>Open</button></form>
<p>The token is the setting dashboard.token.</p>"""


NO_SUCH = Json({"error_code": "not_found", "error": "There is no such address."}, 404)


class Guard:
    """Lets through who knows the token or has signed in; without either, who asks this machine by its own name.

    The token comes as ``Authorization: Bearer``, as the cookie that the form sets, or once as ``?token=``.

    Parameters
    ----------
    app : ASGI application
    token : str
        Empty for none.
    signing_in : SigningIn, optional
        Who else may come in. Without it and without a token the server must listen on loopback only.
    """

    def __init__(self, app: ASGIApp, *, token: str, signing_in: SigningIn | None = None) -> None:
        self._app = app
        self._token = token.encode()
        self._signing_in = signing_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        if scope["type"] not in {"http", "websocket"}:
            return await self._app(scope, receive, send)
        if is_devious(scope):
            # Before anything else: what a route would make of it must not matter.
            return await _refuse(NO_SUCH, scope, receive, send)
        guarded = self._token or self._signing_in
        refusal = await self._without_login(scope, receive) if guarded else self._stranger(scope)
        if refusal is None:
            return await self._app(scope, receive, send)
        return await _refuse(refusal, scope, receive, send)

    def _stranger(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        # Another site's page could make the browser ask us under its own name (DNS rebinding), or open a websocket
        # here, which no browser refuses.
        if _is_here(scope) and _is_own_name(headers.get("host", "")) and same_site(headers):
            return None
        return Json({"error_code": "forbidden", "error": "Ask for 127.0.0.1 or localhost."}, 403)

    async def _without_login(self, scope: Scope, receive: Receive) -> Response | None:
        headers = Headers(scope=scope)
        if scope["path"] in OPEN or self._knows(headers):
            return None
        if scope["type"] == "http" and scope["path"] == LOGIN and scope["method"] == "POST" and self._token:
            return await self._login(receive)
        query = parse_qs(scope["query_string"].decode("latin-1"))
        given = query.get("token", [""])[0]
        if given and self._is_token(given):
            # Away from the address line, from where it would be copied with the link.
            return None if scope["type"] == "websocket" else self._welcome(scope["path"])
        if self._signing_in is not None and scope["type"] == "http" and scope["method"] == "GET":
            if scope["path"] in STREAMLITS:
                return None
            if scope["path"] == START:
                return self._signing_in.start(query.get("provider", [""])[0]) or NO_SUCH
        return self._refusal(headers)

    def _refusal(self, headers: Headers) -> Response:
        who = self._signed_in(headers)
        if who is not None:
            return self._ask(headers, 403, f"{who} is not among those who may see this page (dashboard.people).")
        ways = ["a token" if self._token else "", "signing in" if self._signing_in else ""]
        return self._ask(headers, 401, f"This page asks for {' or '.join(filter(None, ways))}.")

    def _ask(self, headers: Headers, status: int, text: str) -> Response:
        if not headers.get("accept", "").startswith("text/html"):
            code = "unauthorized" if status == 401 else "forbidden"
            hint = "A token is needed: dashboard.token." if self._token and status == 401 else text
            return Json({"error_code": code, "error": hint}, status)
        ways = _FORM if self._token else ""
        if self._signing_in is not None:
            leave = [(LEAVE, "Sign out")] if status == 403 else []
            ways = (
                "".join(
                    f'<p><a href="{escape(address)}">{escape(words)}</a></p>'
                    for address, words in [*links(self._signing_in.providers), *leave]
                )
                + ways
            )
        return HTMLResponse(_PAGE.format(text=escape(text), ways=ways), status)

    def _signed_in(self, headers: Headers) -> str | None:
        return None if self._signing_in is None else self._signing_in.who(headers.get("cookie", ""))

    def _knows(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return True
        # A cookie goes along with what other sites ask for; Strict or Lax keeps it from some, and this from websockets.
        if not same_site(headers):
            return False
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        if cookie is not None and self._is_token(cookie.value):
            return True
        return self._signing_in is not None and self._signing_in.allows(self._signed_in(headers))

    def _is_token(self, given: str) -> bool:
        return bool(self._token) and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token)

    async def _login(self, receive: Receive) -> Response:
        body = b""
        more = True
        while more and len(body) <= _LONGEST_FORM:
            part = await receive()
            body += part.get("body", b"")
            more = part.get("more_body", False)
        given = parse_qs(body[:_LONGEST_FORM].decode("utf-8", "replace")).get("token", [""])[0]
        if self._is_token(given):
            return self._welcome("/")
        return HTMLResponse(_PAGE.format(text="That was not the token.", ways=_FORM), 401)

    def _welcome(self, path: str) -> Response:
        # One leading slash only: //elsewhere would lead to another site.
        answer = RedirectResponse("/" + path.lstrip("/\\"), 303)
        answer.set_cookie(COOKIE, self._token.decode(), max_age=_WEEK, httponly=True, samesite="strict")
        return answer


async def _refuse(refusal: Response, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        # Closing before accepting is answered with 403.
        return await send({"type": "websocket.close", "code": 1008})
    return await refusal(scope, receive, send)


def is_devious(scope: Scope) -> bool:
    """Whether a path climbs, in whatever encoding: no address of ours has such a segment."""
    path: str = scope["path"]
    for _ in range(3):  # what a proxy may decode once more
        if "\\" in path or "\0" in path or any(part in {"..", "."} for part in path.split("/")):
            return True
        path, before = unquote(path), path
        if path == before:
            return False
    return True


def _is_here(scope: Scope) -> bool:
    """Whether a connection came in at an address that only this machine can reach.

    Who starts the server chooses where it listens, and can leave the settings behind; the socket tells the truth.
    """
    server = scope.get("server")
    # A Unix socket has a path and no port.
    return server is None or server[1] is None or is_loopback(server[0])


def _is_own_name(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def same_site(headers: Headers) -> bool:
    """Return whether a request that says where it comes from comes from our own page."""
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != ""
    except ValueError:
        return False
