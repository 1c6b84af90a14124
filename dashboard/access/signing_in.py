"""Sign-in by OpenID Connect, through Authlib's client for Starlette.

The providers stand in ``[auth]`` of ``.streamlit/secrets.toml``, in the form that Streamlit documents. Streamlit's own
sign-in is not used: it admits every user that the provider knows.
"""

from __future__ import annotations

import logging
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from wsi_denoise.errors import SettingsInvalid
from wsi_denoise.settings import DashboardSettings

START = "/login/oidc"
CALLBACK = "/oauth2callback"
"""Where the provider sends the browser back to, as Streamlit's documentation has it in ``redirect_uri``."""

SECRETS = Path(".streamlit", "secrets.toml")

_DEFAULT = "default"
_SHORTEST_SECRET = 16
_PROVIDER, _TARGET = "asked_provider", "target"
"""Kept in the session while a user is at a provider."""

_log = logging.getLogger(__name__)


class SignInFailed(Exception):
    """The provider did not identify the user; the text is for the user."""

    def __init__(self, text: str, status: int = 401) -> None:
        super().__init__(text)
        self.text, self.status = text, status


@dataclass(frozen=True)
class SigningIn:
    """Users who may sign in, and providers.

    Parameters
    ----------
    people : tuple of str
        Addresses, or ``@domain`` for all of a domain; in lower case.
    providers : tuple of str
        Their names in secrets.toml.
    redirect_uri : str
        As registered at the providers.
    secret : str
        ``cookie_secret`` of secrets.toml, which part of the key of sessions comes from.
    """

    people: tuple[str, ...]
    providers: tuple[str, ...]
    redirect_uri: str = ""
    secret: str = ""
    clients: Any = None

    def allows(self, address: str | None) -> bool:
        """Return whether a user with this address may see the dashboard."""
        if not address:
            return False
        low = address.lower()
        return low in self.people or f"@{low.rpartition('@')[2]}" in self.people

    async def start(self, request: Request, target: str) -> Response | None:
        """Return the redirection to a provider, or None for an unknown provider.

        Parameters
        ----------
        request : Request
            Its query may name the ``provider``.
        target : str
            Address on this page to show afterwards.

        Raises
        ------
        SignInFailed
        """
        chosen = request.query_params.get("provider") or self.providers[0]
        if chosen not in self.providers:
            return None
        request.session.clear()
        request.session.update({_PROVIDER: chosen, _TARGET: target})
        try:
            answer: Response = await self.clients.create_client(chosen).authorize_redirect(request, self.redirect_uri)
        except Exception as error:
            raise _unreachable(error) from error
        return answer

    async def finish(self, request: Request) -> tuple[str, str, str]:
        """Return the address of the user, the provider's name, and the address to show next.

        Raises
        ------
        SignInFailed
        """
        from authlib.integrations.starlette_client import OAuthError  # noqa: PLC0415 - optional

        chosen, target = request.session.get(_PROVIDER), request.session.get(_TARGET)
        if chosen not in self.providers or not isinstance(target, str):
            raise SignInFailed("This sign-in was not started here, or too long ago. Sign in again.")
        try:
            token = await self.clients.create_client(chosen).authorize_access_token(request)
        except OAuthError as error:
            _log.warning("the sign-in provider refused: %s", error.error)
            raise SignInFailed("The sign-in provider refused. Sign in again.") from error
        except Exception as error:
            raise _unreachable(error) from error
        address = verified_address(token.get("userinfo") or {})
        if address is None:
            raise SignInFailed("The sign-in provider gave no checked e-mail address.")
        return address, chosen, target

    def is_pending(self, session: Mapping[str, Any]) -> bool:
        """Return whether a user is at a provider."""
        return _PROVIDER in session

    async def leave(self, provider: str) -> str:
        """Return the address at which a provider ends its own session; empty if it names none."""
        if provider not in self.providers:
            return ""
        client = self.clients.create_client(provider)
        try:
            end = (await client.load_server_metadata()).get("end_session_endpoint")
        except Exception as error:  # noqa: BLE001 - any answer; the session here has ended
            _log.warning("the sign-in provider does not answer: %s", type(error).__name__)
            return ""
        query = urlencode({"client_id": client.client_id, "post_logout_redirect_uri": self.redirect_uri})
        return f"{end}{'&' if '?' in end else '?'}{query}" if isinstance(end, str) else ""

    def links(self, target: str) -> list[tuple[str, str]]:
        """Return (address, words) of a link for each provider."""
        after = "" if target == "/" else f"next={quote(target, safe='')}"
        if len(self.providers) == 1:
            return [(f"{START}?{after}".rstrip("?"), "Sign in")]
        return [
            (f"{START}?provider={quote(name)}&{after}".rstrip("&"), f"Sign in with {name}") for name in self.providers
        ]


