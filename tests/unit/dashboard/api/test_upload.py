"""Uploads: what becomes of a file that comes through the browser, whole, cut off, too large or badly named."""

import http.client
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from contextlib import closing, contextmanager, suppress
from fnmatch import fnmatch

import psutil
import pytest
import uvicorn

from dashboard import routes
from dashboard.api import upload, upload_space
from wsi_denoise.daemon.disk_space import Need, Promises, shared_folder
from wsi_denoise.settings import IntakeSettings, load

IGNORE = load(environ={}).settings.intake.ignore


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "place"


def settings_in(folder, **values):
    folder.mkdir(exist_ok=True)
    overrides = {name.replace("__", "."): value for name, value in values.items()}
    return load(folder=folder, environ={}, overrides=overrides).settings


@pytest.fixture
def client_of(asking):
    @contextmanager
    def make(folder, **values):
        yield asking(routes.application(settings_in(folder, **values)))

    return make


def left_in(folder):
    return sorted(file.name for file in (folder / "inbox").iterdir()) if (folder / "inbox").exists() else []


def test_a_file_arrives_whole_under_its_name(folder, client_of):
    content = bytes(range(256)) * 40_000
    with client_of(folder) as client:
        answer = client.put("/upload/schn%C3%B6%20%231.svs", content=content)
    assert (answer.status_code, answer.json()) == (201, {"name": "schnö #1.svs", "bytes": len(content)})
    assert (folder / "inbox" / "schnö #1.svs").read_bytes() == content
    assert left_in(folder) == ["schnö #1.svs"]


def test_a_file_of_that_name_is_never_replaced(folder, client_of):
    with client_of(folder) as client:
        assert client.put("/upload/a.svs", content=b"first").status_code == 201
        again = client.put("/upload/a.svs", content=b"second")
    assert (again.status_code, again.json()["error_code"]) == (409, "upload_refused")
    assert (folder / "inbox" / "a.svs").read_bytes() == b"first"
    assert left_in(folder) == ["a.svs"]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("a.txt", 415), ("a.lif", 415), ("a.mrxs", 415), ("a", 415), (".hidden.svs", 400), ("a.svs.part", 400),
        ("~$a.svs", 400), ("a%0A.svs", 400), ("a%E2%80%AE.svs", 400), ("%20a.svs", 400), ("C%3Aa.svs", 400),
        ("a%5Cb.svs", 404), ("a%2Fb.svs", 404), ("..%2Fa.svs", 404), ("%2E%2E", 404), ("x" * 300 + ".svs", 400),
    ],
)  # fmt: skip
def test_names_that_no_slide_has_are_refused(folder, client_of, name, status):
    with client_of(folder) as client:
        answer = client.put(f"/upload/{name}", content=b"x")
    assert answer.status_code == status
    assert answer.json()["error"]
    assert left_in(folder) == []


def test_too_much_is_refused_before_and_while_it_comes(folder, client_of):
    async def pieces():
        for _ in range(50):
            yield bytes(100_000)

    with client_of(folder, dashboard__upload_megabytes=1) as client:
        assert client.put("/upload/a.svs", content=bytes(1_000_001)).status_code == 413
        assert client.put("/upload/b.svs", content=pieces()).status_code == 413
        assert client.put("/upload/c.svs", content=bytes(1_000_000)).status_code == 201
        assert client.put("/upload/d.svs", content=b"").status_code == 400
    assert left_in(folder) == ["c.svs"]


def test_a_full_disk_is_said_before_anything_is_written(folder, client_of, monkeypatch):
    monkeypatch.setattr(upload_space, "SPARE_BYTES", 1 << 62)
    with client_of(folder) as client:
        assert client.put("/upload/a.svs", content=b"x").status_code == 507
    assert left_in(folder) == []


