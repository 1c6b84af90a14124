"""Signing in with the token, and what another site's page gets, in a real browser."""

import http.server
import threading
from contextlib import contextmanager

import pytest

TOKEN = "correct horse"
TOKEN_FLAGS = ("--set", f"dashboard.token={TOKEN}")


@pytest.mark.timeout(900)
def test_a_link_leads_through_the_form_to_its_target_and_out_again(store, serve, open_page, tmp_path):
    with serve(tmp_path, *TOKEN_FLAGS) as url, open_page() as page:
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
        page.goto(f"{target}&token=correct+horse")
        page.get_by_role("link", name="Sign out").wait_for()
        assert page.url == target
        assert page.foreign == []


@contextmanager
def other_site(html):
    """Serve a page on another port: another origin, on the same site for a browser."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_another_sites_page_embeds_nothing_of_ours(processed, serve, open_page, host):
    case = processed()
    with serve(case.folder) as url:
        picture = f"{url}slides/{case.job.id}/thumbnail.jpeg"
        html = f'<img src="{picture}"><iframe src="{url}"></iframe><a href="{url}history">a link</a>'
        with other_site(html) as port, open_page() as page:
            page.goto(f"{picture}?side=64")  # it is there; another address, because browsers keep it
            assert page.evaluate("document.images[0].naturalWidth") > 0
            refused = set()
            page.on("response", lambda answer: refused.add(answer.url) if answer.status == 403 else None)
            page.on("requestfailed", lambda request: refused.add(request.url))
            page.goto(f"http://{host}:{port}/")
            assert page.evaluate("document.images[0].naturalWidth") == 0
            assert {picture, url} <= refused
            assert "wsi-denoise" not in page.frames[1].content()
            page.get_by_text("a link").click()
            page.get_by_text("Export what is filtered").wait_for()
