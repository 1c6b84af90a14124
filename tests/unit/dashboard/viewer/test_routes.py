"""The viewer's page and files."""

import re

from dashboard.viewer import openseadragon


def test_the_viewer_runs_no_script_but_its_own(client, case):
    page = client.get(f"/viewer/{case.job.id}")
    assert page.status_code == 200, "OpenSeadragon is missing: python -m dashboard.viewer.openseadragon"
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'self'" in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", page.text)
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
        assert client.get(path).status_code == 200, path


def test_without_its_library_the_viewer_says_so(client, case, monkeypatch, tmp_path):
    monkeypatch.setattr(openseadragon, "SCRIPT", tmp_path / "openseadragon.min.js")
    page = client.get(f"/viewer/{case.job.id}")
    assert page.status_code == 503
    assert "wsi-denoise doctor" in page.text
