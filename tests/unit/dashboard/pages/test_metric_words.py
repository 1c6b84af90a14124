"""Sentences of the metrics."""

import re
from pathlib import Path

from dashboard.pages.metric_words import GROUPS
from wsi_denoise.quality.evidence import Evidence

METRICS = Path(__file__).parents[4] / "docs" / "programs" / "metrics.md"


def test_every_metric_has_a_sentence_and_is_documented():
    shown = {key for _, group in GROUPS for one in group for key in one.keys}
    assert shown == set(Evidence().summary())
    assert shown <= set(re.findall(r"`([a-z0-9_]+)`", METRICS.read_text("utf-8")))
