"""Bind address and port of the dashboard."""

from __future__ import annotations

import ipaddress
import socket

from wsi_denoise.errors import SettingsInvalid
from wsi_denoise.settings import DashboardSettings

MOVES = 20


def is_loopback(host: str) -> bool:
    """Return whether a name or address can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name such as 127.0.0.1.example.org may resolve to any address


def refuse_unguarded(page: DashboardSettings) -> None:
    """Reject settings with which other machines could use the dashboard without a token or a login.

    Raises
    ------
    SettingsInvalid
    """
    if not is_loopback(page.host) and not page.token and not page.people:
        raise SettingsInvalid(
            f"dashboard.host is {page.host}, which others can reach: set dashboard.token or dashboard.people too"
        )


def url(page: DashboardSettings) -> str:
    """Return the dashboard's URL for a browser on this machine, without the token."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(page.host, page.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{page.port}/"


def free_port(page: DashboardSettings, *, may_move: bool) -> int:
    """Return the port to listen on.

    Parameters
    ----------
    may_move : bool
        Try the next ports if this one is in use.

    Raises
    ------
    SettingsInvalid
        If every port that may be used is in use.
    """
    last: OSError | None = None
    for port in range(page.port, page.port + (MOVES if may_move and page.port else 1)):
        with socket.socket(socket.AF_INET6 if ":" in page.host else socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((page.host, port))
            except (OSError, OverflowError) as error:
                last = error if isinstance(error, OSError) else OSError(0, str(error))
            else:
                return int(listener.getsockname()[1])
    raise SettingsInvalid(f"dashboard.port {page.port} on {page.host}: {last.strerror if last else 'no port'}")
