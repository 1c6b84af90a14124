"""Every error has a code of its own, says what happened and what to do, and survives the way out of a worker."""

import pickle
import re
from pathlib import Path

import pytest

from wsi_denoise import errors
from wsi_denoise.errors import InternalError, UnreadableTile, WsiDenoiseError, every_error
from wsi_denoise.jobs import states  # noqa: F401 - its errors, if it has any, belong to the tree too
from wsi_denoise.processing.values import BlockLost
from wsi_denoise.slide.geometry import BlockIndex

EVERY = [*every_error(), BlockLost]
PLAIN = [kind for kind in EVERY if kind is not BlockLost]


def test_the_tree_is_whole():
    declared = {
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, WsiDenoiseError)
    }
    assert declared <= set(EVERY)
    assert BlockLost not in list(every_error()), "it never reaches a user"
    assert len(EVERY) == len(set(EVERY))
    assert EVERY[0] is WsiDenoiseError


def test_codes_are_unique():
    codes = [kind.code for kind in EVERY]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z][a-z_]*", code) for code in codes)


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_message_is_sentences(kind):
    assert not kind.happened.endswith(".")
    assert kind.advice.endswith(".")
    error = kind(3, 4) if kind is BlockLost else kind("level 0, x 512")
    text = str(error)
    assert text.endswith(".")
    assert error.detail in text
    assert text[0].isupper()
    assert ".." not in text.replace("...", "")


@pytest.mark.parametrize("kind", PLAIN, ids=lambda kind: kind.__name__)
def test_without_a_detail_no_colon_is_left(kind):
    assert str(kind()) == f"{kind.happened}. {kind.advice}"


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_errors_come_back_from_a_worker_as_they_were(kind, protocol):
    error = kind(3, 4) if kind is BlockLost else kind("Tübingen, x 5")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is kind
    assert (again.detail, again.code, str(again)) == (error.detail, error.code, str(error))


def test_a_lost_block_still_knows_which_it_is():
    again = pickle.loads(pickle.dumps(BlockLost(12, 7)))
    assert again.block == BlockIndex(12, 7)
    assert "row 12, column 7" in str(again)


def test_whoever_is_at_fault_decides_whether_it_is_tried_again():
    assert not any(kind.retry for kind in EVERY if issubclass(kind, errors.SlideError))
    assert all(kind.retry for kind in EVERY if issubclass(kind, errors.SourceError | errors.ClusterError))
    assert not InternalError.retry


def test_an_example_reads_well():
    assert str(UnreadableTile("level 0, x 512, y 1024")) == (
        "A tile of the slide cannot be decoded: level 0, x 512, y 1024. "
        "Scan or copy the slide again; the original is untouched."
    )


def test_the_docs_have_every_code():
    page = Path(__file__).parents[2] / "docs" / "lab" / "errors.md"
    if not page.is_file():
        pytest.skip("docs/lab/errors.md is not in this checkout")
    text = page.read_text("utf-8")
    assert [kind.code for kind in PLAIN if f"`{kind.code}`" not in text] == []
