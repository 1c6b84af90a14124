"""Access to the dashboard. Pure ASGI: Streamlit sends everything over websockets, which are guarded like pages."""

from __future__ import annotations

import hmac
import logging
import re
from html import escape
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, unquote_plus, urlsplit

from starlette.datastructures import Headers
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dashboard.access.protection import Protection, deny, is_cross_site, is_from_elsewhere, is_own_origin
from dashboard.access.session import Session, Sessions
from dashboard.access.signing_in import CALLBACK, START, SignInFailed, SigningIn
from dashboard.access.throttle import MOST_WAITING, Throttle
from dashboard.responses import Json
from wsi_denoise.system.bind_address import is_loopback

LOGIN = "/login"
LOGOUT = "/logout"
OPEN = frozenset({"/healthz"})
USER_HEADER = "x-wsi-denoise-user"
"""Set for the page's scripts: the address of the signed-in user, or ``token``. What a client sends is removed."""

_LOGOUTS = {LOGOUT, "/auth/logout"}
_LONGEST_FORM = 16384
# Browsers take a backslash for a slash and leave out tabs and line breaks: /\\x and /<tab>/x are other sites.
_LOCAL = re.compile(r"/(?!/)[^\x00-\x20\\\x7f]{0,4095}")
_RETRY_SECONDS = 10

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sign in - wsi-denoise</title>
<meta name="viewport" content="width=device-width"></head>
<body style="font-family: sans-serif; max-width: 30em; margin: 4em auto; padding: 0 1em">
<h1>wsi-denoise</h1><p role="{role}">{text}</p>{ways}</body></html>"""
_FORM = """<form method="post" action="/login"><input type="hidden" name="next" value="{target}"><label>Token
<input type="password" name="token" autocomplete="current-password" required autofocus></label>
<button>Open</button></form><p>The token is the setting dashboard.token.</p>"""

_log = logging.getLogger(__name__)


NO_SUCH = Json({"error_code": "not_found", "error": "There is no such address."}, 404)
_ELSEWHERE = Json(
    {"error_code": "forbidden", "error": "Another site's page requested this. Open the page itself."}, 403
)
_STRANGER = Json({"error_code": "forbidden", "error": "Ask for 127.0.0.1 or localhost."}, 403)


def guarded(app: ASGIApp, *, token: str, signing_in: SigningIn | None = None, state: Path | None = None) -> Protection:
    """Return an application behind the guard, with security headers on every answer, failures included.

    Parameters
    ----------
    token : str
        Empty for none.
    state : Path, optional
        Folder that keeps sessions over a restart.
    """
    sessions = None
    if token or signing_in:
        # The secret of secrets.toml counts too, so that a changed one ends sessions.
        sessions = Sessions(state, "\0".join([token, signing_in.secret if signing_in else ""]))
    guard = Guard(app, token=token, signing_in=signing_in, sessions=sessions)
    return Protection(ServerErrorMiddleware(guard))


class Guard:
    """Passes on requests with the token or of a signed-in user; without both, requests of this machine.

    The token comes as ``Authorization: Bearer``, through the form, or once as ``?token=``. The latter two begin a
    session.

    Parameters
    ----------
    token : str
        Empty for none.
    signing_in : SigningIn, optional
        Users who may sign in. Without it and without a token the server must listen on loopback only.
    sessions : Sessions, optional
        Default: sessions that end with the process.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str,
        signing_in: SigningIn | None = None,
        sessions: Sessions | None = None,
        throttle: Throttle | None = None,
    ) -> None:
        self._app = app
        self._token = token.encode()
        self._signing_in = signing_in
        self._throttle = throttle or Throttle()
        self._sessions = sessions or Sessions(token=token)
        self._behind_login = self._sessions.around(self._with_session)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        if scope["type"] not in {"http", "websocket"}:
            return await self._app(scope, receive, send)
        if is_devious(scope):
            # Before anything else: no route may interpret it.
            return await deny(NO_SUCH, scope, receive, send)
        if is_cross_site(scope):
            return await deny(_ELSEWHERE, scope, receive, send)
        if self._token or self._signing_in:
            return await self._behind_login(scope, receive, send)
        if not _is_from_here(scope):
            return await deny(_STRANGER, scope, receive, send)
        return await self._app(_naming(scope, None), receive, send)

    async def _with_session(self, scope: Scope, receive: Receive, send: Send) -> None:
        session: Session = scope["session"]
        if scope["path"] in OPEN:
            return await self._app(_naming(scope, None), receive, send)
        bearer = await self._bearer(scope)
        if bearer:
            return await self._app(_naming(scope, "token"), receive, send)
        if bearer is None:
            return await deny(self._wrong(scope, None, "/"), scope, receive, send)
        # A cookie goes along with what other sites request; Lax keeps it from some, and this from websockets.
        is_in = is_own_origin(Headers(scope=scope)) and self._is_in(session)
        answer = await self._answer(scope, receive, is_in=is_in)
        if answer is not None:
            return await deny(answer, scope, receive, send)
        inner = _naming(scope, session.get("email") or "token")
        if scope["type"] == "websocket" and is_in:
            return await self._sessions.follow(self._app, session["id"], inner, receive, send)
        return await self._app(inner, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, *, is_in: bool) -> Response | None:
        """Return the answer of the guard itself; None for a request that is passed on."""
        if scope["type"] == "websocket":
            return None if is_in or await self._token_in_address(scope) else self._refusal(scope)
        own = await self._own_answer(scope, receive, is_in=is_in)
        return own if own is not None or is_in else self._refusal(scope)

    async def _own_answer(self, scope: Scope, receive: Receive, *, is_in: bool) -> Response | None:
        """Return the answer at an address of the guard's own; None at any other."""
        path, method = scope["path"], scope["method"]
        if path == LOGIN and method == "POST" and self._token:
            return await self._login(scope, receive)
        if path in _LOGOUTS and is_own_origin(Headers(scope=scope)):
            # A link on another site leads to the page, and ends no session.
            return _see("/") if is_from_elsewhere(scope) else await self._logout(scope)
        return await self._own_page(scope, receive, is_in=is_in) if method in {"GET", "HEAD"} else None

    async def _own_page(self, scope: Scope, receive: Receive, *, is_in: bool) -> Response | None:
        path = scope["path"]
        if self._signing_in is not None and path in {START, CALLBACK}:
            return await self._at_provider(self._signing_in, scope, receive, is_in=is_in)
        if self._token and "token" in _query(scope):
            return await self._with_token(scope, is_in=is_in)
        return _see(target_of(scope)) if is_in and path == LOGIN else None

    def _is_in(self, session: Session) -> bool:
        if not self._sessions.is_valid(session):
            return False
        if session.get("by") == "token":
            return bool(self._token)
        return self._signing_in is not None and self._signing_in.allows(session.get("email"))

    # -- the token

    def _is_token(self, given: str) -> bool:
        return bool(self._token) and hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self._token)

    async def _bearer(self, scope: Scope) -> bool | None:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        return await self._compared(scope, given.strip(), "a header") if scheme.lower() == "bearer" else False

    async def _token_in_address(self, scope: Scope) -> bool | None:
        given = _query(scope).get("token", [""])[0]
        return await self._compared(scope, given, "the address")

    async def _compared(self, scope: Scope, given: str, where: str) -> bool | None:
        """Return whether this is the token; None if the client has to wait first."""
        if not given or not self._token:
            return False
        client = (scope.get("client") or ("",))[0]
        attempt = await self._throttle.attempt(client, given, self._is_token)
        if attempt.is_news and attempt.refused:
            _log.warning("more than %d wrong tokens at a time from %s: refused", MOST_WAITING, client or "a socket")
        elif attempt.is_news:
            _log.warning("wrong token in %s from %s", where, client or "a socket")
        return None if attempt.refused else attempt.right

    async def _with_token(self, scope: Scope, *, is_in: bool) -> Response:
        target = target_of(scope)
        if is_in:
            # Away from the address line, from where it would be copied with the link.
            return _see(target)
        right = await self._token_in_address(scope)
        return self._let_in(scope, target) if right else self._wrong(scope, right, target)

    async def _login(self, scope: Scope, receive: Receive) -> Response:
        body, more = b"", True
        while more and len(body) <= _LONGEST_FORM:
            part = await receive()
            body += part.get("body", b"")
            more = part.get("more_body", False)
        form = parse_qs(body[:_LONGEST_FORM].decode("utf-8", "replace"))
        target = local(form.get("next", [""])[0])
        right = await self._compared(scope, form.get("token", [""])[0], "the form")
        return self._let_in(scope, target) if right else self._wrong(scope, right, target)

    def _let_in(self, scope: Scope, target: str) -> Response:
        self._sessions.begin(scope["session"], by="token")
        return _see(target)

    def _wrong(self, scope: Scope, right: bool | None, target: str) -> Response:  # noqa: FBT001 - three values
        if right is None:
            text = f"Too many wrong tokens. Try again in {_RETRY_SECONDS} seconds."
            answer = self._ask(scope, 429, text, target, role="alert")
            answer.headers["Retry-After"] = str(_RETRY_SECONDS)
            return answer
        return self._ask(scope, 401, "That was not the token.", target, role="alert")

    # -- signing in and out

    async def _at_provider(
        self, signing_in: SigningIn, scope: Scope, receive: Receive, *, is_in: bool
    ) -> Response | None:
        request, session = Request(scope, receive), scope["session"]
        target = local(request.query_params.get("next", "/"))
        try:
            if scope["path"] == START:
                return await signing_in.start(request, target) or NO_SUCH
            if not request.query_params or (is_in and not signing_in.is_pending(session)):
                return _see("/")  # back from the provider's own sign-out, or the browser's Back
            address, provider, target = await signing_in.finish(request)
        except SignInFailed as failed:
            session.clear()
            return self._ask(scope, failed.status, failed.text, target, role="alert")
        self._sessions.begin(session, by="provider", email=address, provider=provider)
        return _see(local(target)) if signing_in.allows(address) else self._refusal(scope)

    async def _logout(self, scope: Scope) -> Response:
        provider = scope["session"].get("provider", "")
        self._sessions.end(scope["session"])
        elsewhere = await self._signing_in.leave(provider) if self._signing_in and provider else ""
        return RedirectResponse(elsewhere or "/", 303, headers={"Cache-Control": "no-store"})

    # -- refusals

    def _refusal(self, scope: Scope) -> Response:
        session, target = scope["session"], target_of(scope)
        if self._sessions.is_valid(session) and session.get("email") and is_own_origin(Headers(scope=scope)):
            text = f"{session['email']} may not open this dashboard (dashboard.people)."
            return self._ask(scope, 403, text, target)
        ways = ["a token" if self._token else "", "signing in" if self._signing_in else ""]
        return self._ask(scope, 401, f"This page asks for {' or '.join(filter(None, ways))}.", target)

    def _ask(self, scope: Scope, status: int, text: str, target: str, *, role: str = "status") -> Response:
        if "text/html" not in Headers(scope=scope).get("accept", ""):
            code = {401: "unauthorized", 403: "forbidden", 429: "too_many_attempts"}.get(status, "unavailable")
            hint = "A token is needed: dashboard.token." if self._token and status == 401 else text
            return Json({"error_code": code, "error": hint}, status, headers={"Cache-Control": "no-store"})
        ways = _FORM.format(target=escape(target)) if self._token else ""
        if self._signing_in is not None:
            leave = [(LOGOUT, "Sign out")] if status == 403 else []
            links = [*self._signing_in.links(target), *leave]
            ways = "".join(f'<p><a href="{escape(link)}">{escape(words)}</a></p>' for link, words in links) + ways
        page = _PAGE.format(text=escape(text), ways=ways, role=role)
        return HTMLResponse(page, status, headers={"Cache-Control": "no-store"})


