"""Names are text on every page, whatever is in them."""

import pytest

NAMES = (
    "<img src=x onerror=window.hacked=1>.svs",
    "<svg onload=window.hacked=1>.svs",
    "**bold** [link](javascript:window.hacked=1) $x^2$ :red[x] `code`.svs",
    "quotes \"double\" 'single' & &amp; {{braces}}.svs",
    "turned\u202egpj.svs",
    "line\nend\ttab.svs",
    "שקופית.svs",
)
SHOWN = (*NAMES[:4], "turned\\u202egpj.svs", "line\\nend\\ttab.svs", NAMES[6])

EVERYTHING = """() => {
  const texts = [];
  const walk = (root) => {
    for (const node of root.querySelectorAll("*")) {
      if (node.shadowRoot) walk(node.shadowRoot);
      if (node.matches("svg[onload]")) texts.push("MARKUP");
      if (node.matches("img[src=x]")) texts.push("MARKUP");
      for (const child of node.childNodes) if (child.nodeType === 3) texts.push(child.textContent);
    }
  };
  walk(document.body);
  return texts.join("\\n");
}"""


@pytest.fixture
def named(store, see, tmp_path):
    """Each name done; the first also waits."""
    daemon = store.register_daemon(device="<b>cpu</b>", host="<i>host</i>")
    facts = {"vendor": "<b>aperio</b>", "model": "*AT2*"}
    for number, name in enumerate(NAMES):
        job = see(name)
        queued = {"settings": {"a<b>": "<i>"}, "settings_hash": "s", "preset": "paper", "origin": "daemon:1"}
        store.queue(job.id, fingerprint=f"f{number}", **queued)
        assert store.claim(daemon, 600, only=job.id)
        store.set_slide_facts(job.id, 10, 10, None, facts)
        # Structure so far from the others that each second one is listed on Quality.
        metrics = {"sigma_before_wavelet": 9.0, "sigma_after_wavelet": 2.0, "structure_removed": 1.0}
        ended = {"output": tmp_path / name.replace("/", "_"), "output_sha256": "0"}
        store.finish(job.id, daemon, verdict="pass", reasons=[f"code: {name}"], metrics=metrics, **ended)
    for name in NAMES:
        see(f"waits/{name}")
    return store


def look(page, mark):
    page.get_by_text(mark).first.wait_for()
    text = page.evaluate(EVERYTHING)
    assert "MARKUP" not in text
    assert not page.evaluate("window.hacked"), "a name was run"
    return text


@pytest.mark.timeout(600)
def test_names_are_text_on_every_page(named, serve, open_page, tmp_path):
    with serve(tmp_path) as url, open_page(viewport={"width": 1440, "height": 900}) as page:
        page.goto(url)
        page.get_by_role("list", name="Last finished jobs").get_by_role("listitem").first.wait_for()
        text = look(page, "Last finished")
        for name in SHOWN:
            assert text.count(name) >= 2, name
        page.goto(f"{url}history")
        page.locator("tbody tr").first.wait_for()
        text = look(page, "Export what is filtered")
        for name in SHOWN:
            assert text.count(name) >= 2, name
        for number, name in enumerate(SHOWN, 1):
            page.goto(f"{url}history?job={number}")
            page.get_by_role("heading", name=f"Job {number}").wait_for()
            assert name in look(page, "Events")
            page.goto(f"{url}compare?job={number}")
            page.get_by_text("Metrics").wait_for()
            assert name in look(page, "Origin of the result")
        page.goto(f"{url}compare")
        page.get_by_role("combobox", name="Slide").click()
        options = page.get_by_role("option").all_inner_texts()
        for name in SHOWN:
            assert any(option.startswith(name) for option in options), name
        page.goto(f"{url}quality?within=any+time")
        look(page, "7 slides.")
        page.goto(f"{url}system")
        text = look(page, "Daemons, workers and devices")
        assert "<i>host</i>" in text
        assert not page.foreign
        assert not page.errors
