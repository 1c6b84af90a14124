"""Posts, against a real server on this machine."""

import json
import logging
import ssl
import threading
import urllib.error
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from wsi_denoise.daemon import notifications
from wsi_denoise.errors import TruncatedSlide
from wsi_denoise.jobs.store import JobStore


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((self.path, self.headers["Content-Type"], json.loads(body)))
        if self.server.hold is not None:
            self.server.hold.wait(10)
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST  # noqa: N815 - the library's name

    def log_message(self, *_args):
        pass


@pytest.fixture
def server():
    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        made.posts, made.status, made.hold = [], 200, None
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        if made.hold is not None:
            made.hold.set()
        made.shutdown()
        thread.join()


def url(server):
    return f"http://127.0.0.1:{server.server_port}/hook"


@pytest.fixture
def job(tmp_path):
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    store.upgrade()
    path = "/scans/S21-004711 Mueller.svs"
    seen = store.see(path, "x/S21-004711 Mueller.svs", size_bytes=1, mtime_ns=1, preset="paper", origin="daemon:1")
    found = store.quarantine(seen.id, TruncatedSlide("at byte 7"), "daemon:1")
    store.close()
    return found


def test_what_is_posted(server, job):
    assert notifications.post(url(server), 5, "quarantined", job)
    ((path, kind, body),) = server.posts
    assert (path, kind) == ("/hook", "application/json")
    time = datetime.fromisoformat(body.pop("time"))
    assert abs((datetime.now(UTC) - time).total_seconds()) < 60
    assert body == {
        "event": "quarantined",
        "job_id": job.id,
        "state": "quarantined",
        "verdict": None,
        "error_code": "truncated",
        "notice": "research use only, derived image",
    }


def test_no_name_of_a_slide_leaves_the_house(server, job):
    notifications.post(url(server), 5, "quarantined", job)
    assert "004711" not in json.dumps(server.posts)


def test_an_event_of_the_queue_has_no_job(server):
    assert notifications.post(url(server), 5, "paused", None)
    assert server.posts[0][2]["job_id"] is None


@pytest.mark.parametrize("status", [404, 500, 302])
def test_a_refusal_is_logged_and_not_raised(server, caplog, status):
    server.status = status
    assert not notifications.post(url(server), 5, "paused", None)
    assert len(server.posts) == 1  # a redirect is not followed
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_slow_taker_is_given_up(server, caplog):
    server.hold = threading.Event()
    assert not notifications.post(url(server), 0.2, "paused", None)
    assert "paused" in caplog.text


@pytest.mark.parametrize("wrong", ["http://127.0.0.1:1/", "http://[", "file:///etc/passwd", "http://no such host/"])
def test_a_wrong_address_is_logged_and_not_raised(caplog, wrong):
    assert not notifications.post(wrong, 2, "paused", None)
    assert len(caplog.records) == 1


def test_the_address_is_not_logged(caplog):
    notifications.post("http://127.0.0.1:1/hooks/SECRET", 2, "paused", None)
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        "http://user:s3cret@127.0.0.1/topic",
        "http://user:s3cret@[/topic",
        "http://127.0.0.1:s3cret/topic",
        "http://127.0.0.1:1/s3cret \n",
        f"http://{'s3cret' * 20}.example/",
    ],
)
def test_no_part_of_an_address_that_cannot_be_used_is_logged(caplog, wrong):
    assert not notifications.post(wrong, 2, "paused", None)
    assert len(caplog.records) == 1
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ssl.SSLCertVerificationError(1, "certificate is not valid for 's3cret'"), "SSLCertVerificationError"),
        (ConnectionRefusedError(111, "Connection refused", "s3cret"), "Connection refused"),
        (TimeoutError("timed out"), "timed out"),
        (OSError("Tunnel to s3cret failed"), "OSError"),
        ("no host given", "no host given"),
    ],
)
def test_why_a_post_failed_is_said_without_the_address(caplog, monkeypatch, error, said):
    def fail(*_args, **_named):
        raise urllib.error.URLError(error)

    monkeypatch.setattr(notifications._opener, "open", fail)
    assert not notifications.post("https://host/s3cret", 2, "paused", None)
    assert said in caplog.text
    assert "s3cret" not in caplog.text


def test_without_an_address_nothing_happens(caplog):
    assert not notifications.post("", 2, "paused", None)
    assert not caplog.records