def test_another_site_cannot_fill_the_inbox(folder, client_of):
    with client_of(folder) as client:
        for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
            assert client.put("/upload/a.svs", content=b"x", headers=headers).status_code == 403
        own = {"origin": "http://127.0.0.1:8501", "sec-fetch-site": "same-origin"}
        assert client.put("/upload/a.svs", content=b"x", headers=own).status_code == 201
        assert client.post("/upload/b.svs", content=b"x").status_code in {404, 405}
    assert left_in(folder) == ["a.svs"]


@pytest.mark.parametrize("ignore", [IGNORE, ["*.part"], [".*"], ["*.tmp"]])
def test_the_partial_name_is_one_that_intake_passes_over(ignore):
    name = upload.partial_name("a.svs", ignore)
    assert any(fnmatch(name, pattern) for pattern in ignore)
    assert upload.partial_name("a.svs", ignore) != name


def test_without_such_a_pattern_nothing_is_taken(folder, client_of):
    with client_of(folder, intake__ignore=["Thumbs.db"], intake__ignore_system=False) as client:
        answer = client.put("/upload/a.svs", content=b"x")
    assert answer.status_code == 503
    assert "intake.ignore" in answer.json()["error"]
    assert IntakeSettings().ignore == IGNORE


@contextmanager
def served(folder):
    """A real server: only there does a connection break."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(routes.application(settings_in(folder)), log_config=None)
        server = uvicorn.Server(config)
        listener.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(60)


@pytest.fixture
def small_disk(folder, tmp_path, monkeypatch):
    """A disk with room for 100 MB of uploads, of which what is in the inbox is used; and no other program's slides."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    size = 100_000_000 + max(10**9, upload_space.SPARE_BYTES)

    kind = type(shutil.disk_usage(tmp_path))

    def usage(_folder):
        used = 0
        for file in (folder / "inbox").glob("*"):
            with suppress(FileNotFoundError):  # an upload that ends
                used += file.stat().st_size
        return kind(size, used, size - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)


