"""What the pages say, from values to words: names, times, the queue, the history, what stands out, and exports."""

import csv
import io
import itertools
import json
import re
import threading
import tracemalloc
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from dashboard.api import export
from dashboard.pages import compare_view, history_view, quality_view, queue_view, system_view, words
from dashboard.pages.metric_words import GROUPS
from wsi_denoise import settings
from wsi_denoise.doctor import Check
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import DaemonInfo, Job, JobPage, Scanner, SlideFigures, TrendPoint
from wsi_denoise.quality.evidence import Evidence

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DOCS = Path(__file__).parents[2] / "docs"

PLAIN = Job(
    id=1, slide="/in/a/x.svs", relative="a/x.svs", state=JobState.QUEUED, verdict=None, reasons=[], preset="paper",
    priority=0, progress=0.0, blocks_done=0, blocks_total=0, blocks_resumed=0, rate=None, seconds_left=None,
    created=NOW, started=None, finished=None, next_try=None, output=None, output_sha256=None, maps=None,
    attempts=0, error_code=None,
    error=None, metrics={}, fingerprint="f", size_bytes=34_500_000, mtime_ns=1, width=None, height=None, mpp=None,
    facts={}, settings={}, settings_hash="s", model_checksum=None, origin="daemon:1", duplicate_of=None, region=None,
    provenance={}, daemon=None, cancel_requested=False,
)  # fmt: skip
DAEMON = DaemonInfo(1, "lab", 7, "0.1.0", "cpu", NOW, NOW, None, [], {})
SETTINGS = settings.load(environ={}, folder=Path("/lab")).settings


