"""History in a real browser: filters that the address keeps, pages, one job, running again, and what is exported."""

import csv
import io
import json
import re
import urllib.error
import urllib.request

import pytest

from wsi_denoise.errors import BlockKillsWorker, TruncatedSlide
from wsi_denoise.jobs.states import JobState

FLAGS = ("--set", "output.quality=80")


@pytest.fixture(scope="module")
def filled(lab, see_in_lab, end_job):
    """A dashboard with 70 jobs: 10 failed, 5 quarantined, 3 done (one of them to be reviewed), the rest waiting."""
    store, see = lab.store, see_in_lab
    daemon = store.register_daemon(device="cpu")
    jobs = [see(f"2026/Case_{number:03}.svs", size_bytes=10_000 * number) for number in range(1, 71)]
    for job in jobs:
        queued = {"fingerprint": f"f{job.id}", "settings": {"output.quality": 95}, "settings_hash": "s"}
        store.queue(job.id, preset="paper", origin="daemon:1", **queued)
    for job in jobs[:10]:
        end_job(store, job.id, BlockKillsWorker("row 1, column 2"), JobState.FAILED)
    for job in jobs[10:15]:
        end_job(store, job.id, TruncatedSlide("at byte 7"))
    for number, job in enumerate(jobs[15:18]):
        assert store.claim(daemon, 600, only=job.id)
        store.finish(
            job.id, daemon, verdict="review" if number == 0 else "pass", reasons=["noise_left: sigma was 9."],
            metrics={"psnr": 30.5, "sigma_before_flat": 9.0 + number}, output=lab.folder / "x.tiff", output_sha256="0",
        )  # fmt: skip
    return lab


def rows(page, count):
    """Wait until the list has so many rows, and return them."""
    found = page.locator("tbody tr")
    page.wait_for_function(
        "(count) => [...document.querySelectorAll('[data-testid=stBidiComponentIsolated]')]"
        ".some((one) => one.shadowRoot?.querySelectorAll('tbody tr').length === count)",
        arg=count,
    )
    return found


@pytest.mark.timeout(600)
def test_the_history_is_filtered_sorted_turned_and_exported(filled, open_page):
    url = filled.url
    with open_page(viewport={"width": 1440, "height": 900}) as page:
        page.goto(f"{url}history")
        rows(page, 50)
        page.get_by_text("1 to 50 of 70 jobs").wait_for()
        page.get_by_role("button", name="Next", exact=True).click()
        rows(page, 20)
        page.get_by_text("51 to 70 of 70 jobs").wait_for()

        page.get_by_label("Slide", exact=True).fill("case_00")
        page.keyboard.press("Enter")
        rows(page, 9)
        page.get_by_role("button", name="Size").click()
        first = page.locator("tbody tr").first
        first.get_by_text("Case_009.svs").wait_for()
        page.get_by_role("button", name="Size").click()
        first.get_by_text("Case_001.svs").wait_for()
        address = page.url
        assert re.search(r"slide=case_00", address)
        assert re.search(r"sort=size", address)

        with page.expect_download() as download:
            page.get_by_role("link", name="CSV").click()
        lines = list(csv.DictReader(io.StringIO(download.value.path().read_text("utf-8"))))
        assert [line["id"] for line in lines] == [str(number) for number in range(9, 0, -1)]
        assert {line["error_code"] for line in lines} == {BlockKillsWorker.code}
        with open_page() as fresh:
            fresh.goto(address)
            rows(fresh, 9)
            fresh.locator("tbody tr").first.get_by_text("Case_001.svs").wait_for()

        page.goto(f"{url}history?verdict=review")
        rows(page, 1).first.get_by_text("Case_016.svs").wait_for()
        page.goto(f"{url}history?error={TruncatedSlide.code}")
        rows(page, 5)
        page.goto(f"{url}history?state=failed,done")
        page.get_by_role("combobox", name="Verdict").click()
        page.get_by_role("option", name="pass").click()
        rows(page, 2)
        page.goto(f"{url}history?slide=no-such-slide")
        page.get_by_text("No job matches these filters.").wait_for()
        assert not page.foreign
        assert not page.errors


@pytest.mark.timeout(300)
def test_exports_hold_the_same_jobs(filled):
    parquet = pytest.importorskip("pyarrow.parquet")
    url = filled.url
    asked = "?state=done&state=failed"
    read = {
        kind: urllib.request.urlopen(f"{url}export/jobs.{kind}{asked}").read() for kind in ("csv", "json", "parquet")
    }
    lines = list(csv.DictReader(io.StringIO(read["csv"].decode())))
    jobs = json.loads(read["json"])
    table = parquet.read_table(io.BytesIO(read["parquet"])).to_pylist()
    wanted = [18, 17, 16, *range(10, 0, -1)]
    assert [int(line["id"]) for line in lines] == wanted
    assert [job["id"] for job in jobs["jobs"]] == wanted
    assert jobs["total"] == len(wanted)
    assert [row["id"] for row in table] == wanted
    assert table[0]["metrics.sigma_before_flat"] == float(lines[0]["metrics.sigma_before_flat"]) == 11.0
    assert jobs["jobs"][0] == json.loads(urllib.request.urlopen(f"{url}api/jobs?slide=Case_018").read())["jobs"][0]
    for wrong in ("export/jobs.csv?state=nonsense", "export/jobs.xlsx", "export/../export/jobs.exe"):
        with pytest.raises(urllib.error.HTTPError, match=r"40[04]"):
            urllib.request.urlopen(url + wrong)


@pytest.mark.timeout(600)
def test_a_job_is_opened_and_run_again(filled, open_page):
    store, url = filled.store, filled.url
    with open_page() as page:
        page.goto(f"{url}history?verdict=review")
        page.get_by_role("link", name="Case_016.svs").click()
        page.get_by_role("heading", name="Job 16").wait_for()
        page.get_by_text("noise_left: sigma was 9.").wait_for()
        page.get_by_text("output.quality").wait_for()
        page.get_by_text("sigma_before_flat").wait_for()
        page.get_by_role("button", name="Run again with this preset").click()
        page.get_by_role("heading", name="Job 71").wait_for()
        new = store.job(71)
        assert (new.state, new.slide, new.settings["output.quality"]) == (
            JobState.QUEUED,
            "/scans/2026/Case_016.svs",
            80,
        )
        # The same once more would make no difference, and is refused in words.
        page.goto(f"{url}history?job=16")
        page.get_by_role("button", name="Run again with this preset").click()
        page.get_by_text("nothing would differ").wait_for()
        assert store.jobs().total == 71
        # New weights of the same preset do make one.
        daemon = store.register_daemon()
        assert store.claim(daemon, 600, only=71)
        ended = {"output": filled.folder / "y.tiff", "output_sha256": "0", "model_checksum": "of older weights"}
        store.finish(71, daemon, verdict="pass", reasons=[], metrics={}, **ended)
        page.get_by_role("button", name="Run again with this preset").click()
        page.get_by_role("heading", name="Job 72").wait_for()
        page.get_by_role("button", name="All jobs").click()
        rows(page, 50)
        page.goto(f"{url}history?job=72")
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("heading", name="Job 72").get_by_text("cancelled").wait_for()
        page.goto(f"{url}history?job=4711")
        page.get_by_text("There is no job 4711.").wait_for()
        assert not page.errors
