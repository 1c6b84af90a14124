"""How slides arrive: slowly, cut off, twice, changed, in subfolders, under odd names, on a share that is read-only."""

import os
import shutil
import time
from pathlib import Path

import pytest

from support.package import add_preset
from support.slides import pixels_of, tiled_tissue, write_slide
from wsi_denoise.jobs.states import JobState

GRACE = 3.0
ODD_NAMES = ["with space.tiff", "zwei\nZeilen.tiff", "größe-切片.tiff", "-dash.tiff", "'quote\".tiff", "%41;&.tiff"]


@pytest.fixture(scope="module")
def place(open_workplace, small):
    """One daemon for the whole module: it continues after every one of these."""
    with open_workplace({"intake": {"grace_seconds": GRACE}}) as opened:
        write_slide(opened.inbox / "warm.tiff", small(60))
        opened.start()
        opened.done("warm.tiff")  # from now on a worker answers at once
        yield opened
        assert opened.running
        opened.stop()


@pytest.fixture(scope="module")
def small():
    """What gives small pictures, another one for each number."""
    return lambda number: tiled_tissue(420, 300, number)


def complete_bytes(folder: Path, pixels) -> bytes:
    return write_slide(folder / "whole.tiff", pixels).read_bytes()


def tree(folder: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(file.relative_to(folder)): (file.stat().st_mode, file.stat().st_size, file.stat().st_mtime_ns)
        for file in [folder, *folder.rglob("*")]
    }


