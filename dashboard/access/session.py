"""Sessions of browsers: a cookie that the page signs, and sign-out.

The cookie holds no secret: it is signed with a key that comes from a file in the state folder and from the token, so
that a changed token ends every session.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.sessions import SessionMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wsi_denoise.system.files import atomic_file

LASTS_SECONDS = 7 * 24 * 3600
SECRET_FILE = "page-secret"  # noqa: S105 - a name
SIGNED_OUT_FILE = "page-signed-out.json"

_SECRET_BYTES = 32

_log = logging.getLogger(__name__)

Session = MutableMapping[str, Any]


class Sessions:
    """The sessions of one page.

    Parameters
    ----------
    folder : Path, optional
        Keeps the secret and the sessions that were signed out, each in a file that only this user can read. Without
        it, or where it cannot be written, sessions end with the process.
    token : str
        Part of the key.
    """

    def __init__(self, folder: Path | None = None, token: str = "") -> None:
        self._file = None if folder is None else folder / SIGNED_OUT_FILE
        self._key = hmac.new(_secret(folder), b"session\0" + token.encode(), hashlib.sha256).hexdigest()
        self._signed_out = _read(self._file)
        self._open: dict[str, set[asyncio.Event]] = {}

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return an application that finds its session in ``scope["session"]``.

        The cookie is ``Secure`` where the browser came by https. Its name depends on the key: cookies ignore ports, and
        two pages on one machine would end each other's sessions.
        """
        name = f"wsi_denoise_{hashlib.sha256(self._key.encode()).hexdigest()[:8]}"
        plain, secure = (
            SessionMiddleware(
                app,
                self._key,
                session_cookie=name,
                max_age=LASTS_SECONDS,
                # Not strict: a link in a mail would open without the session.
                same_site="lax",
                https_only=https_only,
            )
            for https_only in (False, True)
        )

        async def chosen(scope: Scope, receive: Receive, send: Send) -> None:
            await (secure if _came_by_https(scope) else plain)(scope, receive, send)

        return chosen

    def begin(self, session: Session, **who: str) -> None:
        """Sign in, and drop what the session held."""
        session.clear()
        session.update(who, id=secrets.token_hex(16), since=time.time())

    def is_valid(self, session: Session) -> bool:
        """Return whether a user has signed in within the session's lifetime and has not signed out."""
        number, since = session.get("id"), session.get("since")
        if not isinstance(number, str) or not isinstance(since, float | int):
            return False
        return number not in self._signed_out and 0 <= time.time() - since < LASTS_SECONDS

    def end(self, session: Session) -> None:
        """Sign out: the cookie opens nothing from now on, and open websockets are closed."""
        number = session.get("id")
        session.clear()
        if not isinstance(number, str):
            return
        now = time.time()
        self._signed_out[number] = now + LASTS_SECONDS
        for old in [each for each, until in self._signed_out.items() if until < now]:
            del self._signed_out[old]
        for event in self._open.get(number, ()):
            event.set()
        if self._file is not None:
            try:
                _write(self._file, json.dumps(self._signed_out).encode(), replace=True)
            except OSError as error:
                _log.warning("sign-outs are not kept: %s", error.strerror)

    async def follow(self, app: ASGIApp, session_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a websocket until its session is signed out."""
        with self._noted(session_id) as ended:
            await app(scope, _until(ended, receive, send), _unless(ended, send))

    @contextlib.contextmanager
    def _noted(self, session_id: str) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        group = self._open.setdefault(session_id, set())
        group.add(event)
        try:
            yield event
        finally:
            group.discard(event)
            if not group:
                self._open.pop(session_id, None)


def _until(ended: asyncio.Event, receive: Receive, send: Send) -> Receive:
    """Return a receive that closes the connection, and reports that, when the session has ended."""

    async def received() -> Message:
        message, end = asyncio.ensure_future(receive()), asyncio.ensure_future(ended.wait())
        try:
            await asyncio.wait({message, end}, return_when=asyncio.FIRST_COMPLETED)
            if message.done():
                return message.result()
        finally:
            message.cancel()
            end.cancel()
        with contextlib.suppress(Exception):
            await send({"type": "websocket.close", "code": 1008})
        return {"type": "websocket.disconnect", "code": 1008}

    return received


def _unless(ended: asyncio.Event, send: Send) -> Callable[[Message], Awaitable[None]]:
    async def sent(message: Message) -> None:
        if not ended.is_set():
            await send(message)

    return sent


def _came_by_https(scope: Scope) -> bool:
    # A client that sends this header without a proxy gets a cookie that only https carries.
    forwarded = Headers(scope=scope).get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    return scope.get("scheme") in {"https", "wss"} or forwarded in {"https", "wss"}


def _secret(folder: Path | None) -> bytes:
    """Return the secret in a folder, which is made on first use."""
    if folder is None:
        return secrets.token_bytes(_SECRET_BYTES)
    file = folder / SECRET_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = _kept(file)
        if found is None:
            # Of two processes that make it at once, one does, and both use that.
            with contextlib.suppress(FileExistsError):
                _write(file, secrets.token_bytes(_SECRET_BYTES).hex().encode(), replace=False)
            found = _kept(file)
        if found is not None:
            return found
        reason = f"{file.name} holds something else"
    except OSError as error:
        reason = error.strerror or str(error)
    _log.warning("sessions end when the page ends, as their secret cannot be kept: %s", reason)
    return secrets.token_bytes(_SECRET_BYTES)


def _kept(file: Path) -> bytes | None:
    """Return the secret in a file, or None; a secret that is damaged or readable by others is removed."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as opened:
        status = os.fstat(opened.fileno())
        private = status.st_uid == os.getuid() and not status.st_mode & 0o077
        with contextlib.suppress(ValueError):
            found = bytes.fromhex(opened.read(1000).decode("ascii"))
            if private and len(found) == _SECRET_BYTES:
                return found
    _log.warning("%s is %s; a new one ends all sessions", file.name, "damaged" if private else "readable by others")
    file.unlink()
    return None


def _read(file: Path | None) -> dict[str, float]:
    try:
        given = {} if file is None else json.loads(file.read_text("ascii"))
        return {str(number): float(until) for number, until in given.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(file: Path, data: bytes, *, replace: bool) -> None:
    """Write a file for this user only; see :func:`wsi_denoise.system.files.atomic_path`."""
    with atomic_file(file, replace=replace, mode=0o600) as opened:
        opened.write(data)
