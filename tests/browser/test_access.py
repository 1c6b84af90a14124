"""axe-core finds no serious violation of ours on any page, in either theme."""

import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from wsi_denoise.errors import BlockKillsWorker

VERSION = "4.10.3"
INTEGRITY = "Xm7bpRXnDSX2YE2YFfBk2FnF0ep6tmG7xPh8iHee8MIcrgq762Nkce856dYtJYLkuIoYZvGfTs/PbZhideTcEg=="
"""SHA-512 of the package, in base64, as npm publishes it. It is for tests only: never shipped, never in git."""

FILE = Path(__file__).parents[2] / "build" / f"axe-core-{VERSION}.min.js"

SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def axe():
    """The script of axe-core, got once through npm and checked against its digest."""
    if not FILE.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("axe-core is got through npm, which is not here")
        with tempfile.TemporaryDirectory() as folder:
            command = [npm, "pack", f"axe-core@{VERSION}", "--pack-destination", folder, "--ignore-scripts", "--silent"]
            try:
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
            except subprocess.TimeoutExpired:
                pytest.skip("npm does not answer")
            if done.returncode:
                pytest.skip(f"npm could not get axe-core {VERSION}: {done.stderr.strip()[-200:]}")
            packed = next(Path(folder).glob("*.tgz")).read_bytes()
        assert base64.b64encode(hashlib.sha512(packed).digest()).decode() == INTEGRITY
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            script = archive.extractfile("package/axe.min.js").read()
        FILE.parent.mkdir(exist_ok=True)
        part = FILE.with_suffix(".part")
        part.write_bytes(script)
        part.rename(FILE)
    return FILE.read_text("utf-8")


@pytest.fixture
def some(store, see, tmp_path):
    """One job of each kind that looks different."""
    daemon = store.register_daemon(device="cpu, openvino", facts={"cluster": "2 workers"})
    metrics = {"sigma_before_wavelet": 9.0, "sigma_after_wavelet": 2.0, "structure_removed": 9.0, "codec_psnr": 44.0}

    def queued(name):
        job = see(name).id
        given = {"settings": {"output.quality": 95}, "settings_hash": "s", "preset": "paper", "origin": "daemon:1"}
        store.queue(job, fingerprint=name, **given)
        return job

    for number, verdict in enumerate(("pass", "review", "not_needed", *["pass"] * 6)):
        job = queued(f"done {number}.svs")
        assert store.claim(daemon, 600, only=job)
        store.set_slide_facts(job, 1000, 800, (0.25, 0.25), {"vendor": "aperio", "scan_week": "2026-W09"})
        ended = {"output": tmp_path / f"{number}.tiff", "output_sha256": "0"}
        changed = metrics | {"structure_removed": 50.0 if number == 1 else 1.0}
        store.finish(job, daemon, verdict=verdict, reasons=["noise_left: sigma 9."], metrics=changed, **ended)
    failing = queued("failed.svs")
    assert store.claim(daemon, 600, only=failing)
    store.fail(failing, BlockKillsWorker("row 1"), f"daemon:{daemon}", holder=daemon)
    see("settling.svs")
    queued("waits.svs")
    running = queued("runs.svs")
    assert store.claim(daemon, 600, only=running)
    store.set_slide_facts(running, 9000, 8000, None)
    store.progress(running, daemon, 3, 30, rate=1.5, seconds_left=70)
    store.pause("person:cli", "lunch")
    return store


PAGES = {
    "": "lunch",
    "history": "Export what is filtered",
    "history?job=2": "Attempts",
    "compare?job=2": "Origin of the result",
    "quality": "Noise of each scanner over time",
    "system": "Free space",
}

RUN = """async () => {
  const found = await axe.run(document, { resultTypes: ["violations"], iframes: false });
  return found.violations
    .filter((rule) => ["serious", "critical"].includes(rule.impact))
    .flatMap((rule) => rule.nodes.map((node) => [rule.id, node.target.flat().join(" "), node.html.slice(0, 160)]));
}"""


@pytest.mark.timeout(900)
def test_no_page_has_a_serious_violation_of_ours(axe, some, serve, open_page, tmp_path):
    found = []
    with serve(tmp_path) as url:
        for scheme in SCHEMES:
            for address, mark in PAGES.items():
                with open_page(color_scheme=scheme, viewport={"width": 1440, "height": 900}) as page:
                    page.goto(url + address)
                    page.get_by_text(mark).first.wait_for()
                    page.wait_for_timeout(1500)  # transitions of colour: axe measures what it sees
                    page.evaluate(axe)
                    found += [(scheme, address, *one) for one in page.evaluate(RUN)]
    assert not found, json.dumps(found, indent=1)


@pytest.mark.timeout(900)
def test_the_viewer_has_none_either(axe, processed, serve, open_page):
    case = processed()
    found = []
    with serve(case.folder) as url:
        for scheme in SCHEMES:
            with open_page(color_scheme=scheme, viewport={"width": 1440, "height": 900}) as page:
                page.goto(f"{url}compare?job={case.job.id}")
                frame = page.frame_locator("iframe")
                frame.locator("html[data-ready=true]").wait_for(state="attached")
                inside = next(one for one in page.frames if "/viewer/" in one.url)
                assert inside.evaluate("document.documentElement.dataset.theme") == scheme
                inside.evaluate(axe)
                for step in ("", "f", "o", "d", "m", "?"):
                    if step:
                        frame.locator("#slide").press(step)
                    page.wait_for_timeout(500)
                    found += [(scheme, step, *one) for one in inside.evaluate(RUN)]
    assert not found, json.dumps(found, indent=1)
