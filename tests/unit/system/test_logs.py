"""Names of slides in the log, and without them."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from wsi_denoise.errors import OutputUnwritable, SlideChanged
from wsi_denoise.intake.sniff import shown
from wsi_denoise.settings import load
from wsi_denoise.system import logs

NAME = "S26-4711 Doe, Jane.svs"


@pytest.fixture
def written(tmp_path):
    """What logs under some settings and returns the file's text."""
    root = logging.getLogger()
    before, level, captured = list(root.handlers), root.level, logging.captureWarnings

    def write(**values: object) -> str:
        settings = load(folder=tmp_path, environ={}, overrides={"log." + k: v for k, v in values.items()}).settings
        file = logs.setup(settings, "daemon", console=False)
        log = logging.getLogger("wsi_denoise.test")
        log.info("job %d: seen %s", 7, shown(NAME))
        log.warning("job %d: %s", 8, SlideChanged(shown(Path("/mnt") / NAME)))
        log.warning("%s", OutputUnwritable(f"{tmp_path / 'denoised' / NAME} (No space left on device)"))
        log.info("what a library says about %s", str(tmp_path / "inbox" / "sub folder" / NAME))
        try:
            (tmp_path / "inbox" / NAME).read_bytes()
        except OSError:
            log.exception("job %d", 9)
        return file.read_text()

    yield write
    for handler in [handler for handler in root.handlers if handler not in before]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    captured(capture=False)


def test_by_default_the_log_says_which_file_it_was(written):
    text = written()
    assert text.count(NAME) == 5
    assert "Traceback" in text


def test_without_names_job_numbers_and_reasons_remain(written):
    text = written(names=False)
    assert "4711" not in text
    assert "Doe" not in text
    assert "job 7: seen (name withheld)" in text
    assert "slide_changed" in text
    assert "output_unwritable" in text
    assert "FileNotFoundError" in text
    assert "job 9" in text


HOLDER = """
import logging, sys
from pathlib import Path
from wsi_denoise import settings; from wsi_denoise.system import logs
loaded = settings.load(folder=Path(sys.argv[1]), environ={})
print(logs.setup(loaded.settings, "daemon", console=False).name, flush=True)
input()
"""


def test_two_daemons_of_one_folder_have_a_log_each_and_a_dead_one_gives_its_name_back(tmp_path, written):
    file = tmp_path / ".wsi-denoise" / "logs" / "daemon.log"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "daemon.log\n"
        assert "job 7" in written()
        assert file.read_text() == ""
        assert "job 7" in file.with_name("daemon-2.log").read_text()
        other.kill()
    written()
    assert "job 7" in file.read_text()
