"""The page in a real browser: the view of a real store, and its updates."""

import pytest

from wsi_denoise.errors import TruncatedSlide


@pytest.mark.timeout(400)
def test_the_queue_is_shown_and_stays_up_to_date(lab, see_in_lab, open_page):
    store, see, url = lab.store, see_in_lab, lab.url
    see("waiting.svs")
    broken = see("broken.svs")
    store.quarantine(broken.id, TruncatedSlide("at byte 7"), "daemon:1")
    store.pause("person:cli", "<b>*coffee*</b>")
    with open_page() as page:
        page.goto(url)
        waiting = page.get_by_role("list", name="Waiting jobs")
        waiting.get_by_text("waiting.svs").wait_for()
        ended = page.get_by_role("list", name="Last finished jobs").get_by_role("listitem")
        assert "broken.svs" in ended.first.inner_text()
        assert "quarantined" in ended.first.inner_text()
        page.get_by_text("Research use only, derived image").wait_for()
        page.get_by_text("No daemon is running").wait_for()
        # A reason is text, whatever a user typed.
        page.get_by_text("<b>*coffee*</b>").wait_for()
        see("later.svs")
        store.resume("person:cli")
        waiting.get_by_text("later.svs").wait_for()
        page.get_by_text("The queue is paused").wait_for(state="hidden")
        assert not page.foreign, "the page asked another machine"
        assert not page.errors
    assert "WARNING" not in (lab.folder / "terminal").read_text()


@pytest.mark.timeout(400)
def test_of_many_running_slides_the_queue_says_how_many_more_there_are(lab, see_in_lab, open_page):
    store, see, url = lab.store, see_in_lab, lab.url
    for number in range(10):
        job = see(f"runs {number}.svs")
        given = {"settings": {}, "settings_hash": "s", "preset": "paper", "origin": "daemon:1"}
        store.queue(job.id, fingerprint=f"{number:064x}", **given)
        assert store.claim(store.register_daemon(), 600, only=job.id)
    with open_page() as page:
        page.goto(url)
        running = page.get_by_role("region", name="Running")
        running.get_by_text("and 2 more").wait_for()
        assert running.get_by_role("progressbar").count() == 8
        assert not page.errors
