"""Frame of every page: navigation, style and footer. Streamlit runs this file for every visitor."""

from __future__ import annotations

from importlib import import_module
from urllib.parse import unquote

import streamlit as st

from dashboard.access.addresses import PAGES, START
from dashboard.guard import LOGOUT, USER_HEADER
from dashboard.pages import theme
from dashboard.pages.components import PROGRAM
from dashboard.pages.markup import escape
from wsi_denoise import NOTICE, __version__

st.set_page_config(page_title=PROGRAM, layout="wide")
st.html(theme.STYLE)
pages = [
    st.Page(
        import_module(f"dashboard.pages.{name}").draw, title=name.capitalize(), url_path=name, default=name == START
    )
    for name in PAGES
]
st.navigation(pages, position="top").run()
user = unquote(st.context.headers.get(USER_HEADER) or "")
signed_in = f" Signed in as {escape(user)}." if "@" in user else ""
leave = f'{signed_in} <a href="{LOGOUT}" target="_self">Sign out</a>' if user else ""
st.html(f'<p class="wd-foot">{NOTICE.capitalize()}. wsi-denoise {__version__}.{leave}</p>')
