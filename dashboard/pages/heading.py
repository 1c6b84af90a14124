"""Name of a page: the browser's tab and the page's first heading."""

from __future__ import annotations

import streamlit as st

from dashboard.pages.words import escaped, visible

PROGRAM = "wsi-denoise"


def heading(name: str, about: str = "", mark: str = "", *, tab_only: bool = False) -> None:
    """Draw a page's heading and name its tab.

    Parameters
    ----------
    name : str
        Of the page.
    about : str
        What the page is about, such as a slide; its text is drawn as text.
    mark : str
        HTML behind the heading.
    tab_only : bool
        The heading leaves out what the page is about.
    """
    title = f"{about}: {name}" if about else name
    st.set_page_config(page_title=f"{visible(title)} · {PROGRAM}", layout="wide")
    shown = f"{name}: {escaped(about)}" if about and not tab_only else name
    st.html(f'<div class="wd"><h1>{shown} {mark}</h1></div>')
