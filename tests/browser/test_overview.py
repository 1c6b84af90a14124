"""Quality, System and Compare in a real browser; and that the pages can be used without a mouse."""

import pytest

from wsi_denoise.jobs.states import JobState

SCANNERS = (
    {"vendor": "aperio", "model": "AT2", "serial_hash": "abcd1234", "scan_week": "2026-W09"},
    {"vendor": "3dhistech"},
)


FLAGS = ("--set", "dashboard.token=very secret", "--set", "output.quality=80")


@pytest.fixture(scope="module")
def measured(lab, see_in_lab):
    """A dashboard with 20 slides of two scanners; one has a structure score that no other has."""
    store, see = lab.store, see_in_lab
    daemon = store.register_daemon(device="cpu, openvino", facts={"cluster": "2 workers"})
    for number in range(20):
        job = see(f"slide-{number:02}.svs")
        queued = {"settings": {}, "settings_hash": "s", "preset": "paper", "origin": "daemon:1"}
        store.queue(job.id, fingerprint=f"f{number}", **queued)
        assert store.claim(daemon, 600, only=job.id)
        store.set_slide_facts(job.id, 1000, 800, (0.25, 0.25), SCANNERS[number % 2])
        metrics = {
            "sigma_before_wavelet": 8.0 + number % 5, "sigma_after_wavelet": 2.0,
            "structure_removed": 9.5 if number == 7 else 1.5, "structure_added": 1.0, "codec_psnr": 44.0,
            "psnr": 25.0, "patches": 80, "tissue_patches": 60,
        }  # fmt: skip
        verdict = "review" if number == 7 else "pass"
        reason = "structure_removed: something is missing." if number == 7 else "noise_removed: sigma 9 before."
        ended = {"output": f"/nowhere/{number}.tiff", "output_sha256": "0"}
        store.finish(job.id, daemon, verdict=verdict, reasons=[reason], metrics=metrics, **ended)
    return lab.url


def sign_in(page, url):
    page.goto(f"{url}system?token=very%20secret")
    page.get_by_label("Token").wait_for(state="detached")


@pytest.mark.timeout(600)
def test_what_stands_out_is_found_on_quality_and_opened_in_compare(measured, open_page):
    with open_page(viewport={"width": 1440, "height": 900}) as page:
        sign_in(page, measured)
        page.goto(f"{measured}quality")
        page.get_by_text("20 slides.").wait_for()
        page.get_by_role("heading", name="1 slide stands out").wait_for()
        charts = page.get_by_test_id("stVegaLiteChart")
        charts.nth(5).wait_for()  # the scatter, four spreads that have values, and the trend
        page.get_by_label("Noise after against noise before").first.wait_for()
        listed = page.get_by_role("list", name="Slides that stand out").get_by_role("listitem")
        assert "structure score 9.5" in listed.first.inner_text()
        assert "aperio" not in listed.first.inner_text()
        listed.get_by_role("link", name="slide-07.svs").click()
        page.wait_for_url("**/compare?job=8**")
        page.get_by_role("heading", name="slide-07.svs").wait_for()
        page.get_by_text("Something is missing.").wait_for()
        assert not page.foreign
        assert not page.errors


@pytest.mark.timeout(600)
def test_a_mark_of_the_scatter_opens_compare(measured, open_page):
    with open_page(viewport={"width": 1440, "height": 900}) as page:
        sign_in(page, measured)
        page.goto(f"{measured}quality?slides=slide-03")
        page.get_by_text("1 slide.").wait_for()
        chart = page.get_by_test_id("stVegaLiteChart").first
        chart.locator("svg .mark-symbol.role-mark path").last.click()
        page.wait_for_url("**/compare?job=4**")
        page.get_by_role("heading", name="slide-03.svs").wait_for()


@pytest.mark.timeout(600)
def test_system_shows_what_is_there_and_no_secret(measured, open_page):
    with open_page() as page:
        sign_in(page, measured)
        page.get_by_text("2 workers").wait_for()
        # The checks take half a minute; the rest of the page does not wait for them.
        page.get_by_role("heading", name="Free space").wait_for()
        page.get_by_role("tab", name="Settings").click()
        quality = page.get_by_role("row").filter(has_text="output.quality")
        quality.get_by_text("flag").wait_for()
        quality.get_by_text("80", exact=True).wait_for()
        page.get_by_role("row", name='dashboard.token "***" flag').wait_for()
        assert "very secret" not in page.content()
        page.get_by_role("tab", name="Models").click()
        page.get_by_role("cell", name="123,379 parameters").first.wait_for()
        page.get_by_role("tab", name="Machines").click()
        page.get_by_role("row").filter(has_text="imagecodecs").wait_for(timeout=240_000)
        assert not page.foreign
        assert not page.errors


def focused(page):
    return page.evaluate(
        """() => {
          let node = document.activeElement;
          while (node?.shadowRoot?.activeElement) node = node.shadowRoot.activeElement;
          return node ? node.getAttribute("aria-label") || node.textContent.trim() || node.placeholder || "" : "";
        }"""
    )


def tab_to(page, name, most=80):
    for _ in range(most):
        page.keyboard.press("Tab")
        if focused(page) == name:
            return
    pytest.fail(f"{name} is not reached with the Tab key")


@pytest.mark.timeout(600)
def test_the_queue_is_worked_with_the_keyboard_alone(store, see, serve, open_page, tmp_path):
    jobs = [see(f"{name}.svs") for name in "abc"]
    for job in jobs:
        queued = {"settings": {}, "settings_hash": "s", "preset": "paper", "origin": "daemon:1"}
        store.queue(job.id, fingerprint=job.relative, **queued)
    with serve(tmp_path) as url, open_page() as page:
        page.goto(url)
        names = page.get_by_role("list", name="Waiting jobs").get_by_role("listitem").locator(".name")
        names.nth(2).wait_for()
        tab_to(page, "Higher priority for c.svs")
        page.keyboard.press("Enter")
        page.wait_for_function("true")
        wait_until(lambda: store.job(jobs[2].id).priority == 1, page)
        # The list holds still while the focus is in it: what was chosen stays under the finger.
        assert names.all_inner_texts() == ["a.svs", "b.svs", "c.svs"]
        tab_to(page, "Cancel the waiting job of b.svs")
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        wait_until(lambda: store.job(jobs[1].id).state is JobState.CANCELLED, page)
        page.reload()
        names.nth(1).wait_for()
        assert names.all_inner_texts() == ["c.svs", "a.svs"]
        tab_to(page, "Why the queue is paused")
        page.keyboard.type("lunch")
        page.keyboard.press("Enter")
        page.get_by_text("lunch").wait_for()
        assert store.paused() == "lunch"
        tab_to(page, "Resume")
        page.keyboard.press("Enter")
        wait_until(lambda: store.paused() is None, page)
        assert not page.errors


def wait_until(condition, page, seconds=60):
    for _ in range(seconds * 5):
        if condition():
            return
        page.wait_for_timeout(200)
    pytest.fail("it did not happen")
