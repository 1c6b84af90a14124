"""Access to the page, called as a server calls it."""

import asyncio
import itertools
import json
import logging
import stat
import time
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from dashboard.access import session as of_sessions
from dashboard.access.session import SECRET_FILE, Sessions
from dashboard.access.signing_in import vouched
from dashboard.access.throttle import MOST_WAITING, Throttle
from dashboard.guard import USER_HEADER, Guard, guarded, local

TOKEN = "lång & secret"
CROSS = {"sec_fetch_site": "cross-site"}
LINK = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
HEADERS = {
    "content-security-policy": "frame-ancestors 'self'",
    "x-frame-options": "SAMEORIGIN",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


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


QUICK = {"first": 0.01, "most": 0.02}


def ask(path="/", *, token="", **options):
    """Return what a fresh page answers to one request."""
    return asyncio.run(exchange(Guard(Page(), token=token, throttle=Throttle(**QUICK)), path, **options))


@pytest.fixture
def page():
    """A page with the token, which keeps its sessions: ``page(path, ...)``; its ``inner`` was reached."""
    inner = Page()
    guard = Guard(inner, token=TOKEN, throttle=Throttle(**QUICK))

    def asked(path="/", **options):
        return asyncio.run(exchange(guard, path, **options))

    asked.inner = inner
    return asked


def cookie_of(headers):
    return headers["set-cookie"].partition(";")[0]


def sign_in(page, target="/", **options):
    form = f"token={quote(TOKEN)}&next={quote(target, safe='')}".encode()
    status, headers, _ = page("/login", method="POST", body=form, **options)
    assert status == 303
    return headers


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("path", ["/", "/api/jobs", "/_stcore/stream", "/healthz/", "/login", "//healthz"])
def test_without_the_token_nothing_is_answered(path, kind):
    status, _, body = ask(path, token=TOKEN, kind=kind)
    assert status in {401, 403}
    assert b"content" not in body


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_wrong_token_is_rejected(kind):
    for headers in ({"authorization": "Bearer wrong"}, {"authorization": "Bearer "}, {"cookie": "wsi_denoise="}, {}):
        assert ask("/", token=TOKEN, kind=kind, query="token=wrong", **headers)[0] in {401, 403}


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_program_sends_the_token_in_a_header(kind):
    assert ask("/api/jobs", token="abc", kind=kind, authorization="Bearer abc")[0] in {200, 101}


def test_a_user_is_asked_once(page):
    status, _, body = page("/", accept="text/html")
    assert status == 401
    assert b"<form" in body
    headers = sign_in(page)
    assert headers["location"] == "/"
    given = headers["set-cookie"].lower()
    assert "httponly" in given
    assert "samesite=lax" in given
    assert "secure" not in given
    for kind, good in (("http", 200), ("websocket", 101)):
        assert page("/_stcore/stream", kind=kind, cookie=cookie_of(headers))[0] == good
    # Another site's page gets the browser to send the cookie along.
    elsewhere = page("/_stcore/stream", kind="websocket", cookie=cookie_of(headers), origin="http://evil.example")
    assert elsewhere[0] in {401, 403}


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


@pytest.mark.parametrize("path", ["/logout", "/auth/logout"])
def test_who_signs_out_is_out_with_every_copy_of_the_cookie(page, path):
    cookie, other = cookie_of(sign_in(page)), cookie_of(sign_in(page))
    status, headers, _ = page(path, cookie=cookie)
    assert (status, headers["location"]) == (303, "/")
    assert "1970" in headers["set-cookie"]
    for kind in ("http", "websocket"):
        assert page("/", kind=kind, cookie=cookie)[0] == 401
    assert page("/", cookie=other)[0] == 200


def test_another_site_signs_nobody_out(page):
    cookie = cookie_of(sign_in(page))
    page("/logout", cookie=cookie, **LINK)
    page("/logout", cookie=cookie, **CROSS)
    page("/logout", cookie=cookie, origin="http://evil.example", method="POST")
    assert page("/", cookie=cookie)[0] == 200


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


# -- where a sign-in leads


TARGETS = ["/compare?job=3&x=0.5&y=0.25", "/history?state=failed&state=done&slide=%C3%A9%26%2F", "/slides/1/before.dzi"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_link_keeps_its_target_through_the_form(page, target):
    path, _, query = target.partition("?")
    _, _, body = page(path, query=query, accept="text/html")
    [kept] = [part.split('"')[0] for part in body.decode().split('name="next" value="')[1:]]
    kept = kept.replace("&amp;", "&")
    assert kept == target
    _, _, body = page("/login", method="POST", body=f"token=x&next={quote(kept, safe='')}".encode(), accept="text/html")
    assert f'value="{target.replace("&", "&amp;")}"' in body.decode()
    assert sign_in(page, kept)["location"] == target


@pytest.mark.parametrize("target", TARGETS)
def test_a_token_in_the_address_leaves_it_and_the_rest_stays(page, target):
    path, _, query = target.partition("?")
    for given in (f"token={quote(TOKEN)}&{query}", f"{query}&token={quote(TOKEN)}", f"{query}&%74oken={quote(TOKEN)}"):
        status, headers, _ = page(path, query=given.strip("&"))
        assert (status, headers["location"]) == (303, target)
    # Also for a client that is signed in already, whatever the token is.
    status, again, _ = page(path, query=f"token=old&{query}".strip("&"), cookie=cookie_of(headers))
    assert (status, again["location"]) == (303, target)
    assert page(path, query=query, cookie=cookie_of(headers))[0] == 200


ELSEWHERE = [
    "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "https://evil.example/", "http:evil",
    "/\t/evil.example", "/\n/evil.example", " //evil.example", "evil.example", "", "javascript:alert(1)",
    "/\x00/evil", "//evil.example/%2f..", "https:/evil.example", "/" + "a" * 9000, "/logout", "/login?next=/login",
]  # fmt: skip


@pytest.mark.parametrize("target", ELSEWHERE)
def test_a_sign_in_leads_to_no_other_site(page, target):
    assert local(target) == "/"
    assert sign_in(page, target)["location"] == "/"
    _, headers, _ = page("/login", query=f"next={quote(target, safe='')}&token={quote(TOKEN)}")
    assert headers["location"] == "/"


@pytest.mark.parametrize("path", ["//evil.example", "///evil.example/x", "//evil.example:80//"])
def test_the_path_of_a_request_leads_to_no_other_site(page, path):
    _, headers, _ = page(path, query=f"token={quote(TOKEN)}")
    assert headers["location"].startswith("/evil.example")


# -- wrong tokens


@pytest.mark.parametrize(
    ("request_", "where"),
    [
        ({"path": "/login", "method": "POST", "body": b"token=guess-1"}, "the form"),
        ({"path": "/", "query": "token=guess-1"}, "the address"),
        ({"path": "/api/jobs", "authorization": "Bearer guess-1"}, "a header"),
        ({"path": "/", "query": "token=guess-1", "kind": "websocket"}, "the address"),
    ],
)
def test_a_wrong_token_is_logged_without_it_and_answered_late(page, caplog, request_, where):
    caplog.set_level(logging.INFO)
    start = time.monotonic()
    assert page(**request_, client=("192.0.2.7", 5))[0] in {401, 403}
    assert time.monotonic() - start >= QUICK["first"]
    [line] = caplog.messages
    assert where in line
    assert "192.0.2.7" in line
    assert "guess-1" not in caplog.text


def test_wrong_tokens_of_one_client_are_compared_one_after_the_other():
    compared = []

    def is_right(given):
        compared.append((given, time.monotonic()))
        return given == "right"

    async def story():
        throttle = Throttle(first=0.05, most=0.2)
        waiting = [throttle.attempt("192.0.2.1", f"guess {number}", is_right) for number in range(4)]
        *wrong, right, other = await asyncio.gather(
            *waiting, throttle.attempt("192.0.2.1", "right", is_right), throttle.attempt("192.0.2.2", "right", is_right)
        )
        assert not any(attempt.right for attempt in wrong)
        assert right.right
        assert other.right

    asyncio.run(story())
    when = dict(compared)
    of_one = sorted(at for given, at in compared if given.startswith("guess"))
    gaps = [after - before for before, after in itertools.pairwise(of_one)]
    assert gaps[0] >= 0.05
    assert gaps[1] >= 0.1
    assert gaps[2] >= 0.2
    # The right one of the same client waits for its turn, so that the time of an answer says nothing.
    assert when["right"] >= of_one[-1] or when["right"] <= of_one[0]


def test_too_many_guesses_at_a_time_are_refused(caplog):
    async def story():
        guard = Guard(Page(), token=TOKEN, throttle=Throttle(**QUICK))
        guesses = [exchange(guard, "/", query=f"token={number}") for number in range(MOST_WAITING + 5)]
        statuses = [answer[0] for answer in await asyncio.gather(*guesses)]
        assert statuses.count(429) == 5
        assert statuses.count(401) == MOST_WAITING
        assert caplog.text.count("refused") == 1
        # And afterwards the right one is welcome.
        assert (await exchange(guard, "/", query=f"token={quote(TOKEN)}"))[0] == 303

    asyncio.run(story())


def test_a_program_that_repeats_an_old_token_delays_nobody_behind_its_address():
    async def story():
        throttle = Throttle(first=0.5, most=60)
        tries = [asyncio.ensure_future(throttle.attempt("192.0.2.1", "old", lambda given: given == "new"))]
        await asyncio.wait(tries)
        tries += [
            asyncio.ensure_future(throttle.attempt("192.0.2.1", "old", lambda given: given == "new")) for _ in range(50)
        ]
        await asyncio.sleep(0)
        right = await throttle.attempt("192.0.2.1", "new", lambda given: given == "new")
        assert right.right
        assert not all(each.done() for each in tries)
        answers = await asyncio.gather(*tries)
        assert [each.is_news for each in answers].count(True) == 1
        assert not any(each.right or each.refused for each in answers)

    asyncio.run(story())


# -- headers and other sites' pages


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


def test_a_link_on_another_site_is_followed(page):
    assert ask("/compare", query="job=3", **LINK)[0] == 200
    assert page("/compare", cookie=cookie_of(sign_in(page)), **LINK)[0] == 200
    assert ask("/", **LINK, method="POST")[0] == 403
    own = {"sec_fetch_site": "same-origin", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"}
    assert ask("/slides/1/thumbnail.jpeg", **own)[0] == 200
    assert ask("/", sec_fetch_site="none", sec_fetch_mode="navigate", sec_fetch_dest="document")[0] == 200


def test_the_page_learns_who_it_is_from_the_guard_alone(page):
    def told():
        return [value for name, value in page.inner.scopes[-1]["headers"] if name == USER_HEADER.encode()]

    page("/", cookie=cookie_of(sign_in(page)), x_wsi_denoise_user="doctor@lab.example")
    assert told() == [b"token"]
    page("/healthz", x_wsi_denoise_user="doctor@lab.example")
    assert told() == []
    inner = SimpleNamespace(scopes=[])

    async def app(scope, receive, send):
        inner.scopes.append(scope)

    scope = {"type": "http", "path": "/", "method": "GET", "query_string": b"",
             "headers": [(b"host", b"localhost"), (b"X-WSI-Denoise-User", b"x")]}  # fmt: skip
    asyncio.run(Guard(app, token="")(scope, None, None))
    assert [name for name, _ in inner.scopes[0]["headers"]] == [b"host"]


# -- without token and people


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
    ("said", "good"),
    [({}, True), *(({"email_verified": value}, True) for value in (True, "true", "True")),
     *(({"email_verified": value}, False) for value in (False, "false", "False", "", "no", 0, 1, None, [True]))],
)  # fmt: skip
def test_an_address_that_the_provider_did_not_check_is_nobodys(said, good):
    assert vouched({"email": "doctor@lab.example", **said}) == ("doctor@lab.example" if good else None)


def test_refusals_are_json_for_programs():
    status, headers, body = ask("/api/jobs", token=TOKEN)
    assert (status, json.loads(body)["error_code"]) == (401, "unauthorized")
    assert headers["cache-control"] == "no-store"
