"""The viewer at 100 %: a pixel of the slide is a pixel of the screen, on every display, layer and path to it."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from support.processed import process

RATIOS = [1, 1.25, 1.5, 2]
# Odd sizes: neither the screen nor its parts have a whole number of pixels at 1.25 and 1.5.
SCREEN = {"width": 1003, "height": 701}
GREY = 128

CANVAS = """() => {
  const canvas = document.querySelector("#slide canvas");
  const { width, height } = canvas;
  const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  let text = "";
  for (let at = 0; at < data.length; at += 32768) text += String.fromCharCode(...data.subarray(at, at + 32768));
  return [width, height, btoa(text)];
}"""


@pytest.fixture(scope="module")
def shown(serve, open_page, tmp_path_factory):
    """The viewer of a slide with noise: (its address, what opens a tab, the job's pixels)."""
    case = process(tmp_path_factory.mktemp("lab"), levels=0)
    with serve(case.folder) as url:
        yield f"{url}viewer/{case.job.id}", open_page, case
    case.store.close()


def canvas_of(frame):
    """Return the canvas, (height, width, 3) int, once nothing moves and everything is loaded; black where empty."""
    frame.locator("html[data-ready=true]").wait_for(state="attached")
    width, height, data = frame.locator("html").evaluate(f"() => ({CANVAS})()")
    pixels = np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)
    return pixels[..., :3].astype(int)


def values(page):
    return dict(re.findall(r"(\w+)=([^&]+)", page.url.partition("?")[2]))


def place_of(page):
    """Return (left, top): the slide's corner in screen pixels, from the centre that the address names."""
    at = values(page)
    assert float(at["zoom"]) == 1, at
    width, height = page.locator("#slide").evaluate(
        "(one) => [one.clientWidth, one.clientHeight].map((side) => side * devicePixelRatio)"
    )
    return width / 2 - float(at["x"]), height / 2 - float(at["y"])


def expected(slide, corner, shape):
    """Return the canvas that shows a slide with its corner at (left, top), one to one."""
    canvas = np.zeros((*shape[:2], 3), slide.dtype)
    left, top = corner
    rows, columns = slice(max(0, -top), shape[0] - top), slice(max(0, -left), shape[1] - left)
    part = slide[rows, columns]
    canvas[max(0, top) :, max(0, left) :][: part.shape[0], : part.shape[1]] = part
    return canvas


