"""The page with its daemon and real slides, as a lab has it: one story for the queue, one for a job that failed."""

import csv
import io
import urllib.request

import pytest

from wsi_denoise.errors import OutputUnwritable
from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.slide import demo

QUICK = """
[intake]
settle_seconds = 1.0
scan_seconds = 0.5
[compute]
workers = 1
[jobs]
heartbeat_seconds = 1.0
retry_seconds = 1.0
[limits]
worker_memory = "0"
"""

STILL = """() => {
  window.stillHere = true;
  window.shifted = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      if (entry.hadRecentInput) continue;
      const parts = entry.sources.map((one) => {
        const node = one.node?.nodeType === 3 ? one.node.parentElement : one.node;
        const [from, to] = [one.previousRect, one.currentRect].map((box) => `${box.x | 0},${box.y | 0}`);
        return `${node?.className || node?.nodeName} ${node?.textContent?.slice(0, 30)} ${from} to ${to}`;
      });
      window.shifted.push([entry.value, parts]);
    }
  }).observe({ type: "layout-shift" });
}"""


@pytest.fixture(scope="module")
def up(serve, tmp_path_factory):
    """A dashboard with its daemon, on a folder with quick settings."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "wsi-denoise.toml").write_text(QUICK)
    (folder / "inbox").mkdir()
    with serve(folder, command="up") as url:
        yield folder, url


def places(page):
    """Where the page's parts are, from the top."""
    return page.evaluate(
        "() => [...document.querySelectorAll('.stBidiComponent')].flatMap((one) => {"
        " const root = one.querySelector('[data-testid=stBidiComponentIsolated]')?.shadowRoot;"
        " const parts = root?.querySelectorAll('.panel, .drop') ?? [];"
        " return [...parts].map((part) => part.getBoundingClientRect().top); })"
    )


@pytest.mark.timeout(900)
def test_a_slide_goes_through_the_queue_while_the_page_is_open(up, open_page):
    lab, url = up
    slide = demo.write(lab / "elsewhere", side=3000)
    small = demo.write(lab / "small", side=700)
    with open_page(viewport={"width": 1440, "height": 900}) as page:
        page.goto(url)
        running = page.get_by_role("region", name="Running")
        running.get_by_text("No slide has been here yet.").wait_for()
        running.get_by_text(str(lab / "inbox")).wait_for()
        page.get_by_text("No daemon is running").wait_for(state="hidden")
        page.evaluate(STILL)
        before = places(page)
        assert len(before) == 4

        slide.rename(lab / "inbox" / slide.name)
        bar = running.get_by_role("progressbar", name=f"Progress of {slide.name}")
        bar.wait_for()
        running.get_by_text("MPix/s").wait_for()
        running.get_by_role("img", name=slide.name).wait_for()
        assert places(page) == before, "nothing moves when a slide starts"
        # The second one comes by upload while the first one runs.
        (lab / "small" / small.name).rename(lab / "small" / "second.tiff")
        page.locator("input[type=file]").set_input_files(lab / "small" / "second.tiff")
        page.get_by_role("list", name="Uploads").get_by_text("in the inbox").wait_for()
        assert (lab / "inbox" / "second.tiff").read_bytes() == (lab / "small" / "second.tiff").read_bytes()

        ended = page.get_by_role("list", name="Last finished jobs").get_by_role("listitem")
        ended.filter(has_text=slide.name).get_by_text("pass").wait_for()
        ended.filter(has_text="second.tiff").get_by_text("pass").wait_for(timeout=300_000)
        assert page.evaluate("window.stillHere"), "the page was loaded again"
        assert places(page) == before
        shifted = page.evaluate("window.shifted")
        assert sum(value for value, _ in shifted) < 0.05, sorted(shifted)[-3:]

        ended.get_by_role("link", name=slide.name).click()
        page.wait_for_url("**/compare?job=1**")
        page.get_by_role("heading", name=slide.name).wait_for()
        viewer = page.frame_locator("iframe")
        viewer.locator("canvas").first.wait_for()
        page.get_by_text("Standard deviation of the noise before and after").wait_for()
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the TIFF").click()
        assert download.value.path().read_bytes() == (lab / "denoised" / f"{slide.name}.denoised.tiff").read_bytes()
        assert not page.foreign
        assert not page.errors


@pytest.mark.timeout(900)
def test_a_failed_job_is_tried_again_from_the_history_and_runs(up, open_page, end_job):
    lab, url = up
    store = JobStore(f"sqlite:///{lab / '.wsi-denoise' / 'jobs.sqlite'}")
    store.upgrade()
    store.pause("person:cli", "until the test is ready")
    slide = demo.write(lab / "again", side=800)
    with open_page() as page:
        slide.rename(lab / "inbox" / "again.tiff")
        page.goto(url)
        page.get_by_text("until the test is ready").wait_for()
        row = page.get_by_role("list", name="Waiting jobs").get_by_role("listitem").filter(has_text="again.tiff")
        row.get_by_text("preset auto").wait_for()
        job = next(job for job in store.waiting().jobs if job.relative == "again.tiff")
        assert job.state is JobState.QUEUED
        end_job(store, job.id, OutputUnwritable("the share is not mounted"))

        page.goto(f"{url}history?state=failed")
        page.get_by_role("link", name="again.tiff").click()
        page.get_by_text("the share is not mounted").first.wait_for()
        page.get_by_role("button", name="Try again").click()
        page.get_by_role("button", name="Try again").wait_for(state="detached")
        assert store.job(job.id).state is JobState.QUEUED
        assert store.resume("person:cli")
        page.get_by_role("button", name="Compare before and after").wait_for(timeout=300_000)
        assert store.job(job.id).state is JobState.DONE
        kinds = [event.kind for event in store.events(job.id)]
        assert kinds[-1] == "done"
        assert "retry" in kinds
        given = urllib.request.urlopen(f"{url}export/jobs.csv?slide=again.tiff").read().decode()
        (line,) = csv.DictReader(io.StringIO(given))
        assert (line["state"], line["verdict"]) == ("done", "pass")
        assert not page.errors
    store.close()