def begin(port, name, announced, sent=b"x"):
    """Begin an upload, and return its connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("PUT", f"/upload/{name}")
    connection.putheader("Content-Length", str(announced))
    connection.endheaders()
    connection.send(sent)
    return connection


def status_of(connection):
    """Return the status, and the reason of a refusal."""
    with closing(connection), connection.getresponse() as answer:
        return answer.status, json.loads(answer.read())["error"] if answer.status >= 400 else ""


def test_uploads_at_one_time_share_the_free_space(folder, small_disk):
    with served(folder) as port:
        first = begin(port, "a.svs", 60_000_000)
        wait_for(lambda: left_in(folder))
        # There is room for either, and not for both.
        status, text = status_of(begin(port, "b.svs", 60_000_000))
        assert status == 507
        assert "free disk space" in text
        assert status_of(begin(port, "c.svs", 30_000_000, bytes(30_000_000)))[0] == 201
        # What has arrived counts once.
        assert status_of(begin(port, "d.svs", 9_000_000, bytes(9_000_000)))[0] == 201
        assert status_of(begin(port, "e.svs", 2_000_000))[0] == 507
        first.close()
        wait_for(lambda: left_in(folder) == ["c.svs", "d.svs"])
        # An upload that is cut off gives its space back.
        assert status_of(begin(port, "f.svs", 60_000_000, bytes(60_000_000)))[0] == 201


def test_an_upload_without_a_size_reserves_as_it_grows(folder, small_disk, client_of):
    async def parts(number):
        for _ in range(number):
            yield bytes(1_000_000)

    with served(folder) as port, client_of(folder) as client:
        assert client.put("/upload/a.svs", content=parts(3)).status_code == 201
        assert client.put("/upload/b.svs", content=parts(90)).status_code == 201
        assert client.put("/upload/c.svs", content=parts(90)).status_code == 507
        assert left_in(folder) == ["a.svs", "b.svs"]
        assert status_of(begin(port, "d.svs", 9_000_000))[0] == 507


def test_slides_and_uploads_reserve_beside_one_another(folder, small_disk):
    inbox = folder / "inbox"
    inbox.mkdir(parents=True)
    # As another process of this machine has it: a daemon.
    slides = Promises(shared_folder(), 0)
    slides.reserve([Need(inbox, 70_000_000)])
    [file] = shared_folder().glob("*.json")
    entry = json.loads(file.read_text())
    del entry["process"]
    slides.release()
    (shared_folder() / f"{socket.gethostname()}-{os.getppid()}.json").write_text(json.dumps(entry))
    with served(folder) as port:
        assert status_of(begin(port, "a.svs", 60_000_000))[0] == 507
        held = begin(port, "b.svs", 20_000_000)
        wait_for(lambda: left_in(folder))
        ours = shared_folder() / f"{socket.gethostname()}-{os.getpid()}.json"
        assert json.loads(ours.read_text())[str(inbox.stat().st_dev)] == 20_000_000
        held.close()
        wait_for(lambda: not ours.exists())


def test_where_reservations_cannot_be_written_the_space_is_checked_anyway(folder, small_disk):
    shared_folder().touch()  # a file where the folder should be
    with served(folder) as port:
        assert status_of(begin(port, "a.svs", 200_000_000))[0] == 507
        assert status_of(begin(port, "b.svs", 1))[0] == 201


def test_only_so_many_uploads_at_a_time(folder, small_disk):
    with served(folder) as port:
        held = [begin(port, f"{number}.svs", 1000) for number in range(upload_space.MOST_UPLOADS)]
        wait_for(lambda: len(left_in(folder)) == len(held))
        with closing(begin(port, "more.svs", 1)) as more, more.getresponse() as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "30")
        held[0].close()
        wait_for(lambda: len(left_in(folder)) == len(held) - 1)
        assert status_of(begin(port, "more.svs", 1))[0] == 201
        for connection in held:
            connection.close()


def test_an_upload_that_stands_still_is_ended(folder, monkeypatch):
    monkeypatch.setattr(upload, "IDLE_SECONDS", 0.2)
    with served(folder) as port:
        status, text = status_of(begin(port, "a.svs", 1000))
        assert status == 408
        assert "nothing arrived" in text
        assert left_in(folder) == []


def test_an_inbox_whose_share_is_away_is_not_made(tmp_path, client_of, folder):
    share = tmp_path / "share"
    with client_of(folder, intake__inbox=json.dumps([str(share / "scanner")])) as client:
        assert client.put("/upload/a.svs", content=b"x").status_code == 503
    assert not share.exists()


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_an_upload_that_is_cut_off_leaves_nothing(folder):
    with served(folder) as port:
        connection = begin(port, "a.svs", 50_000_000, bytes(9_000_000))
        wait_for(lambda: left_in(folder))
        (part,) = left_in(folder)
        assert part != "a.svs"
        assert any(fnmatch(part, pattern) for pattern in IGNORE)
        connection.close()
        wait_for(lambda: left_in(folder) == [])


def test_of_two_uploads_of_one_name_the_first_to_end_stays(folder):
    with served(folder) as port:
        slow = begin(port, "a.svs", 8, b"slow")
        wait_for(lambda: left_in(folder))
        assert status_of(begin(port, "a.svs", 5, b"quick"))[0] == 201
        slow.send(b"slow")
        assert status_of(slow)[0] == 409
    assert (folder / "inbox" / "a.svs").read_bytes() == b"quick"
    assert left_in(folder) == ["a.svs"]


def test_a_large_file_is_never_in_memory(folder):
    process = psutil.Process()
    with served(folder) as port:
        start = most = process.memory_info().rss
        connection = begin(port, "a.svs", 300_000_000, b"")
        for _ in range(300):
            connection.send(bytes(1_000_000))
            most = max(most, process.memory_info().rss)
        assert status_of(connection)[0] == 201
    assert (folder / "inbox" / "a.svs").stat().st_size == 300_000_000
    assert most - start < 100_000_000
