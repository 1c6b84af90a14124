"""Damaged slides, the short form: a fixed budget; the full one is `python tests/acceptance/programs/fuzz.py`."""

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS = 20.0


@pytest.fixture(scope="module")
def fuzz(shared):
    """tests/acceptance/programs/fuzz.py, which is a program and no package."""
    spec = importlib.util.spec_from_file_location("fuzz", HERE / "programs" / "fuzz.py")
    sys.modules["fuzz"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.SLIDES = shared / "data" / "slides"
    return module


def test_a_case_is_the_same_on_every_machine_and_mutations_damage_what_they_say(fuzz, tmp_path):
    mutations = fuzz.sibling("mutations")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    numbers = range(40, 60)
    cases = [list(mutations.every(fuzz.SLIDES, 7, numbers, tmp_path / name)) for name in ("one", "two")]
    for one, two in zip(*cases, strict=True):
        assert (one.specimen, one.mutation) == (two.specimen, two.mutation)
        if one.path.is_file():
            assert one.path.read_bytes() == two.path.read_bytes()
            same = one.path.read_bytes() == (fuzz.SLIDES / one.specimen).read_bytes()
            assert same <= (one.mutation in {"extension", "unchanged", "resolution", "loop"}), one
    assert len({case.specimen for case in cases[0]}) > 15


def test_every_damaged_slide_ends_as_done_or_with_a_reason(fuzz, tmp_path, capsys):
    results = tmp_path / "results.json"
    code = fuzz.main(["path", "--cases", "2000", "--seed", "11", "--seconds", str(SECONDS), "--results", str(results)])
    told = capsys.readouterr().out
    known = fuzz.load(results)
    outcomes = {case["outcome"] for case in known["cases"].values()}
    assert code == 0, told
    assert "not explained: 0" in told
    assert "done" in outcomes or len(known["cases"]) < 5
    assert len(known["cases"]) >= 3


def test_what_is_not_explained_is_found(fuzz, tmp_path, monkeypatch, capsys):
    """The program itself can fail: a worker that dies, and a result that is a traceback."""

    def broken(todo, seed, folder, record):
        for number, outcome in zip(todo, ("died", "traceback", "done"), strict=False):
            record(number, {"specimen": "a", "mutation": "b", "outcome": outcome, "detail": "", "seconds": 1})

    monkeypatch.setattr(fuzz, "by_path", broken)
    results = tmp_path / "results.json"
    assert fuzz.main(["path", "--cases", "3", "--results", str(results)]) == 1
    assert "not explained: 2" in capsys.readouterr().out
    # Nothing is done twice: the run continues from its results.
    assert fuzz.main(["path", "--cases", "3", "--results", str(results)]) == 1
    assert len(fuzz.load(results)["cases"]) == 3
