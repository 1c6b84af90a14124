"""Commands while a daemon works, and commands without a daemon."""

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from support.listener import listen
from support.slides import add_noise, pixels_of, tiled_tissue, write_slide
from support.started import environment, started
from wsi_denoise.jobs.states import JobState
from wsi_denoise.processing.spool import SUFFIX


@pytest.fixture(scope="module")
def listening():
    with listen() as listener:
        yield listener


@pytest.fixture(scope="module")
def place(open_workplace, listening):
    """One daemon for the whole module."""
    with open_workplace({"notify": {"url": listening.url}, "compute": {"workers": 1}}) as opened:
        opened.start()
        # Commands about the queue need its database, which the daemon makes.
        opened.wait(opened.is_registered, "the daemon is registered")
        yield opened
        assert opened.running
        opened.stop()


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A slide of nine blocks."""
    return write_slide(tmp_path_factory.mktemp("slide") / "large.tiff", add_noise(tiled_tissue(3300, 3300), 25, seed=4))


@pytest.fixture(scope="module")
def small():
    return lambda number: tiled_tissue(420, 300, number)


def posted(place, listener, event, job) -> dict:
    def found() -> dict | None:
        return next((post for post in listener.messages if (post["event"], post["job_id"]) == (event, job)), None)

    return place.wait(found, f"{event} is posted", 60)


def test_paused_queue_starts_nothing(place, small, listening):
    assert place.json("pause", "microtome service")["paused"] == "microtome service"
    write_slide(place.inbox / "paused.tiff", small(1))
    job = place.wait_for("paused.tiff", JobState.QUEUED)
    time.sleep(2)
    assert place.job("paused.tiff").state is JobState.QUEUED
    assert posted(place, listening, "paused", None)["notice"] == "research use only, derived image"
    assert place.json("resume")["paused"] is None
    place.done("paused.tiff")
    message = posted(place, listening, "done", job.id)
    assert (message["state"], message["verdict"] is None, message["error_code"]) == ("done", False, None)
    assert "paused.tiff" not in json.dumps(listening.messages)  # names carry accession numbers


def test_priority_decides_who_is_next(place, small):
    place.cli("pause")
    names = ["usual.tiff", "later.tiff", "urgent.tiff"]
    for number, name in enumerate(names):
        write_slide(place.inbox / name, small(10 + number))
    jobs = {name: place.wait_for(name, JobState.QUEUED) for name in names}
    place.cli("priority", str(jobs["urgent.tiff"].id), "5")
    assert place.json("priority", str(jobs["later.tiff"].id), "-5")["priority"] == -5
    place.cli("resume")
    ended = {name: place.done(name) for name in names}
    assert sorted(names, key=lambda name: ended[name].started) == ["urgent.tiff", "usual.tiff", "later.tiff"]
    event = next(event for event in place.store.events(jobs["urgent.tiff"].id) if event.kind == "priority")
    assert event.origin == "person:cli"


def test_running_job_is_cancelled_and_tried_again(place, large, copy_in):
    copy_in(large, place.inbox / "large.tiff")
    place.wait(lambda: (job := place.job("large.tiff")) and job.blocks_done, "a finished block")
    job = place.job("large.tiff")
    assert place.json("cancel", str(job.id))["cancel_requested"]
    job = place.wait_for("large.tiff", JobState.CANCELLED)
    assert job.error_code == "cancelled"
    assert 0 < job.blocks_done < 9
    assert not list(place.output.glob("*large*"))
    time.sleep(2)
    assert place.job("large.tiff").id == job.id  # a scan does not bring it back
    assert place.job("large.tiff").state is JobState.CANCELLED

    assert place.json("retry", str(job.id))["state"] == "queued"
    done = place.wait_for("large.tiff", JobState.DONE)
    assert done.id == job.id
    assert done.blocks_resumed >= job.blocks_done
    kinds = [event.kind for event in place.store.events(job.id)]
    assert [kind for kind in kinds if kind in {"cancel_requested", "cancelled", "retry", "done"}] == [
        "cancel_requested", "cancelled", "retry", "done",
    ]  # fmt: skip
    assert not place.cli("retry", str(job.id), code=2)  # done is done


def test_quarantine_is_posted(place, listening):
    (place.inbox / "broken.svs").write_bytes(b"this is no slide")
    job = place.wait_for("broken.svs", JobState.QUARANTINED)
    assert posted(place, listening, "quarantined", job.id)["error_code"] == job.error_code == "not_a_slide"


def test_verify_tells_a_flipped_byte_and_a_changed_original(place, small):
    slide = write_slide(place.inbox / "verified.tiff", small(20))
    output = Path(place.done("verified.tiff").output)
    found = place.json("verify", output)
    assert found["ok"]
    assert found["job"] == place.job("verified.tiff").id

    content = bytearray(output.read_bytes())
    content[len(content) // 2] ^= 1
    output.write_bytes(content)
    assert not place.json("verify", output, code=1)["ok"]
    content[len(content) // 2] ^= 1
    output.write_bytes(content)
    assert place.json("verify", output)["ok"]

    slide.write_bytes(slide.read_bytes() + b"\0")
    assert not place.json("verify", output, code=1)["ok"]


def test_job_is_told_with_its_events(place, small):
    write_slide(place.inbox / "told.tiff", small(30))
    job = place.done("told.tiff")
    told = place.json("job", str(job.id))
    assert told["state"] == "done"
    assert [event["kind"] for event in told["events"]][:3] == ["seen", "queued", "running"]
    assert [attempt["outcome"] for attempt in told["attempt_list"]] == ["done"]
    assert place.json("jobs", "--slide", "told", "--state", "done")["total"] == 1


def test_ctrl_c_finishes_running_blocks_and_a_second_signal_ends_at_once(workplace, large, copy_in):
    place = workplace({"compute": {"workers": 2}}, variables=environment())
    copy_in(large, place.inbox / "large.tiff")
    place.start()
    place.wait_for("large.tiff", JobState.RUNNING)
    spooled = place.folder / ".wsi-denoise" / "spool"
    place.wait(lambda: started(spooled), "a block is begun")
    begun = {file.stem for file in started(spooled)}
    # A terminal sends SIGINT to the workers too: they must neither die of it nor print a traceback.
    os.killpg(place.process.pid, signal.SIGINT)
    assert place.process.wait(60) == 0
    finished = {file.stem for file in spooled.rglob(f"*{SUFFIX}")}
    told = (place.folder / "terminal").read_text()
    assert begun <= finished or place.job("large.tiff").state is JobState.DONE
    assert "stopping" in told
    assert not [word for word in ("Traceback", "KeyboardInterrupt", "leaked", "worker_lost") if word in told], told

    place.start()
    place.wait_for("large.tiff", JobState.RUNNING)
    place.process.send_signal(signal.SIGTERM)
    stops = told.count("stopping") + 1
    place.wait(lambda: (place.folder / "terminal").read_text().count("stopping") == stops, "the signal is taken", 60)
    place.process.send_signal(signal.SIGTERM)
    assert place.process.wait(60) in {128 + signal.SIGTERM, 0}
    _, alive = psutil.wait_procs(place.processes(), timeout=60)
    assert not alive
    # Nothing is lost: the next daemon resumes the job, without waiting for a lease.
    (job,) = place.jobs()
    assert job.state in {JobState.RUNNING, JobState.QUEUED}
    place.start()
    place.wait(lambda: place.job("large.tiff").blocks_done > len(finished), "it continues")


def test_ctrl_c_while_workers_start_ends_a_run_without_a_traceback(workplace, large):
    place = workplace()
    place.start(str(large), command="run")
    workers = place.wait(place.workers, "a worker process starts")
    os.killpg(place.process.pid, signal.SIGINT)
    assert place.process.wait(60) == 130
    psutil.wait_procs(workers, timeout=30)
    told = (place.folder / "terminal").read_text()
    assert not [word for word in ("Traceback", "leaked", "Error") if word in told], told


def test_region_is_a_trial_with_a_picture_and_codes_say_how_a_run_ended(workplace, tmp_path):
    place = workplace()
    slide = write_slide(tmp_path / "slide.tiff", add_noise(tiled_tissue(1200, 900), 25, seed=5))
    (job,) = place.json("run", slide, "--region", "300,200,400,320")["jobs"]
    assert (job["state"], job["region"]) == ("done", [300, 200, 400, 320])
    assert pixels_of(job["output"]).shape == (320, 400, 3)
    assert ".trial-300-200-400x320" in job["output"]
    with Image.open(Path(job["output"]).with_suffix(".png")) as picture:
        assert picture.size == (400 + 4 + 400, 320)
    # A trial does not count as the whole slide.
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"this is no slide")
    whole, refused = sorted(place.json("run", slide, broken, code=1)["jobs"], key=lambda job: job["state"])
    assert (whole["state"], whole["region"]) == ("done", None)
    assert (refused["state"], refused["error_code"]) == ("quarantined", "not_a_slide")
    assert place.json("run", slide)["jobs"][0]["state"] == "duplicate"
    (job,) = place.json("run", slide, "--region", "9000,9000,10,10", code=2)["jobs"]
    assert (job["state"], job["error_code"]) == ("failed", "region_outside")
    assert "9000" in job["error"]
    assert "1200 x 900" in job["error"]
    total = place.json("jobs")["total"]
    for wrong in (
        ("run", tmp_path / "absent.svs"),
        ("run", broken, "--preset", "no-such-preset"),
        ("run", broken, "--set", "output.quality=1000"),
        ("run", broken, "--region", "1,2,3"),
        ("jobs", "--state", "no-such-state"),
        ("cancel", "999"),
        ("watch", tmp_path / "absent"),
        ("no-such-command",),
    ):
        place.cli(*wrong, code=2)
    assert place.json("jobs")["total"] == total
    assert place.json("verify", tmp_path / "absent.tiff", code=2)["error_code"] == "no_such_path"
