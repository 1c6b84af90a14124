"""The frame of every page: navigation, look, and what is said below. Streamlit runs this file for every visitor."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import streamlit as st

from dashboard.access.addresses import PAGES, START
from dashboard.guard import LOGOUT, USER_HEADER
from dashboard.pages import theme as look
from dashboard.pages.heading import PROGRAM
from dashboard.pages.words import escaped
from wsi_denoise import NOTICE, __version__

# Not a folder "pages": Streamlit would serve its files automatically, past this file.
SCREENS = Path(__file__).with_name("screens")

st.set_page_config(page_title=PROGRAM, layout="wide")
st.html(look.STYLE)
page = st.navigation(
    [st.Page(SCREENS / f"{one}.py", title=one.capitalize(), url_path=one, default=one == START) for one in PAGES],
    position="top",
)
page.run()
user = unquote(st.context.headers.get(USER_HEADER) or "")
signed_in = f" Signed in as {escaped(user)}." if "@" in user else ""
leave = f'{signed_in} <a href="{LOGOUT}" target="_self">Sign out</a>' if user else ""
st.html(f'<p class="wd-foot">{NOTICE.capitalize()}. wsi-denoise {__version__}.{leave}</p>')