def _see(target: str) -> Response:
    return RedirectResponse(target, 303, headers={"Cache-Control": "no-store"})


def _naming(scope: Scope, user: str | None) -> Scope:
    """Return a copy of the scope for the page, with the user in a header."""
    headers = [each for each in scope["headers"] if each[0].lower() != USER_HEADER.encode()]
    if user is not None:
        headers.append((USER_HEADER.encode(), quote(user, safe="@").encode()))
    return {**scope, "headers": headers}


# -- addresses


def _query(scope: Scope) -> dict[str, list[str]]:
    return parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)


def target_of(scope: Scope) -> str:
    """Return the address of a request without the token; ``/`` if it cannot be repeated."""
    if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"}:
        return "/"
    if scope["path"] == LOGIN:
        return local(_query(scope).get("next", ["/"])[0])
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    path = "/" + raw.partition(b"?")[0].decode("latin-1").lstrip("/\\")
    parts = scope.get("query_string", b"").decode("latin-1").split("&")
    query = "&".join(part for part in parts if part and unquote_plus(part.partition("=")[0]) != "token")
    return local(f"{path}?{query}" if query else path)


def local(target: str) -> str:
    """Return an address of this page as it is, and ``/`` for anything that could lead elsewhere."""
    return target if _is_local(target) else "/"


