"""Texts of the pages: times, sizes, plurals, and buttons instead of commands."""

import json
import re
from dataclasses import replace

import pytest

from dashboard.pages import words
from support.jobs import NOW, PLAIN
from wsi_denoise import errors
from wsi_denoise.jobs.states import JobState
from wsi_denoise.quality import verdict

ON_THE_COMMAND_LINE_ONLY = ("wsi-denoise db upgrade", "wsi-denoise run", "wsi-denoise up")


def test_durations_and_sizes_have_two_units_at_most():
    assert [words.duration(seconds) for seconds in (None, 0, 59.6, 130, 3600, 90_061)] == [
        "", "0 s", "1 min", "2 min 10 s", "1 h", "1 d 1 h",
    ]  # fmt: skip
    assert [words.size(count) for count in (0, 1, 2, 999, 1000, 34_500_000, 5_000_000_000)] == [
        "0 bytes", "1 byte", "2 bytes", "999 bytes", "1 kB", "34.5 MB", "5 GB",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("turned\u202egpj.svs", "turned\\u202egpj.svs"),
        ("two\nlines\t", "two\\nlines\\t"),
        ("caf\udce9.svs", "caf\\xe9.svs"),
        ("שקופית ✓.svs", "שקופית ✓.svs"),
    ],
)
def test_hidden_characters_of_a_name_are_shown(name, shown):
    assert words.visible(name) == shown
    json.dumps(words.visible(name)).encode()


def test_markdown_is_text():
    assert words.in_markdown("**a** [b](c) :red[d] $e$") == r"\*\*a\*\* \[b\]\(c\) \:red\[d\] \$e\$"


@pytest.mark.parametrize("error", list(errors.every_error()), ids=lambda error: error.__name__)
def test_errors_name_buttons_and_pages_instead_of_commands(error):
    shown = words.for_page(str(error("detail")))
    for command in re.findall(r"wsi-denoise [a-z-]+(?: [a-z]+)?", shown):
        assert command.startswith(ON_THE_COMMAND_LINE_ONLY), shown
    # Sentences still begin with a capital.
    assert not re.search(r"[.!?] (the|see) ", shown), shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("wsi-denoise retry 12 tries again.", "The button Try again tries again."),
        ("paused: lunch; wsi-denoise resume", "paused: lunch; the button Resume on the Queue page"),
        ("See wsi-denoise jobs.", "See the History page."),
        ("wsi-denoise jobsworth", "wsi-denoise jobsworth"),
        ("in 1 patches, 11 patches, 0.1 patches", "in 1 patch, 11 patches, 0.1 patches"),
    ],
)
def test_a_message_is_adapted_to_the_page(said, shown):
    assert words.for_page(said) == shown


def test_numbers_of_one_are_singular():
    assert (words.count(1, "patch"), words.count(2, "patch")) == ("1 patch", "2 patches")
    assert (words.of(0, 1, "block"), words.of(1, 2, "block")) == ("0 of 1 block", "1 of 2 blocks")
    limits = replace(verdict.DEFAULT, mismatched_patches=1, structure_patches=1)
    measured = {"tissue_patches": 100.0, "psnr": 25.0, "sigma_before_wavelet": 9.0}
    for found, wanted in (
        ({"mismatched_patches": 1.0}, "1 patch shows"),
        ({"structure_removed_patches": 1.0, "structure_removed": 50.0}, "in 1 patch ("),
    ):
        assert wanted in " ".join(verdict.judge(measured | found, thresholds=limits).reasons)


def test_the_first_reason_is_shown_without_its_code():
    assert words.why(replace(PLAIN, reasons=["noise_removed: sigma 9.", "b: c"])) == "Sigma 9."
    duplicate = replace(PLAIN, state=JobState.DUPLICATE, finished=NOW, duplicate_of=12)
    assert words.why(duplicate) == "The same as job 12."
