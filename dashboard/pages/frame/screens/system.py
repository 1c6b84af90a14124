"""System: what runs where, with which settings and models, and whether everything that is needed is there."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from dashboard import context
from dashboard.pages import system_view
from dashboard.pages.heading import heading
from dashboard.pages.words import escaped, for_page, in_markdown, when
from wsi_denoise import doctor as examination
from wsi_denoise.errors import WsiDenoiseError
from wsi_denoise.network import weights
from wsi_denoise.settings import Loaded

DAEMONS = 10
REFRESH_SECONDS = 5.0
DOCTOR_SECONDS = 2.0


@st.cache_resource(show_spinner=False)
def doctor() -> system_view.Doctor:
    """Return the doctor: one for every visitor, so that ten open pages do not make ten looks."""
    return system_view.Doctor(lambda: examination.examine(Loaded(context.settings(), context.origins())))


def html(body: str) -> None:
    """Draw a part of the page."""
    st.html(f'<div class="wd">{body}</div>')


@st.fragment(run_every=REFRESH_SECONDS)
def machines() -> None:
    """Draw what runs where; stays up to date."""
    settings, store = context.settings(), context.store()
    try:
        known = store.daemons(stopped=True)[:DAEMONS]
    except WsiDenoiseError as error:
        st.error(in_markdown(for_page(str(error))), icon=":material/database_off:")
        return
    if known:
        html(f"<h2>Daemons, workers and devices</h2>{system_view.daemons(known, datetime.now(UTC), settings)}")
    else:
        html("<h2>Daemons, workers and devices</h2><p>No daemon has ever been started here: wsi-denoise up.</p>")
    html(f"<h2>Room on the disks</h2>{system_view.disks(settings)}")


@st.fragment(run_every=DOCTOR_SECONDS)
def findings() -> None:
    """Draw what the doctor found."""
    looks = doctor()
    if looks.findings is None and not looks.busy:
        looks.look()
    found = looks.findings
    head, button = st.columns([4, 1], vertical_alignment="center")
    with head:
        at = f"Checked at {when(found.at)}." if found else ""
        html(f"<h2>Checks</h2><p>{'Checking; this takes up to half a minute.' if looks.busy else at}</p>")
    button.button("Check again", key="look", disabled=looks.busy, on_click=looks.look, width="stretch")
    if found is not None and found.error:
        html(f"<p>{escaped(found.error)}</p>")
    elif found is not None:
        html(system_view.checks(found.checks))


def chosen_settings() -> None:
    """Draw the settings."""
    html("<p>Later wins: defaults, wsi-denoise.toml, WSI_DENOISE_ variables, flags.</p>")
    only = st.toggle("Only those that are not the default", key="changed", bind="query-params")
    html(system_view.settings(context.settings(), context.origins(), changed_only=only))


def models() -> None:
    """Draw the presets."""
    html(
        "<p>PSNR and SSIM on images that were not trained on, with noise of a known strength. Noisy is "
        "the image as it came, denoised what the preset made of it: higher is better.</p>"
    )
    for card in weights.presets():
        with st.expander(card.name, expanded=card.name == context.settings().model.preset):
            html(system_view.model(card))


heading("System")
state, options, presets, versions = st.tabs(
    ["Machines", "Settings", "Models", "Versions"], key="tab", on_change="rerun", bind="query-params"
)
with state:
    machines()
    findings()
with options:
    chosen_settings()
with presets:
    models()
with versions:
    html(system_view.versions())
