"""Metrics and origin on the Compare page."""

import re
from dataclasses import replace

import pytest

from dashboard.pages import compare
from dashboard.pages.metric_words import GROUPS
from support.jobs import NOW, PLAIN
from wsi_denoise.jobs.states import JobState


def test_a_metric_that_was_not_measured_says_so():
    text = compare.metrics(replace(PLAIN, metrics={"sigma_before_flat": 9.0, "psnr": None, "structure_removed": 1.0}))
    assert "9.0 → –" in text
    assert text.count("not measured</td>") == sum(len(group) for _, group in GROUPS) - 2


def test_provenance_is_text():
    job = replace(
        PLAIN, state=JobState.DONE, output="/out/<i>.tiff", finished=NOW, started=NOW,
        provenance={"numerics": "<script>", "settings": {"<b>": ["<u>"]}, "plan": None, "device": ""},
    )  # fmt: skip
    text = compare.provenance(job)
    assert not re.search("<(i|script|b|u)>", text)
    assert "plan" not in text
    assert "device" not in text


@pytest.mark.parametrize("state", list(JobState))
def test_unknown_values_are_left_out(state):
    job = replace(PLAIN, state=state, fingerprint=None, finished=NOW)
    for text in (compare.provenance(job), compare.headline(job)):
        assert not any(part in text for part in ("None", "SHA-256", "<code></code>"))
    known = compare.provenance(replace(job, fingerprint="ab", output_sha256="cd", model_checksum="ef" * 32))
    assert known.count("SHA-256") == 2
    assert "weights <code><bdi>efefefefefef</bdi></code>" in known
