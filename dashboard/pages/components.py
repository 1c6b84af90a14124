"""The dashboard's own components: a little JavaScript each, without a library, served from this package only.

Data goes in as plain values and is shown as text; an action of the user comes back as one small event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

_FOLDER = Path(__file__).parents[1] / "static"


@cache
def _component(name: str) -> Callable[..., Any]:
    def read(suffix: str) -> str:
        return "\n".join(
            file.read_text("utf-8")
            for file in (_FOLDER / f"common{suffix}", _FOLDER / f"{name}{suffix}")
            if file.exists()
        )

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
