"""Signing in by OIDC: Streamlit does it (``[auth]`` in secrets.toml), and its cookie opens pages and routes alike.

Streamlit itself asks nobody to sign in, and lets in everybody whom the provider knows. Here the guard in front of
everything reads the cookie that Streamlit signs, and lets in the people of ``dashboard.people``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response

from wsi_denoise.errors import SettingsInvalid
from wsi_denoise.settings import DashboardSettings

START = "/login/oidc"
LEAVE = "/auth/logout"
STREAMLITS = frozenset({"/auth/login", LEAVE, "/oauth2callback"})
"""Where Streamlit takes somebody to the provider and back: open to everybody, else nobody could sign in."""

_DEFAULT = "default"
_LEAST_SECRET = 16


@dataclass(frozen=True)
class SigningIn:
    """Who may come in by signing in.

    Parameters
    ----------
    people : tuple of str
        Addresses, or ``@domain`` for everybody of one; in lower case.
    providers : tuple of str
        As secrets.toml names them.
    """

    people: tuple[str, ...]
    providers: tuple[str, ...]

    def who(self, cookies: str) -> str | None:
        """Return the address of who has signed in, by the request's ``Cookie`` header; None for nobody."""
        from streamlit.auth_util import get_cookie_with_chunks  # noqa: PLC0415 - seconds
        from streamlit.web.server.server_util import get_cookie_secret  # noqa: PLC0415
        from streamlit.web.server.starlette.starlette_app_utils import decode_signed_value  # noqa: PLC0415
        from streamlit.web.server.starlette.starlette_server_config import USER_COOKIE_NAME  # noqa: PLC0415

        given = cookie_parser(cookies)
        secret = get_cookie_secret()
        if USER_COOKIE_NAME not in given or not secret:
            return None

        def one(name: str) -> bytes | None:
            value = given.get(name)
            return None if value is None else decode_signed_value(secret, name, value.encode("latin-1", "replace"))

        signed = get_cookie_with_chunks(one, USER_COOKIE_NAME)
        try:
            said = json.loads(signed) if signed else None
        except ValueError:
            return None
        if not isinstance(said, dict) or said.get("is_logged_in") is not True:
            return None
        address = said.get("email")
        # A provider that says it did not check the address vouches for nobody. Some say it as text.
        verified = str(said.get("email_verified", True)).lower() == "true"
        return address if isinstance(address, str) and verified else None

    def allows(self, address: str | None) -> bool:
        """Return whether somebody of this address may come in."""
        if not address:
            return False
        low = address.lower()
        return low in self.people or f"@{low.rpartition('@')[2]}" in self.people

    def start(self, provider: str = "") -> Response | None:
        """Return what leads to the provider, or None where there is none of that name."""
        from streamlit.auth_util import encode_provider_token  # noqa: PLC0415

        chosen = provider or self.providers[0]
        if chosen not in self.providers:
            return None
        return RedirectResponse(f"/auth/login?provider={encode_provider_token(chosen)}", 303)


def prepare(page: DashboardSettings) -> SigningIn | None:
    """Return how people sign in, or None where nobody may.

    Raises
    ------
    SettingsInvalid
        When people are named, and there is no provider that could say who is who.
    """
    if not page.people:
        return None
    from streamlit.auth_util import get_secrets_auth_section, is_authlib_installed  # noqa: PLC0415

    if not is_authlib_installed():
        raise SettingsInvalid('dashboard.people is set, and Authlib is missing: pip install "wsi-denoise[oidc]"')
    told = get_secrets_auth_section().to_dict()
    providers = _providers(told)
    if not providers or "redirect_uri" not in told:
        raise SettingsInvalid(
            "dashboard.people is set, and .streamlit/secrets.toml has no [auth] with redirect_uri, cookie_secret,"
            " client_id, client_secret and server_metadata_url"
        )
    if len(str(told.get("cookie_secret", ""))) < _LEAST_SECRET:
        raise SettingsInvalid(
            f"[auth] cookie_secret in .streamlit/secrets.toml has less than {_LEAST_SECRET} characters"
        )
    return SigningIn(tuple(one.strip().lower() for one in page.people), providers)


def _providers(told: dict[str, object]) -> tuple[str, ...]:
    named = [name for name, value in told.items() if isinstance(value, dict) and "client_id" in value]
    return (*([_DEFAULT] if "client_id" in told else []), *named)


def links(providers: Sequence[str]) -> list[tuple[str, str]]:
    """Return (address, words) of a link for each provider."""
    if len(providers) == 1:
        return [(START, "Sign in")]
    return [(f"{START}?provider={name}", f"Sign in with {name}") for name in providers]