def test_slow_copy_starts_only_once_complete(place, tmp_path):
    content = complete_bytes(tmp_path, tiled_tissue(900, 700, 1))
    step = -(-len(content) // 5)
    target = place.inbox / "slow.tiff"
    with target.open("wb") as file:
        file.truncate(len(content))
        place.wait_for("slow.tiff", JobState.SETTLING)
        for start in range(0, len(content), step):
            # Longer than the settle time. The file has its final size from the start and looks complete each time.
            time.sleep(1.5)
            for job in place.jobs_of("slow.tiff"):
                assert job.state is JobState.SETTLING
            file.seek(start)
            file.write(content[start : start + step])
            file.flush()
    job = place.done("slow.tiff")
    assert job.size_bytes == len(content)
    assert len(place.jobs_of("slow.tiff")) == 1
    assert job.width == 900


def test_truncated_slide_is_quarantined_and_the_daemon_goes_on(place, tmp_path, small):
    content = complete_bytes(tmp_path, small(2))
    file = place.inbox / "scanner" / "cut.tiff"
    file.parent.mkdir()
    file.write_bytes(content[: len(content) * 2 // 3])
    written = time.monotonic()
    write_slide(place.inbox / "next.tiff", small(3))

    place.done("next.tiff")  # the other one does not hold it up
    cut = place.wait_for("scanner/cut.tiff", JobState.QUARANTINED)
    assert time.monotonic() - written >= GRACE
    assert cut.error_code == "truncated"
    assert "copy it again" in cut.error
    note, link = place.folder / "quarantine/scanner/cut.tiff.txt", place.folder / "quarantine/scanner/cut.tiff"
    place.wait(lambda: note.exists() and link.is_symlink(), "the note, which is written after the database")
    assert "truncated" in note.read_text()
    assert str(cut.id) in note.read_text()
    assert link.is_symlink()
    assert link.resolve() == file.resolve()
    assert file.stat().st_size == len(content) * 2 // 3

    # The right file under the same name is taken up automatically, and the note goes.
    file.write_bytes(content)
    job = place.wait(lambda: (job := place.job("scanner/cut.tiff")).id != cut.id and job, "a new job")
    assert place.done("scanner/cut.tiff").id == job.id
    place.wait(lambda: not note.exists() and not link.is_symlink(), "the note is gone")


def test_same_content_is_a_duplicate(place, small, copy_in):
    write_slide(place.inbox / "first.tiff", small(4))
    first = place.done("first.tiff")
    copy_in(place.inbox / "first.tiff", place.inbox / "again" / "second.tiff")
    second = place.wait_for("again/second.tiff", JobState.DUPLICATE)
    assert second.duplicate_of == first.id
    assert not (place.output / "again").exists()


def test_new_content_under_a_known_name_is_a_new_job(place, small):
    write_slide(place.inbox / "known.tiff", small(5))
    old = place.done("known.tiff")
    kept = Path(old.output).read_bytes()
    write_slide(place.inbox / "known.tiff", small(6))
    new = place.wait(lambda: (job := place.job("known.tiff")).id != old.id and job, "a new job")
    new = place.done("known.tiff")
    assert new.fingerprint != old.fingerprint
    assert new.output != old.output
    assert Path(new.output).parent == place.output
    assert Path(new.output).name.startswith("known.tiff.")
    assert Path(old.output).read_bytes() == kept
    assert (pixels_of(new.output) != pixels_of(old.output)).any()


def test_touched_slide_is_not_processed_again(place, small):
    file = write_slide(place.inbox / "touched.tiff", small(7))
    first = place.done("touched.tiff")
    written = Path(first.output).stat().st_mtime_ns
    os.utime(file)
    second = place.wait(lambda: (job := place.job("touched.tiff")).id != first.id and job, "its new job")
    second = place.wait_for("touched.tiff", JobState.DUPLICATE)
    assert second.duplicate_of == first.id
    assert Path(first.output).stat().st_mtime_ns == written
    assert len(place.jobs_of("touched.tiff")) == 2


def test_subfolders_are_kept(place, small):
    write_slide(place.inbox / "2026" / "May" / "slide.svs.tiff", small(8))
    job = place.done("2026/May/slide.svs.tiff")
    assert Path(job.output) == place.output / "2026/May/slide.svs.tiff.denoised.tiff"


def test_suffixes_do_not_collide(place, small):
    for number, name in enumerate(("same.tif", "same.tiff")):
        write_slide(place.inbox / name, small(9 + number))
    assert {Path(place.done(name).output).name for name in ("same.tif", "same.tiff")} == {
        "same.tif.denoised.tiff",
        "same.tiff.denoised.tiff",
    }


def test_odd_names(place, small):
    for number, name in enumerate(ODD_NAMES):
        write_slide(place.inbox / name, small(20 + number))
    for name in ODD_NAMES:
        job = place.done(name)
        assert Path(job.output) == place.output / f"{name}.denoised.tiff"
        assert Path(job.output).is_file()
    told = {job["relative"] for job in place.json("jobs", "--limit", "0")["jobs"]}
    assert told >= set(ODD_NAMES)
    # A name cannot forge a line in the log.
    assert "\nZeilen" not in (place.folder / ".wsi-denoise" / "logs" / "daemon.log").read_text()


def test_outputs_in_the_inbox_are_not_picked_up(place, small, copy_in):
    write_slide(place.inbox / "source.tiff", small(30))
    output = Path(place.done("source.tiff").output)
    copy_in(output, place.inbox / "copied-back.tiff")
    write_slide(place.inbox / "after.tiff", small(31))
    place.done("after.tiff")
    assert place.job("copied-back.tiff") is None


def test_removed_slide_is_forgotten_and_what_is_no_slide_is_left_alone(place, small):
    (place.inbox / "notes.txt").write_text("no slide")
    (place.inbox / "half.tiff.part").write_bytes(b"II*\0")
    gone = place.inbox / "gone.tiff"
    gone.write_bytes(b"II*\0 and nothing more")
    place.wait_for("gone.tiff", JobState.SETTLING)
    gone.unlink()
    place.wait_for("gone.tiff", JobState.CANCELLED)
    assert place.job("notes.txt") is None
    assert place.job("half.tiff.part") is None


def test_read_only_inbox_and_an_output_folder_that_cannot_be_written_at_first(workplace, small):
    place = workplace({"jobs": {"attempts": 2, "retry_seconds": 0.5}})
    place.output.write_text("a file where the folder should be")
    write_slide(place.inbox / "a" / "fine.tiff", small(40))
    (place.inbox / "broken.svs").write_bytes(b"no slide at all")
    for folder in (place.inbox / "a", place.inbox):
        for entry in folder.iterdir():
            if entry.is_file():
                entry.chmod(0o444)
        folder.chmod(0o555)
    before = tree(place.inbox)
    place.start(before=unprivileged(place.inbox))
    try:
        place.wait(
            lambda: (job := place.job("a/fine.tiff")) and job.next_try and job.error_code == "output_unwritable",
            "the job waits for the output folder",
        )
        assert place.job("a/fine.tiff").state is JobState.QUEUED
        place.output.unlink()
        place.done("a/fine.tiff")
        place.wait_for("broken.svs", JobState.QUARANTINED)
        place.stop()
        assert tree(place.inbox) == before
        assert (place.folder / "quarantine" / "broken.svs").is_symlink()
    finally:
        for folder in (place.inbox, place.inbox / "a"):
            folder.chmod(0o755)


def unprivileged(inbox: Path) -> tuple[str, ...]:
    """Return what is put before a command so that permissions count for the superuser too."""
    if os.geteuid():
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("permissions mean nothing to the superuser, and setpriv is not installed")
    return (setpriv, "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")


def test_folder_with_its_own_preset(workplace, tmp_path, small):
    place = workplace(folders={"scanner-a": "scanner"}, variables=add_preset(tmp_path, "scanner"))
    write_slide(place.inbox / "scanner-a" / "run-1" / "one.tiff", small(50))
    write_slide(place.inbox / "scanner-b" / "one.tiff", small(50))
    place.start()
    own, usual = place.done("scanner-a/run-1/one.tiff"), place.done("scanner-b/one.tiff")
    assert (own.preset, usual.preset) == ("scanner", "auto")
    assert Path(own.output) == place.output / "scanner-a/run-1/one.tiff.scanner.denoised.tiff"
    assert Path(usual.output) == place.output / "scanner-b/one.tiff.denoised.tiff"
    place.stop()
