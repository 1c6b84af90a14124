"""Shares of inbox and outputs that are unmounted and mounted again under a running daemon, in a mount namespace.

The inbox is on another file system and read-only. The output share is bound from a folder of the same file system, so
that only the list of mounts distinguishes it from its mount point.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from support.slides import tiled_tissue, write_slide
from wsi_denoise.jobs.states import JobState
from wsi_denoise.system.mounts import MARKER

SETTINGS = {
    "intake": {"inbox": ["nas/scans"]},
    "output": {"folder": "store/denoised", "quality": 75},
    "jobs": {"retry_seconds": 0.5},
}
MOUNTS = """
set -e
mount -t tmpfs tmpfs shares
mkdir shares/scans
{scans}
{store}
exec "$@"
"""
SCANS = "mount --bind shares/scans nas/scans && mount -o remount,bind,ro nas/scans"
STORE = "mount --bind share-out store"
SECONDS_AWAY = 6.0
"""Longer than all tries of a job that counts its failures, with the wait above."""


class Shares:
    """A daemon in a mount namespace of its own, and its shares."""

    def __init__(self, place) -> None:
        self.place = place
        for name in ("shares", "nas/scans", "store", "share-out"):
            (place.folder / name).mkdir(parents=True)
        script = MOUNTS.format(scans=SCANS, store=STORE)
        place.start(before=("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"))
        terminal = place.folder / "terminal"
        place.wait(lambda: "device:" in terminal.read_text(), "a worker answers")
        self.scans = Path(f"/proc/{place.process.pid}/root") / place.folder.relative_to("/") / "shares" / "scans"

    def _run(self, command: str) -> None:
        inside = ("nsenter", "--mount", "-t", str(self.place.process.pid), "sh", "-c", command)
        subprocess.run(inside, cwd=self.place.folder, check=True)

    def unmount(self, folder: str) -> None:
        self._run(f"umount --lazy {self.place.folder}/{folder}")

    def mount_scans(self) -> None:
        self._run(f"cd {self.place.folder} && {SCANS}")

    def mount_store(self) -> None:
        self._run(f"cd {self.place.folder} && {STORE}")

    def drop(self, slide: Path) -> None:
        """Copy a slide onto the inbox share, and give it its name when it is whole."""
        # Not written there by a library: its real path would be that of this process.
        part = self.scans / f".{slide.name}.part"
        shutil.copyfile(slide, part)
        part.rename(self.scans / slide.name)

    def untouched(self) -> bool:
        """Return whether nothing is in the mount points themselves, which this process sees without the shares."""
        return not [*(self.place.folder / "store").iterdir(), *(self.place.folder / "nas" / "scans").iterdir()]


@pytest.fixture(scope="module")
def shares(open_workplace, tmp_path_factory):
    tried = ("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", tmp_path_factory.mktemp("mount"))
    if not shutil.which("unshare") or subprocess.run(tried, check=False).returncode:
        pytest.skip("no mount namespace can be made here: not root, or not permitted")
    with open_workplace(SETTINGS) as place:
        yield Shares(place)
        assert place.running
        place.stop()


def waits(place, name: str, code: str):
    """Wait until the job of a slide waits with an error code, and return it."""
    return place.wait(
        lambda: (job := place.job(name)) and job.state is JobState.QUEUED and job.error_code == code and job,
        f"{name} waits ({code})",
    )


def done_once(shares, name: str):
    job = shares.place.done(name)
    assert [other.id for other in shares.place.jobs_of(name)] == [job.id], "one job, which never failed"
    output = shares.place.folder / "share-out" / "denoised" / f"{name}.denoised.tiff"
    assert output.is_file()
    assert shares.untouched()
    return output


def test_slides_are_done_and_the_output_folder_is_marked(shares, tmp_path):
    shares.drop(write_slide(tmp_path / "a.tiff", tiled_tissue(700, 600, 1)))
    output = done_once(shares, "a.tiff")
    assert (output.parent / MARKER).is_file()
    assert [file.name for file in shares.scans.iterdir()] == ["a.tiff"], "nothing is written into the inbox"


def test_without_the_output_share_jobs_wait_and_go_on_when_it_is_back(shares, tmp_path):
    shares.unmount("store")
    shares.drop(write_slide(tmp_path / "b.tiff", tiled_tissue(700, 600, 2)))
    job = waits(shares.place, "b.tiff", "output_unwritable")
    assert "may not be mounted" in job.error
    assert "wsi-denoise confirm" in job.error
    assert shares.untouched()
    shares.mount_store()
    done_once(shares, "b.tiff")


def test_the_output_share_goes_away_under_a_running_slide(shares, tmp_path):
    shares.drop(write_slide(tmp_path / "c.tiff", tiled_tissue(3400, 1600, 3)))
    shares.place.wait(lambda: (job := shares.place.job("c.tiff")) and job.blocks_done, "c.tiff is under way")
    shares.unmount("store")
    waits(shares.place, "c.tiff", "output_unwritable")
    assert shares.untouched()
    shares.mount_store()
    done_once(shares, "c.tiff")
    assert not [file for file in (shares.place.folder / "share-out").rglob("*") if file.suffix == ".part"]


def test_without_the_inbox_share_nothing_fails_and_all_goes_on_when_it_is_back(shares, tmp_path):
    place = shares.place
    place.cli("pause")
    for name, number in (("d.tiff", 4), ("e.tiff", 5)):
        shares.drop(write_slide(tmp_path / name, tiled_tissue(700, 600, number)))
        place.wait_for(name, JobState.QUEUED)
    shares.unmount("nas/scans")
    place.cli("resume")
    for name in ("d.tiff", "e.tiff"):
        waits(place, name, "source_unavailable")
    with pytest.raises(pytest.fail.Exception):
        # Nothing but waiting, for longer than a job that counts its failures lives.
        place.wait(lambda: {job.state for job in place.jobs()} - {JobState.DONE, JobState.QUEUED, JobState.RUNNING},
                   "a job fails", SECONDS_AWAY)  # fmt: skip
    assert all(place.job(name).attempts <= 1 for name in ("d.tiff", "e.tiff"))
    shares.mount_scans()
    for name in ("d.tiff", "e.tiff"):
        done_once(shares, name)
    for name in ("a.tiff", "b.tiff", "c.tiff"):
        done_once(shares, name)


def test_an_output_that_was_removed_is_made_again_and_one_on_an_unmounted_share_is_not(shares, tmp_path):
    place = shares.place
    pixels = tiled_tissue(700, 600, 1)
    output = Path(place.job("a.tiff").output)
    shares.unmount("store")
    shares.drop(write_slide(tmp_path / "again.tiff", pixels))
    assert place.wait_for("again.tiff", JobState.DUPLICATE).duplicate_of == place.job("a.tiff").id
    shares.mount_store()
    (place.folder / "share-out" / output.relative_to(place.folder / "store")).unlink()
    shares.drop(write_slide(tmp_path / "once-more.tiff", pixels))
    done_once(shares, "once-more.tiff")