def _is_local(target: str) -> bool:
    if not _LOCAL.fullmatch(target):
        return False
    try:
        parts = urlsplit(target)
    except ValueError:
        return False
    return not parts.scheme and not parts.netloc and parts.path not in {LOGIN, START, CALLBACK, *_LOGOUTS}


def is_devious(scope: Scope) -> bool:
    """Return whether a path climbs, in any encoding: no address of ours has such a segment."""
    path: str = scope["path"]
    for _ in range(3):  # what a proxy may decode once more
        if "\\" in path or "\0" in path or any(part in {"..", "."} for part in path.split("/")):
            return True
        path, before = unquote(path), path
        if path == before:
            return False
    return True


def _is_from_here(scope: Scope) -> bool:
    """Return whether a request without a login comes from this machine, and from no page of another site.

    Another site's page could make the browser ask us under its own name (DNS rebinding), or open a websocket here,
    which no browser refuses.
    """
    headers = Headers(scope=scope)
    return _is_here(scope) and _is_own_name(headers.get("host", "")) and is_own_origin(headers)


def _is_here(scope: Scope) -> bool:
    """Return whether a connection arrived at an address that only this machine can reach.

    The server may be started at another address than the settings name; the socket has the actual one.
    """
    server = scope.get("server")
    # A Unix socket has a path and no port.
    return server is None or server[1] is None or is_loopback(server[0])


def _is_own_name(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