def test_durations_and_sizes_have_two_units_at_most():
    assert [words.duration(seconds) for seconds in (None, 0, 59.6, 130, 3600, 90_061)] == [
        "", "0 s", "1 min", "2 min 10 s", "1 h", "1 d 1 h",
    ]  # fmt: skip
    assert [words.size(count) for count in (0, 999, 1000, 34_500_000, 5_000_000_000)] == [
        "0 bytes", "999 bytes", "1 kB", "34.5 MB", "5 GB",
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
def test_what_a_name_hides_is_shown(name, shown):
    assert words.visible(name) == shown
    json.dumps(words.visible(name)).encode()


def test_markup_is_text():
    assert words.escaped("<b>&\"'") == "<bdi>&lt;b&gt;&amp;&quot;&#x27;</bdi>"
    assert words.in_markdown("**a** [b](c) :red[d] $e$") == r"\*\*a\*\* \[b\]\(c\) \:red\[d\] \$e\$"


def queue(**changed):
    asked = {
        "settings": SETTINGS, "now": NOW, "daemons": [DAEMON], "paused": None, "counts": {}, "running": JobPage([], 0),
        "waiting": JobPage([], 0), "finished": [],
    }  # fmt: skip
    return queue_view.state(**asked | changed)


@pytest.mark.parametrize(("silent", "state", "alive"), [(4, "alive", True), (20, "late", True), (61, "lost", False)])
def test_a_daemon_that_is_silent_is_late_and_then_lost(silent, state, alive):
    shown = queue(daemons=[replace(DAEMON, heartbeat=NOW - timedelta(seconds=silent))])
    assert (shown["daemons"][0]["state"], shown["alive"]) == (state, alive)


def test_a_running_slide_says_how_far_it_is():
    job = replace(PLAIN, state=JobState.RUNNING)
    shown = queue(running=JobPage([job], 1))["running"][0]
    assert (shown["step"], shown["opened"]) == ("opening", False), "there is no picture to ask for yet"
    job = replace(job, blocks_total=30, blocks_done=3, progress=0.1, rate=1.5, seconds_left=70.0)
    shown = queue(running=JobPage([job], 1))["running"][0]
    assert (shown["step"], shown["percent"], shown["blocks"]) == ("denoising", "10 %", "3 of 30 blocks")
    assert (shown["rate"], shown["left"]) == ("1.50 MPix/s", "1 min 10 s")
    done = replace(job, blocks_done=30, progress=1.0)
    assert queue(running=JobPage([done], 1))["running"][0]["step"] == "writing and verifying the TIFF"
    stopping = replace(done, cancel_requested=True)
    assert queue(running=JobPage([stopping], 1))["running"][0]["step"] == "stopping, as asked"


def test_how_many_slides_run_is_said_when_not_all_are_shown():
    shown = queue(running=JobPage([replace(PLAIN, id=number, state=JobState.RUNNING) for number in range(8)], 11))
    assert (len(shown["running"]), shown["running_total"]) == (8, 11)


@pytest.mark.parametrize(
    ("wanted", "current", "set_"),
    [(1, 0, 1), (1000, 999, 999), (-1000, -999, -999), (5001, 5000, 5000), (4999, 5000, 4999), (-5001, -5000, -5000),
     (-4999, -5000, -4999), (10**9, 0, 999)],
)  # fmt: skip
def test_higher_never_lowers_a_priority(wanted, current, set_):
    assert queue_view.priority(wanted, current) == set_


def test_a_job_that_waits_to_be_tried_again_says_when_and_why():
    job = replace(PLAIN, next_try=NOW + timedelta(seconds=90), attempts=2, error="The disk is full.")
    shown = queue(waiting=JobPage([job], 1))["waiting"][0]
    assert shown["note"] == "tried again in 1 min 30 s (attempt 3): The disk is full."
    assert shown["again"]


def test_what_the_component_gets_is_json():
    job = replace(
        PLAIN, relative="\udce9.svs", state=JobState.DONE, verdict="pass", reasons=["noise_removed: sigma 9."]
    )
    shown = queue(finished=[job], paused="<b>")
    assert json.dumps(shown).encode()
    assert shown["finished"][0]["why"] == "Sigma 9."


def test_filters_mean_what_the_command_line_means():
    words_ = history_view.asked(
        slide=" a&b ", states=["failed", "done"], verdict="pass", period="7 days", today=date(2026, 3, 8)
    )
    assert words_ == {"slide": "a&b", "state": ["failed", "done"], "verdict": "pass", "since": "2026-03-01"}
    assert history_view.address(words_) == "?slide=a%26b&state=failed&state=done&verdict=pass&since=2026-03-01"
    query = history_view.query(words_, sort="size", page=3)
    assert (query.limit, query.offset, query.sort) == (50, 100, "size")
    assert query.states == (JobState.FAILED, JobState.DONE)
    between = history_view.asked(
        period=history_view.BETWEEN, days=[date(2026, 3, 3), date(2026, 3, 1)], today=NOW.date()
    )
    assert between == {"since": "2026-03-01", "until": "2026-03-03"}
    assert history_view.address(history_view.asked(period="any time", today=NOW.date())) == ""


def test_what_can_be_done_with_a_job_follows_from_its_state():
    over = {"finished": NOW}
    can = {
        state: (history_view.can_retry(job), history_view.can_cancel(job))
        for state in JobState
        for job in [replace(PLAIN, state=state, **(over if state in history_view.ALLOWED and state in _OVER else {}))]
    }
    assert can[JobState.FAILED] == can[JobState.QUARANTINED] == can[JobState.CANCELLED] == (True, False)
    assert can[JobState.DONE] == (False, False)
    assert history_view.can_retry(replace(PLAIN, state=JobState.DONE, finished=NOW), output_removed=True)
    assert can[JobState.QUEUED] == can[JobState.RUNNING] == can[JobState.SETTLING] == (False, True)
    assert history_view.can_retry(replace(PLAIN, next_try=NOW))


_OVER = {JobState.DONE, JobState.FAILED, JobState.QUARANTINED, JobState.CANCELLED, JobState.DUPLICATE}


def test_every_metric_has_its_sentence_and_is_documented():
    shown = {key for _, group in GROUPS for one in group for key in one.keys}
    assert shown == set(Evidence().summary())
    documented = set(re.findall(r"`([a-z0-9_]+)`", (DOCS / "programs" / "metrics.md").read_text("utf-8")))
    assert shown <= documented


def test_a_metric_that_was_not_measured_says_so():
    job = replace(
        PLAIN, state=JobState.DONE, metrics={"sigma_before_flat": 9.0, "psnr": None, "structure_removed": 1.0}
    )
    text = compare_view.metrics(job)
    assert "9.0 → –" in text
    assert text.count("not measured</td>") == sum(len(group) for _, group in GROUPS) - 2


def test_provenance_is_text():
    job = replace(
        PLAIN, state=JobState.DONE, output="/out/<i>.tiff", finished=NOW, started=NOW,
        provenance={"numerics": "<script>", "settings": {"<b>": ["<u>"]}},
    )  # fmt: skip
    text = compare_view.provenance(job)
    assert not re.search("<(i|script|b|u)>", text)


def slide(number, **values):
    return SlideFigures(number, f"{number}.svs", NOW, "pass", Scanner("aperio", None, None), None, values)


def test_what_stands_out_is_far_from_the_median_of_the_others():
    compared = quality_view.measures("wavelet")
    usual = [slide(n, sigma_before_wavelet=8.0 + n % 3, codec_psnr=44.0) for n in range(20)]
    odd = slide(99, sigma_before_wavelet=30.0, codec_psnr=31.0, structure_added=None)
    points = quality_view.points([*usual, odd], compared)
    assert [point.job for point in points if point.outlying] == [99]
    assert points[-1].outlying == ("before", "codec")
    (listed,) = quality_view.outliers(points, compared)
    assert listed["text"] == "noise before 30.0, output compression 31.0"
    assert not any(point.outlying for point in quality_view.points([*usual[:5], odd], compared)), "too few for a usual"
    better = slide(98, sigma_before_wavelet=1.0, codec_psnr=60.0)
    assert not quality_view.points([*usual, better], compared)[-1].outlying, "better than usual is not marked"


def test_slides_that_are_all_alike_do_not_stand_out_by_a_hair():
    alike = [slide(n, codec_psnr=44.0) for n in range(20)]
    points = quality_view.points([*alike, slide(99, codec_psnr=43.9)], quality_view.measures("flat"))
    assert not any(point.outlying for point in points)


@pytest.mark.parametrize(
    "values",
    [[0.0], [3.7] * 9, [0.1, 0.2, 0.3], [-4.0, 0.0, 4.0], [1e-7, 3e-7], [12.0, 12.4, 60.0, 61.0], [0.0, 2.4, 4.8]],
)
def test_bins_are_round_of_one_width_and_hold_every_value(values):
    found = quality_view.bins(values)
    assert sum(slides for *_, slides in found) == len(values)
    assert len(found) <= 25
    widths = {round(high - low, 9) for low, high, _ in found}
    assert len(widths) == 1
    assert f"{widths.pop():e}"[0] in "125"
    for (_, high, _), (low, _, _) in itertools.pairwise(found):
        assert high == low
    for value in values:
        assert any(low <= value < high or value == pytest.approx(low) for low, high, slides in found if slides)


def test_bins_of_nothing_are_none():
    assert quality_view.bins([]) == []


def test_the_trend_keeps_the_scanners_with_most_slides():
    found = [TrendPoint("2026-03-01", Scanner(f"s{n}", None, None), 1.0, 1.0, 1.0, n + 1) for n in range(12)]
    assert {row["scanner"] for row in quality_view.series(found)} == {f"s{n}" for n in range(4, 12)}


def test_the_trend_says_how_many_scanners_it_leaves_out():
    found = [
        TrendPoint(f"2026-03-0{day}", Scanner(f"s{n}", None, None), 1.0, 1.0, 1.0, n + 1)
        for n in range(12)
        for day in (1, 2)
    ]
    said = "Only the 8 scanners with most slides are drawn: "
    assert quality_view.left_out(found) == f"{said}4 others with 20 slides are left out."
    assert quality_view.left_out(found[6:]) == f"{said}1 other with 8 slides is left out."
    assert quality_view.left_out(found[8:]) == quality_view.left_out([]) == ""


def test_secrets_are_not_shown():
    loaded = settings.load(
        environ={},
        overrides={
            "dashboard.token": "secret-1",
            "notify.url": "https://x/secret-2",
            "jobs.database": "postgresql://u:secret-3@h/d",
        },
    )
    text = system_view.settings(loaded.settings, loaded.origins)
    assert "secret" not in re.sub("Secret that|a secret", "", text)
    assert text.count("<strong><bdi>flag") == 3
    assert system_view.settings(loaded.settings, loaded.origins, changed_only=True).count("<tr>") == 4


def test_the_doctor_looks_once_at_a_time_and_never_makes_anybody_wait():
    started, may_end, looks = threading.Event(), threading.Event(), []

    def examine():
        looks.append(1)
        started.set()
        may_end.wait(30)
        return [Check("<b>", "warning", "x")]

    doctor = system_view.Doctor(examine)
    doctor.look()
    doctor.look()
    assert started.wait(30)
    assert doctor.busy
    assert doctor.findings is None
    may_end.set()
    for _ in range(300):
        if doctor.findings:
            break
        threading.Event().wait(0.1)
    assert looks == [1]
    assert "&lt;b&gt;" in system_view.checks(doctor.findings.checks)
    failing = system_view.Doctor(lambda: 1 / 0)
    failing.look()
    for _ in range(300):
        if failing.findings:
            break
        threading.Event().wait(0.1)
    assert "ZeroDivisionError" in failing.findings.error


def jobs(count):
    return (
        replace(PLAIN, id=number, slide=f"/in/={number}\udcff.svs", metrics={"psnr": 1.5}) for number in range(count)
    )


def test_csv_has_no_formulas_and_only_text():
    (line,) = csv.DictReader(
        io.StringIO(b"".join(export.as_csv(iter([replace(PLAIN, slide="=1+1")]), ["psnr"])).decode())
    )
    assert line["slide"] == "'=1+1"
    assert line["metrics.psnr"] == ""


def test_json_is_valid_for_none_one_and_many():
    for count in (0, 1, 401):
        found = json.loads(b"".join(export.as_json(jobs(count), [])))
        assert (len(found["jobs"]), found["total"]) == (count, count)


@pytest.mark.parametrize("write", [export.as_csv, export.as_json, export.as_parquet])
def test_an_export_holds_only_a_part_in_memory(write, monkeypatch):
    pytest.importorskip("pyarrow.parquet")  # before memory is traced
    monkeypatch.setattr(export, "_ROWS", 100)

    def most(count):
        tracemalloc.start()
        for _ in write(jobs(count), ["psnr"]):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    most(10)  # imports
    # All at once would be 20 times as much; other threads of this process are counted too, so not twice.
    assert most(8_000) < 5 * most(400)
