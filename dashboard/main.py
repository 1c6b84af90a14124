"""The frame of every page: navigation, look, and what is said below. Streamlit runs this file for every visitor."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard import context, look
from dashboard.signing_in import LEAVE
from dashboard.words import escaped
from wsi_denoise import NOTICE, __version__

# Not a folder "pages": Streamlit would serve what is in one by itself, past this file.
SCREENS = Path(__file__).with_name("screens")

st.set_page_config(page_title="wsi-denoise", layout="wide")
st.html(look.STYLE)
page = st.navigation(
    [
        st.Page(SCREENS / "queue.py", title="Queue", url_path="queue", default=True),
        st.Page(SCREENS / "compare.py", title="Compare", url_path="compare"),
        st.Page(SCREENS / "history.py", title="History", url_path="history"),
        st.Page(SCREENS / "quality.py", title="Quality", url_path="quality"),
        st.Page(SCREENS / "system.py", title="System", url_path="system"),
    ],
    position="top",
)
page.run()
who = st.user.to_dict().get("email") if context.settings().dashboard.people else None
leave = f' Signed in as {escaped(who)}. <a href="{LEAVE}" target="_self">Sign out</a>' if who else ""
st.html(f'<p class="wd-foot">{NOTICE.capitalize()}. wsi-denoise {__version__}.{leave}</p>')
