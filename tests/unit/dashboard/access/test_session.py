"""Sessions: their cookie, their end, and the secret that signs them."""

import asyncio
import stat
import time
from urllib.parse import quote

import pytest

from dashboard.access import session as of_sessions
from dashboard.access.session import SECRET_FILE, Sessions
from dashboard.access.throttle import Throttle
from dashboard.guard import Guard
from support.asgi import QUICK, TOKEN, Page, cookie_of, exchange, sign_in


def test_the_cookie_holds_nothing_of_the_token(page):
    first, second = sign_in(page)["set-cookie"], sign_in(page)["set-cookie"]
    assert first != second
    for part in (TOKEN, quote(TOKEN), "secret"):
        assert part not in first


@pytest.mark.parametrize(
    "how", [{"scheme": "https"}, {"x_forwarded_proto": "https"}, {"x_forwarded_proto": "https, http"}]
)
def test_over_https_the_cookie_is_secure(page, how):
    headers = sign_in(page, **how)
    assert "secure" in headers["set-cookie"].lower()
    assert page("/", cookie=cookie_of(headers), **how)[0] == 200


def test_signing_out_closes_the_websockets_of_the_session():
    async def story():
        opened, closed, sent = asyncio.Event(), asyncio.Event(), []

        async def app(scope, receive, send):
            if scope["type"] == "http":
                return
            await send({"type": "websocket.accept"})
            opened.set()
            while (await receive())["type"] != "websocket.disconnect":
                pass
            await send({"type": "websocket.send", "text": "too late"})
            closed.set()

        guard = Guard(app, token="abc")
        _, headers, _ = await exchange(guard, "/login", method="POST", body=b"token=abc")
        cookie = cookie_of(headers)
        messages = asyncio.Queue()
        messages.put_nowait({"type": "websocket.receive", "text": "hello"})
        scope = {"type": "websocket", "path": "/", "query_string": b"", "headers": [(b"cookie", cookie.encode())]}

        async def send(message):
            sent.append(message["type"])

        task = asyncio.ensure_future(guard(scope, messages.get, send))
        await asyncio.wait_for(opened.wait(), 60)
        assert not closed.is_set()
        await exchange(guard, "/logout", cookie=cookie)
        await asyncio.wait_for(task, 60)
        assert closed.is_set()
        assert sent == ["websocket.accept", "websocket.close"]

    asyncio.run(story())


def test_a_changed_token_ends_sessions_and_a_restart_does_not(tmp_path):
    def page(token):
        return Guard(Page(), token=token, sessions=Sessions(tmp_path, token), throttle=Throttle(**QUICK))

    async def story():
        _, headers, _ = await exchange(page("one"), "/login", method="POST", body=b"token=one")
        cookie = cookie_of(headers)
        assert (await exchange(page("one"), cookie=cookie))[0] == 200
        assert (await exchange(page("two"), cookie=cookie))[0] == 401
        await exchange(page("one"), "/logout", cookie=cookie)
        assert (await exchange(page("one"), cookie=cookie))[0] == 401

    asyncio.run(story())


def test_a_session_ends_after_a_week(page, monkeypatch):
    cookie = cookie_of(sign_in(page))
    now = time.time()
    for later, status in ((of_sessions.LASTS_SECONDS - 60, 200), (of_sessions.LASTS_SECONDS + 60, 401), (-3600, 401)):
        monkeypatch.setattr(time, "time", lambda at=now + later: at)
        assert page("/", cookie=cookie)[0] == status


def test_a_cookie_that_was_changed_opens_nothing(page):
    name, _, value = cookie_of(sign_in(page)).partition("=")
    for forged in (value[:-3] + "abc", value[1:], "", "null", value.split(".")[0], "e30=.x.y", "\xff"):
        assert page("/", cookie=f"{name}={forged}")[0] == 401


def test_the_secret_is_kept_for_this_user_only(tmp_path, caplog):
    Sessions(tmp_path)
    file = tmp_path / SECRET_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = file.read_bytes()
    Sessions(tmp_path)
    assert file.read_bytes() == first
    file.chmod(0o644)
    Sessions(tmp_path)
    assert file.read_bytes() != first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "readable by others" in caplog.text
    file.write_bytes(b"cut o")
    Sessions(tmp_path)
    assert len(file.read_bytes()) == len(first)
    assert list(tmp_path.iterdir()) == [file]


def test_without_a_place_for_the_secret_sessions_still_work(tmp_path):
    (tmp_path / "file").touch()
    guard = Guard(Page(), token="abc", sessions=Sessions(tmp_path / "file", "abc"))
    _, headers, _ = asyncio.run(exchange(guard, "/login", method="POST", body=b"token=abc"))
    assert asyncio.run(exchange(guard, cookie=cookie_of(headers)))[0] == 200
