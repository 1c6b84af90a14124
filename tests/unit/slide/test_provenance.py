"""A derived slide's provenance is read back, and other files have none."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_denoise import NOTICE, __version__
from wsi_denoise.slide import provenance

FACTS = {
    "fingerprint": "ab" * 32,
    "preset": "paper",
    "model_sha256": "cd" * 32,
    "settings": {"output.quality": 90, "tissue.background": "keep"},
    "numerics": "cpu-openvino-bf16-w4",
    "region": None,
}

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), plain, max_size=6))
@settings(deadline=None)
def test_facts_come_back(facts):
    text = provenance.describe(facts)
    assert text.isascii()
    assert provenance.parse(text) == {"notice": NOTICE, **facts}


def test_people_read_what_it_is_and_that_it_is_for_research_only():
    first = provenance.describe(FACTS).partition("\n")[0]
    assert first.startswith(f"wsi-denoise {__version__}")
    assert "research use only" in first.lower()
    assert "derived" in first.lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Aperio Image Library v11\nMPP = 0.5",
        '{"shape": [1, 2, 3]}',
        "wsi-denoise 1.0 | no second line",
        "wsi-denoise 1.0\nnot JSON",
        "wsi-denoise 1.0\n[1, 2]",
        'my wsi-denoise 1.0\n{"preset": "paper"}',
    ],
)
def test_descriptions_of_others_are_not_ours(text):
    assert provenance.parse(text) is None


@given(st.text())
@settings(deadline=None)
def test_any_text_can_be_asked(text):
    provenance.parse(text)


@pytest.mark.parametrize("key", ["fingerprint", "preset", "model_sha256", "settings", "region"])
def test_work_is_the_same_when_content_model_and_settings_are(key):
    assert provenance.same_work(FACTS, dict(FACTS))
    assert not provenance.same_work(FACTS, {**FACTS, key: "other"})
    assert not provenance.same_work({**FACTS, key: "other"}, FACTS)


def test_numerics_alone_are_no_other_work():
    assert provenance.same_work(FACTS, {**FACTS, "numerics": "cuda-torch-fp16-w16", "plan": "x"})


def test_lists_and_tuples_of_a_region_are_read_as_json_gives_them():
    facts = {**FACTS, "region": [0, 0, 96, 96]}
    assert provenance.same_work(facts, provenance.parse(provenance.describe(facts)))


def test_of_a_file(tmp_path):
    ours = tmp_path / "ours.tiff"
    tifffile.imwrite(ours, np.zeros((4, 4, 3), np.uint8), description=provenance.describe(FACTS), metadata=None)
    assert provenance.same_work(provenance.of_file(ours), FACTS)
    theirs = tmp_path / "theirs.tiff"
    tifffile.imwrite(theirs, np.zeros((4, 4, 3), np.uint8))
    assert provenance.of_file(theirs) is None


@pytest.mark.parametrize("content", [b"", b"II*\0", b"II*\0\x08\0\0\0", b"text", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_of_what_is_no_tiff(content, tmp_path):
    file = tmp_path / "file.tiff"
    file.write_bytes(content)
    assert provenance.of_file(file) is None
    assert provenance.of_file(tmp_path / "missing.tiff") is None


def test_of_a_file_of_ours_that_was_cut_off(tmp_path):
    file = tmp_path / "ours.tiff"
    tifffile.imwrite(file, np.zeros((64, 64, 3), np.uint8), description=provenance.describe(FACTS), metadata=None)
    whole = file.read_bytes()
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        provenance.of_file(file)
