"""Signing in with the token, and what another site's page gets, in a real browser."""

import json
import urllib.error
import urllib.request
from functools import partial

import pytest

from support.listener import listen

TOKEN = "correct horse&c"
TOKEN_FLAGS = ("--set", f"dashboard.token={TOKEN}")


@pytest.mark.timeout(900)
def test_a_link_leads_through_the_form_to_its_target_and_out_again(store, serve, open_page, tmp_path):
    with serve(tmp_path, *TOKEN_FLAGS) as url, open_page() as page:
        for path in ("", "api/jobs", "_stcore/health", "static/index.html", "export/jobs.csv", "history"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(url + path)
        target = f"{url}history?state=failed"
        page.goto(target)
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Open").click()
        page.get_by_text("That was not the token.").wait_for()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Open").click()
        page.get_by_role("link", name="Sign out").wait_for()
        assert page.url == target
        page.get_by_role("link", name="Sign out").click()
        page.get_by_label("Token").wait_for()
        page.goto(target)
        page.get_by_label("Token").wait_for()
        page.goto(f"{target}&token=correct+horse%26c")
        page.get_by_role("link", name="Sign out").wait_for()
        assert page.url == target
        assert page.foreign == []
        page.goto(f"{url}api/jobs")
        assert json.loads(page.inner_text("body")) == {"jobs": [], "total": 0}


def note_refused(addresses, answer):
    """Keep the address of a request that failed, or of an answer that says forbidden."""
    if getattr(answer, "status", 403) == 403:
        addresses.add(answer.url)


@pytest.mark.timeout(900)
def test_another_sites_page_embeds_nothing_of_ours(processed, serve, open_page):
    case = processed()
    with serve(case.folder) as url:
        picture = f"{url}slides/{case.job.id}/thumbnail.jpeg"
        html = f'<img src="{picture}"><iframe src="{url}"></iframe><a href="{url}history">a link</a>'
        for host in ("127.0.0.1", "localhost"):
            with listen(html) as other, open_page() as page:
                page.goto(f"{picture}?side=64")  # it is there; another address, because browsers keep it
                assert page.evaluate("document.images[0].naturalWidth") > 0
                refused = set()
                page.on("response", partial(note_refused, refused))
                page.on("requestfailed", partial(note_refused, refused))
                page.goto(f"http://{host}:{other.port}/")
                assert page.evaluate("document.images[0].naturalWidth") == 0
                assert {picture, url} <= refused
                assert "wsi-denoise" not in page.frames[1].content()
                page.get_by_text("a link").click()
                page.get_by_text("Export what is filtered").wait_for()
