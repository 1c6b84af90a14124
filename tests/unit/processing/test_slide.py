"""Several daemons at one output folder: nobody touches what another one writes, and nobody's name is taken away."""

import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from wsi_denoise.daemon import recovery
from wsi_denoise.daemon.runner import Runner
from wsi_denoise.errors import OutputExists, OutputUnwritable
from wsi_denoise.processing import slide
from wsi_denoise.processing.events import NoEvents
from wsi_denoise.processing.output_names import LONGEST
from wsi_denoise.processing.spool import folder_name
from wsi_denoise.settings import load
from wsi_denoise.slide import provenance

ONE, OTHER = "1" * 64, "2" * 64


class Daemon:
    """What a daemon does with a slide, without its pixels; what others do meanwhile comes when the file is written."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.settings = load(folder=folder, environ={}).settings
        source = folder / f"{fingerprint[:4]}.svs"
        if not source.exists():
            source.write_bytes(b"slide")
        status = source.stat()
        self.job = SimpleNamespace(id=1, slide=str(source), relative="a.svs", region=None, preset="paper")
        self.job.fingerprint, self.job.size_bytes, self.job.mtime_ns = fingerprint, 5, status.st_mtime_ns
        self.facts = {"fingerprint": fingerprint, "preset": "paper", "model_sha256": "0", "settings": {}}
        self.facts["region"] = None
        self.runner = Runner(self.settings, None, 1, None, None, None)
        self.parts: list[Path] = []

    def run(self, meanwhile=lambda _part: None, **changes):
        work = SimpleNamespace(spool=Path("spool") / folder_name(self.job.fingerprint, {}))
        plan = SimpleNamespace(work=work, facts=self.facts, thumbnail=None, model_sha256="0")
        plan.tissue = SimpleNamespace(any=lambda: True)
        cluster = SimpleNamespace(home=None, near=None, slots=lambda: 1)
        request = replace(self.runner._request(self.job, self.settings), **changes)
        Daemon.at_work.append((plan, self, meanwhile))
        try:
            return slide.denoise_slide(request, cluster, NoEvents())
        finally:
            Daemon.at_work.pop()

    def outputs(self) -> list[str]:
        return sorted(file.name for file in self.settings.output.folder.rglob("*"))


@pytest.fixture(autouse=True)
def no_pixels(monkeypatch):
    def write(_blocks, part, *_others):
        _, daemon, meanwhile = Daemon.at_work[-1]
        daemon.parts.append(part)
        part.write_text(daemon.job.fingerprint)
        meanwhile(part)
        return {}, "sha256"

    def of_file(path):
        return {**Daemon.at_work[-1][1].facts, "fingerprint": path.read_text()}

    monkeypatch.setattr(Daemon, "at_work", [], raising=False)
    monkeypatch.setattr(slide.stall, "run", lambda *_args, **_named: Daemon.at_work[-1][0])
    monkeypatch.setattr(slide, "Blocks", lambda *_args, **_named: SimpleNamespace(seconds={}))
    monkeypatch.setattr(slide, "_write", write)
    monkeypatch.setattr(slide, "judge", lambda _metrics: None)
    monkeypatch.setattr(provenance, "of_file", of_file)


@pytest.fixture
def daemons(tmp_path):
    """Two of them at one slide: the lease of the first was lost while its machine slept."""
    return Daemon(tmp_path, ONE), Daemon(tmp_path, ONE)


# -- partial files


def test_a_daemon_that_woke_late_leaves_the_partial_file_of_its_successor_alone(daemons):
    slept, successor = daemons

    def wakes(part):
        slept.run()
        assert part.read_text() == ONE
        part.write_text("verified")

    result = successor.run(wakes)
    assert result.output.read_text() == "verified"
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


def test_what_an_earlier_attempt_of_this_daemon_left_goes_and_what_others_left_stays(daemons):
    def lost(part):
        """The share goes away, and the partial file with it: it cannot be removed."""
        part.rename(part.with_suffix(".away"))
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


def test_a_name_that_was_taken_meanwhile_by_another_slide_stays_its_own(tmp_path):
    first, second = Daemon(tmp_path, ONE), Daemon(tmp_path, OTHER)
    published = []
    result = second.run(lambda _part: published.append(first.run().output))
    (other,) = published
    assert other.name == "a.svs.denoised.tiff"
    assert other.read_text() == ONE
    assert re.fullmatch(r"a\.svs\.[0-9a-f]{8}\.denoised\.tiff", result.output.name)
    assert result.output.read_text() == OTHER
    assert second.outputs() == sorted([other.name, result.output.name])
    # And it is the name that this work gets again.
    assert second.run().output == result.output


def test_the_same_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_args):
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(os, "link", refuse)
    test_a_name_that_was_taken_meanwhile_by_another_slide_stays_its_own(tmp_path)


def test_where_no_other_name_is_to_be_had_it_is_said(tmp_path):
    daemon = Daemon(tmp_path, ONE)
    target = tmp_path / "denoised" / "mine.tiff"
    target.parent.mkdir()
    target.write_text("a thesis")
    with pytest.raises(OutputExists):
        daemon.run(output=lambda _facts: target)
    assert target.read_text() == "a thesis"
    assert daemon.outputs() == ["mine.tiff"]