def _unreachable(error: Exception) -> SignInFailed:
    # A provider may answer anything, and Authlib raises errors of four libraries.
    _log.warning("the sign-in provider does not answer as expected: %s", type(error).__name__)
    return SignInFailed("The sign-in provider does not answer as expected. Try again later.", 503)


def verified_address(claims: Mapping[str, Any]) -> str | None:
    """Return the address in a provider's claims, or None if the provider did not verify it."""
    address = claims.get("email")
    # Some providers write the truth value as text.
    verified = str(claims.get("email_verified", True)).lower() == "true"
    return address if isinstance(address, str) and verified else None


def prepare(page: DashboardSettings) -> SigningIn | None:
    """Return the sign-in, or None if ``dashboard.people`` is empty.

    Raises
    ------
    SettingsInvalid
        When people are named, and there is no provider to sign in at.
    """
    if not page.people:
        return None
    try:
        # Authlib warns that it uses httpx and not httpx2, whatever the filters are.
        with warnings.catch_warnings(record=True):
            from authlib.integrations.starlette_client import OAuth  # noqa: PLC0415 - optional
    except ImportError as error:
        raise SettingsInvalid(
            'dashboard.people is set, and Authlib is missing: pip install "wsi-denoise[oidc]"'
        ) from error
    auth = _auth()
    sections = _sections(auth)
    if not sections or not isinstance(auth.get("redirect_uri"), str):
        raise SettingsInvalid(
            f"dashboard.people is set, and {SECRETS} has no [auth] with redirect_uri, client_id, client_secret and"
            " server_metadata_url"
        )
    if not str(auth["redirect_uri"]).endswith(CALLBACK):
        raise SettingsInvalid(f"[auth] redirect_uri in {SECRETS} does not end with {CALLBACK}")
    secret = str(auth.get("cookie_secret", ""))
    if 0 < len(secret) < _SHORTEST_SECRET:
        raise SettingsInvalid(f"[auth] cookie_secret in {SECRETS} has less than {_SHORTEST_SECRET} characters")
    clients = OAuth()
    for name, section in sections.items():
        clients.register(name, **section)
    people = tuple(one.strip().lower() for one in page.people)
    return SigningIn(people, tuple(sections), auth["redirect_uri"], secret, clients)


def _auth() -> dict[str, Any]:
    """Return ``[auth]`` of the user's secrets.toml and of that in the working folder, the latter first."""
    merged: dict[str, Any] = {}
    for folder in (Path.home(), Path.cwd()):
        try:
            given = tomllib.loads((folder / SECRETS).read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            raise SettingsInvalid(f"{SECRETS} cannot be read ({error})") from error
        if isinstance(given.get("auth"), dict):
            merged = given["auth"]
    return merged


def _sections(auth: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the options of each provider: of ``[auth]`` itself, and of its subsections."""
    found = {_DEFAULT: auth} if "client_id" in auth else {}
    found |= {name: each for name, each in auth.items() if isinstance(each, dict) and "client_id" in each}
    keys = ("client_id", "client_secret", "server_metadata_url", "authorize_url", "access_token_url", "jwks_uri")
    defaults = {"scope": "openid email profile", "prompt": "select_account", "code_challenge_method": "S256"}
    return {
        name: {key: section[key] for key in keys if key in section}
        | {"client_kwargs": defaults | section.get("client_kwargs", {})}
        for name, section in found.items()
    }
