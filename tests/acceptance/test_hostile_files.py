"""What else can lie in an inbox: links, pipes, sockets, devices, names of any bytes and any length, files that go."""

import os
import socket
import stat
from pathlib import Path

import pytest

from support.slides import pixels_of, tiled_tissue, write_slide
from wsi_denoise.jobs.states import OVER, JobState

LONG = "l" * 250 + ".tiff"
ODD = [
    LONG,
    "a\nb\r.tiff",
    "\x1b[31mred.tiff",
    "\u202egpj.tiff",
    "bytes-\udcff\udcfe.tiff",
    "; rm -rf $HOME #.tiff",
    "%s%n{}.tiff",
]


@pytest.fixture(scope="module")
def place(open_workplace, tmp_path_factory):
    """One inbox with all of it at once, and a daemon that continues to the last good slide."""
    outside = write_slide(tmp_path_factory.mktemp("outside") / "outside.tiff", tiled_tissue(300, 300, 99))
    with open_workplace() as opened:
        for number, name in enumerate(ODD):
            # Written under a plain name first: a long one leaves no room for another suffix.
            write_slide(opened.inbox / "plain.tiff", tiled_tissue(200, 150, number)).rename(opened.inbox / name)
        deep = opened.inbox / ("d" * 200) / ("e" * 200)
        write_slide(deep / "deep.tiff", tiled_tissue(200, 150, 50))
        (opened.inbox / "out.tiff").symlink_to(outside)
        (opened.inbox / "system.tiff").symlink_to("/etc/passwd")
        (opened.inbox / "loop.tiff").symlink_to("loop.tiff")
        (opened.inbox / "folder-link").symlink_to(outside.parent)
        os.mkfifo(opened.inbox / "pipe.tiff")
        with socket.socket(socket.AF_UNIX) as listener:
            here = Path.cwd()
            os.chdir(opened.inbox)  # a socket's path is short
            listener.bind("socket.tiff")
            os.chdir(here)
        if os.geteuid() == 0:
            os.mknod(opened.inbox / "device.tiff", 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero: it never ends
        (opened.inbox / "folder.tiff").mkdir()
        write_slide(opened.inbox / "good.tiff", tiled_tissue(200, 150, 51))
        opened.start()
        opened.done("good.tiff")
        opened.wait(lambda: all(job.state in OVER for job in opened.jobs()), "everything is over")
        yield opened
        assert opened.running
        opened.stop()


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_any_name_is_a_name(place, name):
    job = place.done(name)
    output = Path(job.output)
    assert output.parent == place.output
    assert len(os.fsencode(output.name)) <= 255
    assert pixels_of(output).shape == (150, 200, 3)
    assert Path(job.maps).is_file()
    place.cli("verify", output)


def test_no_name_can_forge_a_line_of_the_log_or_of_a_table(place):
    log = (place.folder / ".wsi-denoise/logs/daemon.log").read_text("utf-8", "strict")
    told = place.cli("jobs")
    for text in (log, told):
        assert not any(character in text for character in ("\x1b", "\u202e", "\r"))
        assert not [line for line in text.splitlines() if line.startswith("b")]


def test_a_deep_tree_is_kept(place):
    job = place.done(f"{'d' * 200}/{'e' * 200}/deep.tiff")
    assert Path(job.output).is_file()


@pytest.mark.parametrize(
    "name", ["out.tiff", "system.tiff", "loop.tiff", "pipe.tiff", "socket.tiff", "device.tiff", "folder-link"]
)
def test_what_is_no_file_of_the_inbox_is_never_opened_and_said(place, name):
    if not os.path.lexists(place.inbox / name):
        pytest.skip("only root makes devices")
    job = place.wait_for(name, JobState.QUARANTINED)
    assert job.error_code == "not_a_regular_file"
    assert not list(place.output.rglob(f"{name}*"))


def test_a_folder_with_a_slides_name_is_a_folder(place):
    assert place.job("folder.tiff") is None


def test_a_file_that_vanishes_or_changes_while_it_is_read(place):
    write_slide(place.inbox / "vanishes.tiff", tiled_tissue(3072, 1600, 60))
    place.wait(lambda: place.job("vanishes.tiff") and place.job("vanishes.tiff").state == "running", "it runs")
    (place.inbox / "vanishes.tiff").unlink()
    job = place.wait(lambda: (job := place.job("vanishes.tiff")).state != "running" and job, "it is noticed")
    assert job.state in {JobState.QUEUED, JobState.CANCELLED, JobState.FAILED}
    if job.state is JobState.QUEUED:
        assert job.error_code == "slide_vanished"
        place.cli("cancel", str(job.id), code=None)
    # Only now: of two in the inbox, either may be the first.
    write_slide(place.inbox / "changes.tiff", tiled_tissue(3072, 1600, 61))
    place.wait(lambda: place.job("changes.tiff") and place.job("changes.tiff").state == "running", "the other runs")
    write_slide(place.inbox / "changes.tiff", tiled_tissue(500, 400, 62))
    done = place.wait(
        lambda: (job := place.job("changes.tiff")).state is JobState.DONE and job, "the new content is done"
    )
    assert (done.width, done.height) == (500, 400)
    assert not [
        file for file in place.output.rglob("*") if file.name.startswith("vanishes") or file.name.endswith(".part")
    ]
