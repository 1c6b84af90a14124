"""The deep-zoom viewer in a real browser, as a user drives it, checked by pixels of screenshots."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from support.processed import process

SCREEN = {"width": 1100, "height": 760}
PATIENCE = 120_000


@pytest.fixture(scope="module")
def shown(serve, open_page, tmp_path_factory):
    """The viewer of a slide that has been processed: (its address, what opens a tab)."""
    case = process(tmp_path_factory.mktemp("lab"), "<b>noisy & 'odd'.tiff")
    case.store.see("/scans/waiting.svs", "waiting.svs", size_bytes=1, mtime_ns=1, preset="paper", origin="daemon:1")
    with serve(case.folder) as url:
        yield f"{url}viewer/{case.job.id}", open_page
    case.store.close()


def settle(page):
    """Wait until nothing moves and everything that is seen has been loaded."""
    last = None
    for _ in range(40):
        page.locator("html[data-ready=true]").wait_for(state="attached", timeout=PATIENCE)
        picture = page.locator("#slide").screenshot()
        if picture == last:
            return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
        last = picture
        page.wait_for_timeout(250)
    raise AssertionError("the picture does not come to rest")


def start(page, address):
    page.goto(address)
    page.get_by_text("Research use only").wait_for()
    return settle(page)


def address_of(page):
    return page.evaluate("location.href")


def values(page):
    return dict(re.findall(r"(\w+)=([^&]+)", address_of(page).partition("?")[2]))


def changed(one, other):
    """Which pixels differ by more than what drawing twice makes."""
    return np.abs(one - other).max(axis=2) > 6


@pytest.mark.timeout(600)
def test_what_a_person_does_with_it(shown):
    address, open_page = shown
    with open_page(viewport=SCREEN) as page:
        whole = start(page, f"{address}?theme=light")
        assert page.get_by_role("radio", name="Curtain").get_attribute("aria-checked") == "true"
        # Names are text.
        page.get_by_text("<b>noisy & 'odd'.tiff").wait_for()

        # One to one, by key: only there noise is visible.
        page.locator("#slide").press("1")
        settle(page)
        assert float(values(page)["zoom"]) == pytest.approx(1, abs=0.01)
        near = settle(page)
        assert changed(whole, near).mean() > 0.2
        middle = SCREEN["width"] // 2
        height = slice(150, -150)
        # The noise is on the left of the curtain and not on the right.
        assert roughness(near[height, 250 : middle - 40]) > 1.25 * roughness(near[height, middle + 40 : -350])

        # The curtain is dragged to the right: what it uncovers is before, the rest stays as it was.
        page.locator("#curtain").hover()
        page.mouse.down()
        page.mouse.move(middle + 150, 300, steps=6)
        page.mouse.up()
        dragged = settle(page)
        page.mouse.move(5, 5)
        moved = changed(near, dragged)[height]
        assert moved[:, middle + 30 : middle + 120].mean() > 0.5
        assert moved[:, 250 : middle - 40].mean() < 0.01
        assert moved[:, middle + 190 : middle + 300].mean() < 0.01
        uncovered = (height, slice(middle + 30, middle + 120))
        assert roughness(dragged[uncovered]) > 1.25 * roughness(near[uncovered])

        # By keyboard as well.
        curtain = page.get_by_role("slider", name="Curtain")
        before = int(curtain.get_attribute("aria-valuenow"))
        curtain.press("ArrowLeft")
        assert int(curtain.get_attribute("aria-valuenow")) < before

        # A flip is the same field, with and without noise.
        page.locator("#slide").press("f")
        first = settle(page)
        page.locator("#slide").press(" ")
        second = settle(page)
        assert page.locator("#left").inner_text() == "After"
        inside = (height, slice(250, -250))
        assert roughness(first[inside]) > 1.25 * roughness(second[inside])
        assert correlation(first[inside], second[inside]) > 0.8

        # Panning moves what is seen.
        page.mouse.move(middle, 400)
        page.mouse.down()
        page.mouse.move(middle - 90, 340, steps=8)
        page.mouse.up()
        panned = settle(page)
        assert changed(second, panned)[inside].mean() > 0.2
        page.mouse.wheel(0, -300)
        settle(page)
        assert float(values(page)["zoom"]) > 1.05

        # The difference is grey but for what was removed, and stronger with more gain.
        page.locator("#slide").press("d")
        weak = settle(page)[inside]
        assert abs(weak.mean() - 128) < 4
        page.locator("#slide").press("]")
        strong = settle(page)[inside]
        assert strong.std() > 1.3 * weak.std()
        assert page.errors == []
        assert page.foreign == []


def roughness(pixels):
    """What neighbours differ by, in grey levels."""
    grey = pixels.mean(axis=2)
    return float(np.abs(np.diff(grey, axis=1)).mean())


def correlation(one, other):
    return float(np.corrcoef(one.mean(axis=2).ravel(), other.mean(axis=2).ravel())[0, 1])


@pytest.mark.timeout(600)
def test_a_link_shows_a_fresh_browser_the_same_field(shown):
    address, open_page = shown
    with open_page(viewport=SCREEN, permissions=["clipboard-read", "clipboard-write"]) as page:
        start(page, f"{address}?theme=dark")
        page.locator("#slide").press("n")
        settle(page)
        page.locator("#slide").press("m")
        page.locator("#curtain").press("[")
        mine = settle(page)
        page.get_by_role("button", name="Copy link").click()
        page.get_by_text("Link copied").wait_for()
        link = page.evaluate("navigator.clipboard.readText()")
        assert link == address_of(page)
        # The strongest place, where the test's map has it.
        assert (float(values(page)["x"]), float(values(page)["y"])) == (336, 240)
        assert page.errors == []
    with open_page(viewport=SCREEN) as page:
        theirs = start(page, link)
        assert page.locator("html").get_attribute("data-theme") == "dark"
        assert page.get_by_role("combobox", name="Map").input_value() == "noise"
        # All but the frame round the place, which is not part of a link.
        assert changed(mine, theirs).mean() < 0.02
        assert page.errors == []


@pytest.mark.timeout(600)
def test_pixels_are_squares_beyond_one_to_one(shown):
    address, open_page = shown
    with open_page(viewport=SCREEN) as page:
        near = start(page, f"{address}?x=300&y=400&zoom=8&mode=flip&side=before")
        # Whole squares of one colour each.
        part = near[200:360, 400:560]
        edges = np.abs(np.diff(part.sum(axis=2), axis=1)).sum(axis=0)
        assert np.sort(edges)[: len(edges) * 3 // 4].max() < 0.05 * edges.max()
        page.get_by_text("pixels as they are").wait_for()
        assert page.errors == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("width", [1440, 800])
def test_everything_is_named_and_within_the_screen(shown, width):
    address, open_page = shown
    with open_page(viewport={"width": width, "height": 700}) as page:
        start(page, address)
        for control in page.locator("button:visible, select:visible, input:visible, [role=slider]:visible").all():
            box = control.bounding_box()
            assert box["x"] >= -15
            assert box["x"] + box["width"] <= width + 15
            named = control.evaluate("e => e.ariaLabel || e.innerText || e.labels?.[0]?.innerText")
            assert named.strip()
        page.locator("#slide").press("?")
        keys = page.get_by_role("dialog", name="Keys")
        keys.wait_for()
        page.keyboard.press("Escape")
        keys.wait_for(state="hidden")


@pytest.mark.timeout(600)
def test_a_screen_that_grows_or_shrinks_shows_both_layers_whole(shown):
    address, open_page = shown
    with open_page(viewport={"width": 800, "height": 600}) as page:
        start(page, f"{address}?theme=dark")
        for height in (600, 760, 560):
            page.set_viewport_size({"width": 800, "height": height})
            page.wait_for_function("(height) => innerHeight === height", arg=height)
            page.wait_for_timeout(500)
            picture = settle(page)
            # A column on either side of the curtain, clear of the chips in the corners.
            before, after = (np.flatnonzero(picture[:, column].max(axis=1) > 60) for column in (330, 470))
            tall = 900 * float(values(page)["zoom"])
            for drawn in (before, after):
                assert drawn[-1] - drawn[0] + 1 == pytest.approx(min(tall, len(picture)), abs=4), (height, drawn)


@pytest.mark.timeout(600)
def test_a_job_without_a_slide_says_what_is_missing(shown):
    address, open_page = shown
    with open_page(viewport=SCREEN) as page:
        page.goto(re.sub(r"\d+$", "2", address))
        page.get_by_role("alert").get_by_text("has not been opened yet").wait_for()


@pytest.mark.timeout(600)
def test_embedded_it_tells_the_page_around_it(shown):
    address, open_page = shown
    with open_page(viewport=SCREEN) as page:
        # Any page of the same origin will do.
        page.goto(address.rpartition("/viewer/")[0] + "/healthz")
        page.evaluate(
            """(address) => {
              window.received = [];
              addEventListener("message", (event) => window.received.push(event.data.wsiDenoise));
              const frame = document.createElement("iframe");
              Object.assign(frame, { src: address, width: 900, height: 600, id: "frame" });
              document.body.replaceChildren(frame);
            }""",
            f"{address}?x=300&y=400&zoom=2",
        )
        frame = page.frame_locator("#frame")
        frame.locator("html[data-ready=true]").wait_for(state="attached", timeout=PATIENCE)
        frame.locator("#slide").press("d")
        page.wait_for_function("window.received.at(-1)?.mode === 'difference'")
        told = page.evaluate("window.received.at(-1)")
        assert (float(told["x"]), float(told["y"]), float(told["zoom"])) == pytest.approx((300, 400, 2), abs=0.6)
