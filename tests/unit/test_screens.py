"""The pages as Streamlit runs them, without a browser."""

from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard import context
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.settings import load

SCREENS = Path(__file__).parents[2] / "dashboard" / "screens"


@pytest.fixture
def lab(tmp_path):
    """The settings of a working folder without a database, which the pages are shown for."""
    made = load(folder=tmp_path, environ={}).settings
    context.use(made)
    st.cache_data.clear()
    yield made
    context.store().close()
    st.cache_data.clear()


@pytest.fixture
def store(lab):
    made = JobStore(lab.database_url)
    made.upgrade()
    yield made
    made.close()


def shown(name):
    return AppTest.from_file(SCREENS / f"{name}.py", default_timeout=60).run()


def errors(page):
    return [error.value for error in page.error]


@pytest.mark.parametrize("name", ["queue", "compare", "history", "quality", "system"])
def test_a_database_that_cannot_be_opened_is_said_and_is_no_program_error(lab, name):
    page = shown(name)
    assert not page.exception
    assert any("database" in error for error in errors(page)), errors(page)
