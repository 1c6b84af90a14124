"""Full disks: small file systems of their own for state, output and database, filled up in the middle of each stage."""

import contextlib
import os
import subprocess
import time
from pathlib import Path

import pytest

from support.slides import tiled_tissue, write_slide
from wsi_denoise.errors import StoreError
from wsi_denoise.jobs.states import JobState

SMALL = 48
PATIENCE = 300.0


def mount(folder: Path, *options: str) -> None:
    """Put a file system of memory on a folder, or skip the test where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no small file system can be mounted here: {made.stderr.strip()}")


def resize(folder: Path, megabytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={megabytes}m", folder], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte free, and return the file that takes the room."""
    ballast = folder / ".ballast"
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    assert os.statvfs(folder).f_bavail == 0
    return ballast


@pytest.fixture(scope="module")
def lab(open_workplace):
    """A daemon whose state, output and database each have a small disk."""
    settings = {
        "jobs": {"state": "work", "database": "", "lease_seconds": 6.0, "attempts": 1},
        "limits": {"free_gigabytes": 0.0},
        "output": {"quality": 75},
    }
    with contextlib.ExitStack() as stack, open_workplace(settings) as place:
        disks = [place.folder / name for name in ("work", "denoised", ".wsi-denoise")]
        for disk in disks:
            mount(disk, f"size={SMALL}m")
            stack.callback(subprocess.run, ["umount", "-l", disk], check=True)
        text = (place.folder / "wsi-denoise.toml").read_text()
        database = f"sqlite:///{place.folder}/.wsi-denoise/jobs.sqlite"
        (place.folder / "wsi-denoise.toml").write_text(text.replace('database = ""', f'database = "{database}"'))
        place.start()
        terminal = place.folder / "terminal"
        place.wait(lambda: "device:" in terminal.read_text(), "a worker answers")
        yield place
        assert place.running
        place.stop()


def verified(place, name: str):
    """The slide is done, in what counts as one attempt; nothing else lies in the output folder."""
    job = place.done(name)
    place.cli("verify", job.output)
    assert job.attempts <= 1
    assert len([other for other in place.jobs() if other.output == job.output]) == 1
    assert not [file for file in place.output.rglob("*") if file.name.endswith(".part")]
    # Room for the next test.
    Path(job.output).unlink()
    return job


def paused(place) -> str:
    with contextlib.suppress(StoreError):  # full itself, or being made
        return place.store.paused() or ""
    return ""


def paused_for(place, name: str) -> str:
    """Wait until the queue is paused because this slide met a full disk, and return the reason."""

    def held() -> str:
        job = place.job(name)
        return paused(place) if job and (job.error_code or "").endswith("_full") else ""

    return place.wait(held, "the queue is paused")


def first_block(place) -> None:
    """Wait for the first block in the spool. The database shows it later, when the job may be done."""
    spool = place.folder / "work" / "spool"
    end = time.monotonic() + PATIENCE
    while not list(spool.glob("*/*.block")):
        assert time.monotonic() < end
        time.sleep(0.002)


def test_too_little_room_is_known_before_and_waited_for(lab):
    resize(lab.folder / "work", 1)
    write_slide(lab.inbox / "before.tiff", tiled_tissue(2000, 1600, 1))
    reason = paused_for(lab, "before.tiff")
    assert "not enough free disk space" in reason
    assert "are needed in" in reason
    job = lab.job("before.tiff")
    assert (job.state, job.error_code, job.attempts) == (JobState.QUEUED, "disk_full", 0)
    assert not list((lab.folder / "work" / "spool").glob("*/*.block"))
    resize(lab.folder / "work", SMALL)
    verified(lab, "before.tiff")
    assert not paused(lab)


def test_full_in_the_middle_of_the_blocks(lab):
    write_slide(lab.inbox / "blocks.tiff", tiled_tissue(4608, 1000, 2))
    first_block(lab)
    ballast = fill(lab.folder / "work")
    paused_for(lab, "blocks.tiff")
    assert not list(lab.output.rglob("*.tiff"))
    ballast.unlink()
    assert verified(lab, "blocks.tiff").blocks_resumed >= 1


def test_full_while_the_output_is_put_together(lab):
    write_slide(lab.inbox / "assemble.tiff", tiled_tissue(3072, 1536, 3))
    first_block(lab)
    ballast = fill(lab.output)
    paused_for(lab, "assemble.tiff")
    assert not list(lab.output.rglob("*.tiff"))
    ballast.unlink()
    job = verified(lab, "assemble.tiff")
    assert job.blocks_resumed == job.blocks_total


def test_full_when_the_output_gets_its_name(lab):
    maps = lab.folder / "work" / "maps"
    before = set(maps.glob("*.npz"))
    write_slide(lab.inbox / "publish.tiff", tiled_tissue(1700, 1536, 5))
    end = time.monotonic() + PATIENCE
    # Written last before the output is verified and named, which is a fraction of a second: no time to lose.
    while not set(maps.glob("*.npz")) - before:
        assert time.monotonic() < end
        time.sleep(0.002)
    ballasts = [fill(lab.output), fill(lab.folder / "work")]
    job = verified(lab, "publish.tiff")
    assert (job.state, job.attempts) == (JobState.DONE, 1)
    for ballast in ballasts:
        ballast.unlink()
    assert not paused(lab)


def test_full_while_the_record_is_written(lab):
    write_slide(lab.inbox / "record.tiff", tiled_tissue(3072, 1536, 4))
    first_block(lab)
    ballast = fill(lab.folder / ".wsi-denoise")
    log = lab.folder / "work" / "logs" / "daemon.log"
    # The slide itself does not need the database until it is done.
    lab.wait(lambda: list(lab.output.glob("record.tiff*.tiff")), "the output is published")
    lab.wait(lambda: "no free disk space for the job database" in log.read_text(), "the log says so")
    assert lab.running
    ballast.unlink()
    job = verified(lab, "record.tiff")
    assert job.blocks_resumed in {0, job.blocks_total}
    assert "Traceback" not in log.read_text()
