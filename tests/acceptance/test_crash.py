"""A worker that crashes natively on a block, again and again: the block is named, and the daemon continues."""

import os

import pytest

from support.slides import tiled_tissue, write_slide
from wsi_denoise.jobs.states import JobState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# Python runs this at the start of every process. Reading address 0 is what a bug in a decoder does: no exception, no
# clean-up, signal 11.
CRASH = """
import ctypes, zipfile
written = zipfile.ZipFile.writestr
def writestr(self, *arguments, **named):
    if "00000-00001" in str(getattr(self.fp, "name", "")):
        ctypes.string_at(0)
    return written(self, *arguments, **named)
zipfile.ZipFile.writestr = writestr
"""


def test_a_native_crash_costs_the_slide_and_not_the_daemon(workplace, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(CRASH)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    place = workplace({"tissue": {"mode": "all"}}, variables={"PYTHONPATH": path})
    write_slide(place.inbox / "bad.tiff", tiled_tissue(1800, 200))  # two blocks
    place.start()
    bad = place.wait_for("bad.tiff", JobState.QUARANTINED, seconds=1500)
    assert bad.error_code == "block_kills_worker"
    assert "block 00000-00001, at x 1536, y 0" in bad.error
    assert bad.attempts == 1
    note = place.folder / "quarantine" / "bad.tiff.txt"
    place.wait(note.exists, "the note, which is written after the database")
    assert "at x 1536, y 0" in note.read_text()
    spool = place.folder / ".wsi-denoise" / "spool"
    place.wait(lambda: not list(spool.iterdir()), "the spool is empty")

    write_slide(place.inbox / "good.tiff", tiled_tissue(300, 200, 1))  # one block
    place.done("good.tiff")
    assert len(place.store.daemons()) == 1
    place.stop()
