"""Requests that reach the page, and those that the guard refuses."""

import asyncio
import json
import logging
import time
from urllib.parse import quote

import pytest

from dashboard.access.throttle import MOST_WAITING, Throttle
from dashboard.guard import USER_HEADER, Guard, local
from support.asgi import CROSS, LINK, QUICK, TOKEN, Page, ask, cookie_of, exchange, sign_in


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
    # Also after signing in, whatever the token is.
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


def test_a_link_on_another_site_is_followed(page):
    assert ask("/compare", query="job=3", **LINK)[0] == 200
    assert page("/compare", cookie=cookie_of(sign_in(page)), **LINK)[0] == 200
    assert ask("/", **LINK, method="POST")[0] == 403
    own = {"sec_fetch_site": "same-origin", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"}
    assert ask("/slides/1/thumbnail.jpeg", **own)[0] == 200
    assert ask("/", sec_fetch_site="none", sec_fetch_mode="navigate", sec_fetch_dest="document")[0] == 200


def test_the_page_learns_who_it_is_from_the_guard_alone(page):
    def user():
        return [value for name, value in page.inner.scopes[-1]["headers"] if name == USER_HEADER.encode()]

    page("/", cookie=cookie_of(sign_in(page)), x_wsi_denoise_user="doctor@lab.example")
    assert user() == [b"token"]
    page("/healthz", x_wsi_denoise_user="doctor@lab.example")
    assert user() == []
    inner = []

    async def app(scope, receive, send):
        inner.append(scope)

    scope = {"type": "http", "path": "/", "method": "GET", "query_string": b"",
             "headers": [(b"host", b"localhost"), (b"X-WSI-Denoise-User", b"x")]}  # fmt: skip
    asyncio.run(Guard(app, token="")(scope, None, None))
    assert [name for name, _ in inner[0]["headers"]] == [b"host"]


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


def test_refusals_are_json_for_programs():
    status, headers, body = ask("/api/jobs", token=TOKEN)
    assert (status, json.loads(body)["error_code"]) == (401, "unauthorized")
    assert headers["cache-control"] == "no-store"
