"""Several daemons at one output folder: none touches a file that another one writes, and none takes another's name."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from wsi_denoise.daemon import recovery
from wsi_denoise.errors import OutputExists, OutputUnwritable
from wsi_denoise.processing.output_names import LONGEST, output_path
from wsi_denoise.processing.publish import Draft, Output, replaceable
from wsi_denoise.processing.spool import folder_name
from wsi_denoise.settings import load
from wsi_denoise.slide import provenance
from wsi_denoise.slide.encoding import Encoding, cut
from wsi_denoise.slide.pyramid import Header, Level, write_pyramid

ONE, OTHER = "1" * 64, "2" * 64


class Daemon:
    """A daemon with a slide ``a.svs`` of this content; `events` happen while its output is written."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.facts = {"fingerprint": fingerprint, "preset": "paper", "model_sha256": "0", "settings": {}}
        self.facts["region"] = None
        settings = load(folder=folder, environ={}).settings.output
        self.output = Output(settings, lambda facts: output_path(settings.folder, Path("a.svs"), facts, taken=taken))
        self.parts: list[Path] = []

        def taken(file: Path) -> bool:
            return file.exists() and not replaceable(file, self.facts)

    def run(self, events=lambda _draft: None) -> Path:
        with self.output.draft(self.facts, folder_name(self.facts["fingerprint"], {})) as draft:
            self.parts.append(draft.part)
            write(draft)
            events(draft)
            return draft.publish()

    def outputs(self) -> list[str]:
        return sorted(file.name for file in self.output.settings.folder.rglob("*"))


def write(draft: Draft) -> None:
    """Write an output of one tile."""
    encoding = Encoding("deflate")
    tile = encoding.encode(cut(np.full((90, 100, 3), 200, np.uint8), 0, 0))
    write_pyramid(draft.part, [Level((100, 90), [tile])], encoding, Header(provenance.describe(draft.facts)))


def content_of(file: Path) -> str:
    return provenance.of_file(file)["fingerprint"]


@pytest.fixture
def daemons(tmp_path):
    """Two of them at one slide: the lease of the first was lost while its machine slept."""
    return Daemon(tmp_path, ONE), Daemon(tmp_path, ONE)


# -- partial files


def test_a_daemon_that_woke_late_leaves_the_partial_file_of_its_successor(daemons):
    slept, successor = daemons

    def wakes(draft):
        before = draft.part.read_bytes()
        slept.run()
        assert draft.part.read_bytes() == before

    assert successor.run(wakes).is_file()
    assert successor.outputs() == ["a.svs.denoised.tiff"]


def test_no_two_attempts_have_one_partial_name(daemons):
    one, other = daemons
    for daemon in (one, other, one):
        daemon.run()
    names = [part.name for part in (*one.parts, *other.parts)]
    assert len(set(names)) == 3
    for name in names:
        assert name.startswith(".")
        assert name.endswith(".part")
        assert len(name) < LONGEST
        assert recovery._PARTIAL.fullmatch(name)["slide"] == ONE[:20]


def test_files_of_earlier_attempts_of_this_daemon_go_and_those_of_others_stay(daemons):
    def lost(draft):
        """The share goes away, and the partial file with it: it cannot be removed."""
        draft.part.rename(draft.part.with_suffix(".away"))
        raise OutputUnwritable

    for daemon in daemons:
        with pytest.raises(OutputUnwritable):
            daemon.run(lost)
    for daemon in daemons:
        (part,) = daemon.parts
        part.with_suffix(".away").rename(part)
    daemons[0].run()
    assert [daemon.parts[0].exists() for daemon in daemons] == [False, True]


# -- names


def test_a_slide_whose_name_was_taken_by_another_one_gets_a_second_name(tmp_path):
    first, second = Daemon(tmp_path, ONE), Daemon(tmp_path, OTHER)
    published = []
    result = second.run(lambda _draft: published.append(first.run()))
    (other,) = published
    assert other.name == "a.svs.denoised.tiff"
    assert content_of(other) == ONE
    assert re.fullmatch(r"a\.svs\.[0-9a-f]{8}\.denoised\.tiff", result.name)
    assert content_of(result) == OTHER
    assert second.outputs() == sorted([other.name, result.name])
    # And this work gets the same name again.
    assert second.run() == result


def test_the_same_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_args):
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(os, "link", refuse)
    test_a_slide_whose_name_was_taken_by_another_one_gets_a_second_name(tmp_path)


def test_an_output_without_another_name_is_refused(tmp_path):
    daemon = Daemon(tmp_path, ONE)
    target = tmp_path / "denoised" / "mine.tiff"
    target.parent.mkdir()
    target.write_text("a thesis")
    daemon.output = Output(daemon.output.settings, lambda _facts: target)
    with pytest.raises(OutputExists):
        daemon.run()
    assert target.read_text() == "a thesis"
    assert daemon.outputs() == ["mine.tiff"]
