"""The prose check finds what the style guide rules out, in prose alone."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / ".ci" / "prose.py"


@pytest.fixture(scope="module")
def prose():
    specification = importlib.util.spec_from_file_location("prose", FILE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def phrases(prose, pieces, path="docs/a.md"):
    rules = prose.rules_of(path)
    return [found[0] for _, piece in pieces for pattern, _ in rules for found in pattern.finditer(piece)]


def test_code_links_and_generated_tables_are_not_prose(prose):
    text = (
        "the clock was told `told` [here](told.md)\n```\ntold\n```\n<!-- made: a -->\ntold\n<!-- end -->\nby itself\n"
    )
    assert phrases(prose, prose.markdown_prose(text)) == ["told", "by itself"]


def test_docstrings_comments_and_messages_are_prose_and_names_are_not(prose):
    text = (
        '"""Look at a file."""\ntold = 1  # it goes on\nraise ValueError(f"nobody opened {told} of these")\n'
        'key = "told"\n'
    )
    assert phrases(prose, prose.python_prose(text)) == ["goes on", "Look at", "nobody"]


@pytest.mark.parametrize(
    "text", ["a user who signed in", "as long as it runs", "there is no file", "is no longer there"]
)
def test_plain_english_is_left_alone(prose, text):
    assert phrases(prose, [(1, text)]) == []


def test_the_dashboard_is_the_page_only_elsewhere(prose):
    assert phrases(prose, [(1, "The page shows it")], "wsi_denoise/cli/app.py") == ["The page"]
    assert phrases(prose, [(1, "The page shows it")], "dashboard/app.py") == []


def test_a_count_falls_and_never_rises(prose, tmp_path, monkeypatch):
    (tmp_path / ".ci").mkdir()
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    monkeypatch.setattr(prose, "NOT_YET_CLEAN", {"a": 3, "b": 3, "c": 3})
    prose.update(prose.Counter({"a": 2, "b": 5}))
    assert (tmp_path / ".ci" / "prose.json").read_text("utf-8") == '{\n  "a": 2,\n  "b": 3\n}\n'
