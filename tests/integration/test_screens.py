"""The pages as Streamlit runs them, without a browser."""

import sys

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard import context
from wsi_denoise.settings import load


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """The settings of a working folder without a database, which the pages are shown for."""
    # Streamlit leaves a page behind as the main module, which processes that later tests start would run.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    made = load(folder=tmp_path, environ={}).settings
    context.use(made)
    st.cache_data.clear()
    yield made
    context.store().close()
    st.cache_data.clear()


def shown(name, **asked):
    page = AppTest.from_string(f"from dashboard.pages import {name}; {name}.draw()", default_timeout=60)
    for key, value in asked.items():
        page.query_params[key] = value
    return page.run()


def texts(page):
    return " ".join(one.proto.body for one in page.get("html"))


def errors(page):
    return [error.value for error in page.error]


@pytest.mark.parametrize("name", ["queue", "compare", "history", "quality", "system"])
def test_a_database_that_cannot_be_opened_is_said_and_is_no_program_error(settings, name):
    page = shown(name)
    assert not page.exception
    assert any("database" in error for error in errors(page)), errors(page)


def test_the_trend_says_what_it_leaves_out(store, tmp_path):
    daemon = store.register_daemon()
    for number in range(10):
        job = store.see(f"/in/{number}", f"{number}", size_bytes=1, mtime_ns=1, preset="paper", origin="test").id
        given = {"settings": {}, "settings_hash": "s", "preset": "paper", "origin": "test"}
        store.queue(job, fingerprint=f"{number:064x}", **given)
        store.claim(daemon, 60, only=job)
        store.set_slide_facts(job, 1000, 800, None, {"vendor": f"scanner {number}"})
        ended = {"output": tmp_path / f"{number}.tiff", "output_sha256": "0", "reasons": []}
        store.finish(job, daemon, verdict="pass", metrics={"sigma_before_wavelet": 9.0}, **ended)
    page = shown("quality")
    assert not page.exception
    assert not page.error
    assert "2 others with 2 slides are left out" in texts(page)


def test_a_job_is_shown_with_its_actions(store):
    job = store.see("/in/a.svs", "a.svs", size_bytes=1, mtime_ns=1, preset="paper", origin="test")
    page = shown("history", job=str(job.id))
    assert not page.exception
    assert f"Job {job.id}" in texts(page)
    assert "Brought in by" in texts(page)
    page.button(key="cancel").click().run()
    assert store.job(job.id).state == "cancelled"
    assert "finds no file" in page.warning[0].value
    page.button(key="retry").click().run()
    assert store.job(job.id).state == "settling"
    assert not page.exception
    assert "There is no job 4711" in texts(shown("history", job="4711"))


def test_compare_says_that_a_job_is_not_done(store):
    job = store.see("/in/a.svs", "a.svs", size_bytes=1, mtime_ns=1, preset="paper", origin="test")
    page = shown("compare", job=str(job.id))
    assert not page.exception
    assert "There is nothing to compare" in texts(page)
