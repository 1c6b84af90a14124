"""Pages in a real browser: names, headings, addresses that lead back, and controls that have an effect."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from wsi_denoise.errors import InternalError
from wsi_denoise.jobs.states import JobState

PAGES = {"": "Queue", "compare": "Compare", "history": "History", "quality": "Quality", "system": "System"}


def asked(page):
    """Return the parameters of the page's address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def wait_for_address(page, /, **wanted):
    """Wait until the address names these parameters."""
    page.wait_for_function(
        "(wanted) => { const set = new URL(location.href).searchParams;"
        " return Object.entries(wanted).every(([name, value]) => set.get(name) === value); }",
        arg=wanted,
    )


@pytest.mark.timeout(900)
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_is_named(lab, see_in_lab, open_page, end_job, width):
    store, url = lab.store, lab.url
    failed = see_in_lab("Case_12.svs", mtime_ns=width)
    store.queue(failed.id, fingerprint=f"f{width}", settings={}, settings_hash="s", preset="paper", origin="daemon:1")
    end_job(store, failed.id, InternalError("a detail"), JobState.FAILED)
    with open_page(viewport={"width": width, "height": 844}) as page:
        for address, name in PAGES.items():
            page.goto(url + address)
            page.get_by_role("heading", level=1, name=name, exact=True).wait_for()
            page.wait_for_function("(title) => document.title === title", arg=f"{name} · wsi-denoise")
            page.get_by_text("Research use only, derived image").first.wait_for()
            assert page.get_by_role("heading", level=1).count() == 1
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.goto(f"{url}history?job={failed.id}")
        page.get_by_role("heading", level=1, name=f"Job {failed.id}: Case_12.svs").wait_for()
        page.wait_for_function(f"document.title.startsWith('Case_12.svs: Job {failed.id}')")
        # The advice names the button beside it.
        page.get_by_role("button", name="Try again").wait_for()
        page.get_by_text("The button Try again").first.wait_for()
        assert "wsi-denoise retry" not in page.inner_text("body")
        # No word is broken into a column of letters.
        tall = page.evaluate(
            "() => [...document.querySelectorAll('.wd td')].filter((cell) => cell.textContent.trim().length > 3"
            " && cell.getBoundingClientRect().width < 40).map((cell) => cell.textContent)"
        )
        assert tall == []
        answer = page.goto(f"{url}nonsense")
        assert answer.status == 404
        page.get_by_role("heading", level=1, name="Not found").wait_for()


@pytest.mark.timeout(900)
def test_the_menu_shows_its_focus(lab, open_page):
    with open_page(viewport={"width": 1280, "height": 800}) as page:
        page.goto(lab.url)
        page.get_by_role("link", name="History", exact=True).first.wait_for()
        page.locator(".wd-foot").wait_for()  # below everything that the style comes with
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent.trim()") == "History":
                break
        outline = page.evaluate(
            "(() => { const one = document.activeElement; const style = getComputedStyle(one);"
            " return [one.textContent.trim(), style.outlineStyle, parseFloat(style.outlineWidth)]; })()"
        )
        assert (outline[0], outline[1]) == ("History", "solid")
        assert outline[2] >= 2


@pytest.mark.timeout(900)
def test_the_address_names_what_is_shown(processed, serve, open_page):
    case = processed()
    with serve(case.folder) as url, open_page(permissions=["clipboard-read", "clipboard-write"]) as page:
        # Compare without a job shows the last one that was finished.
        page.goto(f"{url}compare")
        frame = page.frame_locator("iframe")
        frame.locator("html[data-ready=true]").wait_for(state="attached")
        wait_for_address(page, job=str(case.job.id), mode="curtain")
        frame.locator("#slide").press("d")
        frame.locator("#slide").press("r")
        wait_for_address(page, mode="difference", of="rms")
        page.get_by_role("button", name="Copy link to this view").click()
        page.get_by_role("button", name="Copied").wait_for()
        link = page.evaluate("navigator.clipboard.readText()")
        set_ = parse_qs(urlsplit(link).query)
        assert (set_["job"], set_["mode"], set_["of"]) == ([str(case.job.id)], ["difference"], ["rms"])
        page.goto(f"{url}compare?job={case.job.id}&x=300&y=400&zoom=1&mode=flip&side=after")
        wait_for_address(page, job=str(case.job.id), zoom="1", mode="flip", side="after")
        # Filters and tabs of the other pages.
        page.goto(f"{url}compare")
        page.get_by_label("Find a slide").fill("slide")
        page.keyboard.press("Enter")
        wait_for_address(page, find="slide", job=str(case.job.id))
        page.goto(f"{url}system")
        page.get_by_role("tab", name="Settings").click()
        wait_for_address(page, tab="Settings")
        page.goto(f"{url}system?tab=Versions")
        page.get_by_text("openslide-python").wait_for()
        page.goto(f"{url}history?seen=between+two+days&days=2026-01-02&days=2026-01-03")
        page.get_by_text("No job matches these filters.").wait_for()
        page.goto(f"{url}history?page=9999")
        page.get_by_text("1 job", exact=True).wait_for()
        wait_for_address(page, page="1")
        assert not page.errors


@pytest.mark.timeout(900)
def test_controls_without_a_file_are_not_drawn(processed, serve, open_page):
    case = processed()
    Path(case.job.output).unlink()
    with serve(case.folder) as url, open_page() as page:
        job = f"{url}history?job={case.job.id}"
        page.goto(job)
        page.get_by_text("The denoised slide is no longer at").wait_for()
        page.get_by_role("button", name="Compare before and after").wait_for()
        assert page.get_by_role("link", name="Download the TIFF").count() == 0
        Path(case.job.slide).unlink()
        page.goto(job)
        page.get_by_text("This machine finds no file at").wait_for()
        for name in ("Compare before and after", "Run again with this preset"):
            assert page.get_by_role("button", name=name).count() == 0
        page.goto(f"{url}viewer/{case.job.id}")
        page.get_by_role("alert").wait_for()
        assert page.locator("button:visible, select:visible, input:visible, [role=slider]:visible").count() == 0


@pytest.mark.timeout(900)
def test_a_duplicate_leads_to_its_original(lab, see_in_lab, open_page):
    store, url = lab.store, lab.url
    first, second = see_in_lab("first.svs"), see_in_lab("second.svs")
    given = {"settings": {}, "settings_hash": "s", "preset": "paper", "origin": "daemon:1"}
    for job in (first, second):
        store.queue(job.id, fingerprint="same", **given)
    assert store.job(second.id).state is JobState.DUPLICATE
    with open_page(viewport={"width": 1280, "height": 800}) as page:
        for address in ("", "history", f"history?job={second.id}"):
            page.goto(url + address)
            page.get_by_role("link", name=f"job {first.id}", exact=True).first.click()
            page.get_by_role("heading", level=1, name=f"Job {first.id}: first.svs").wait_for()
        # What is read out begins with what is written on the button.
        page.goto(f"{url}history")
        for name in ("Back", "Next"):
            page.get_by_role("button", name=name, exact=True).wait_for()
        assert not page.errors