def corner_of(page, canvas, *drawn, error=0):
    """Return the corner, (left, top), at which the canvas is the slide; it is where the address says.

    Two slides are the left and the right half. Two columns beside the middle are left out then.
    """
    left, top = place_of(page)
    near = [(round(left) + dx, round(top) + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
    middle = round(page.locator("#slide").evaluate("(one) => one.clientWidth * devicePixelRatio") / 2)
    parts = [slice(None)] if len(drawn) == 1 else [slice(0, middle - 2), slice(middle + 2, None)]
    errors = {}
    for corner in near:
        wanted = [expected(slide, corner, canvas.shape) for slide in drawn]
        errors[corner] = max(
            np.abs(canvas[:, part] - one[:, part]).max() for one, part in zip(wanted, parts, strict=True)
        )
        if errors[corner] <= error:
            return corner
    raise AssertionError(f"no place at which the canvas is the slide: largest errors {errors}")


def statistics(pixels):
    """Return the standard deviation, and the correlation of neighbours along a row, of what differs from clean."""
    return pixels.std(), np.corrcoef(pixels[:, :-1].ravel(), pixels[:, 1:].ravel())[0, 1]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("ratio", RATIOS)
def test_at_100_percent_a_pixel_of_the_slide_is_a_pixel_of_the_screen(shown, ratio):
    address, open_page, case = shown
    before, after = case.before.astype(int), case.after.astype(int)
    with open_page(viewport=SCREEN, device_scale_factor=ratio) as page:
        page.goto(f"{address}?x=351.3&y=449.8&zoom=1&mode=flip&side=before")
        canvas = canvas_of(page)
        assert page.evaluate("devicePixelRatio") == ratio
        corner = corner_of(page, canvas, before)
        assert page.locator("#zoom").inner_text() == "100 %, pixel for pixel"
        # What the screen shows is the canvas, without another interpolation.
        for part in ("#curtain", "#left", "#right", "#corner", "#overview", "#over"):
            page.locator(part).evaluate("(part) => { part.style.visibility = 'hidden'; }")
        picture = page.locator("#slide canvas").screenshot()
        screen = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
        top, left = max(0, corner[1]) + 5, max(0, corner[0]) + 5
        area = (slice(top, top + 300), slice(left, left + 300))
        assert found_in(screen, canvas[area], (top, left))

        # The noise is that of the file.
        rows, columns = slice(max(0, corner[1]), corner[1] + 900), slice(max(0, corner[0]), corner[0] + 700)
        seen = canvas[rows, columns]
        top, left = max(0, -corner[1]), max(0, -corner[0])
        clean = after[top : top + seen.shape[0], left : left + seen.shape[1]]
        noisy = before[top : top + seen.shape[0], left : left + seen.shape[1]]
        assert statistics(seen - clean) == pytest.approx(statistics(noisy - clean), abs=1e-9)

        # The other side, the curtain and the blend.
        page.locator("#slide").press("f")
        corner_of(page, canvas_of(page), after)
        page.locator("#slide").press("c")
        corner_of(page, canvas_of(page), before, after)
        page.locator("#slide").press("o")
        corner_of(page, canvas_of(page), (before + after) / 2, error=1.5)  # the browser rounds

        # The difference; its mean and its root mean square are the same at 100 %, but for the sign.
        page.locator("#slide").press("d")
        change = 4 * (before - after)
        corner_of(page, canvas_of(page), np.clip(GREY + change, 0, 255))
        page.get_by_role("combobox", name="Of").select_option("rms")
        corner_of(page, canvas_of(page), np.clip(np.abs(change), 0, 255))
        assert not page.errors


@pytest.mark.timeout(900)
@pytest.mark.parametrize("ratio", RATIOS)
def test_every_way_to_100_percent_leads_to_the_same_pixels(shown, ratio):
    address, open_page, case = shown
    before = case.before.astype(int)
    with open_page(viewport=SCREEN, device_scale_factor=ratio) as page:
        page.goto(f"{address}?mode=flip&side=before")
        canvas_of(page)
        page.get_by_role("button", name="1:1").click()
        corner_of(page, canvas_of(page), before)
        # A pan by a fraction of a pixel.
        box = page.locator("#slide").bounding_box()
        x, y = box["x"] + 400, box["y"] + 300
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x - 31.4, y - 17.7, steps=5)
        page.mouse.up()
        corner = corner_of(page, canvas_of(page), before)
        # A wheel in and out, another zoom, and 1:1 again.
        page.mouse.wheel(0, -300)
        page.wait_for_function("!document.querySelector('#zoom').textContent.startsWith('100 %')")
        canvas_of(page)
        page.locator("#slide").press("1")
        page.get_by_text("pixel for pixel").wait_for()
        corner_of(page, canvas_of(page), before)
        for key in "+", "-":
            page.locator("#slide").press(key)
            page.locator("html[data-ready=false]").wait_for(state="attached")
            canvas_of(page)
        corner = corner_of(page, canvas_of(page), before)
        # The link, in a fresh window.
        link = page.url
        with open_page(viewport=SCREEN, device_scale_factor=ratio) as fresh:
            fresh.goto(link)
            assert corner_of(fresh, canvas_of(fresh), before) == corner
            # A window of another size keeps whole pixels.
            fresh.set_viewport_size({"width": 806, "height": 599})
            fresh.wait_for_function("innerWidth === 806 && innerHeight === 599")
            fresh.wait_for_function(
                "() => { const one = document.querySelector('#slide canvas');"
                " return Math.abs(one.width - one.clientWidth * devicePixelRatio) < 1.01; }"
            )
            corner_of(fresh, canvas_of(fresh), before)
            assert not fresh.errors
        assert not page.errors


def found_in(screen, part, near):
    """Whether a part of the canvas is on the screenshot, within two pixels of its place on the canvas."""
    height, width = part.shape[:2]
    places = [(near[0] + dy, near[1] + dx) for dy in range(-2, 3) for dx in range(-2, 3)]
    return any(np.array_equal(screen[top : top + height, left : left + width], part) for top, left in places)
