"""Parts that every page uses: heading, error, HTML, and our own components.

A component is a little JavaScript from this package. Data goes in as plain values and is shown as text; an action of
the user comes back as one small event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.access.addresses import START
from dashboard.pages.markup import escape
from dashboard.pages.words import for_page, in_markdown, visible
from wsi_denoise.errors import WsiDenoiseError

PROGRAM = "wsi-denoise"
ORIGIN = "person:page"
"""Author of a user's actions, in the events of a job."""

KEPT = {"bind": "query-params", "persist_state": "session"}
"""Options of a filter: it is part of the address, and is kept while the user visits other pages."""

_FOLDER = Path(__file__).parents[1] / "static"


def heading(name: str, about: str = "", mark: str = "", *, tab_only: bool = False) -> None:
    """Draw a page's heading and name its tab.

    Parameters
    ----------
    name, about : str
        The page and its subject, such as a slide, as text.
    mark : str
        HTML behind the heading.
    tab_only : bool
        Only the tab names the subject.
    """
    title = f"{about}: {name}" if about else name
    st.set_page_config(page_title=f"{visible(title)} · {PROGRAM}", layout="wide")
    shown = f"{name}: {escape(about)}" if about and not tab_only else name
    html(f"<h1>{shown} {mark}</h1>")


def html(body: str) -> None:
    """Draw HTML in the style of the pages."""
    st.html(f'<div class="wd">{body}</div>')


def show_error(error: WsiDenoiseError) -> None:
    """Draw an error instead of what could not be drawn."""
    st.error(in_markdown(for_page(str(error))), icon=":material/error:")


def open_page(name: str, job: int | None = None) -> None:
    """Leave for another page, or for a job on it."""
    # Streamlit finds a page by its address; the function is not called.
    page = st.Page(lambda: None, url_path=name, default=name == START)
    st.switch_page(page, query_params={"job": str(job)} if job else None)


@cache
def _component(name: str) -> Callable[..., Any]:
    def read(suffix: str) -> str:
        files = (_FOLDER / f"common{suffix}", _FOLDER / f"{name}{suffix}")
        return "\n".join(file.read_text("utf-8") for file in files if file.exists())

    made: Callable[..., Any] = st.components.v2.component(f"wsi_denoise_{name}", js=read(".js"), css=read(".css"))
    return made


def mount(
    name: str, data: Mapping[str, Any], *, key: str, act: Callable[[Mapping[str, Any]], None] | None = None
) -> None:
    """Put a component on the page.

    Parameters
    ----------
    name : str
        Of its files in ``static``.
    data : mapping
        Plain values.
    key : str
        The same key is the same component on the next run.
    act : callable, optional
        Called with the user's action, before the page is drawn again.
    """

    def changed() -> None:
        event = st.session_state[key].get("act")
        if act is not None and isinstance(event, Mapping):
            act(event)

    _component(name)(key=key, data=dict(data), on_act_change=changed)
