"""Delays for clients that send wrong tokens, so that a token cannot be guessed."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

MOST_CLIENTS = 1000
MOST_WAITING = 10
FORGET_SECONDS = 600.0

_MOST_MARKS = 100


@dataclass
class _Client:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    failures: int = 0
    last: float = field(default_factory=time.monotonic)
    marks: dict[bytes, None] = field(default_factory=dict)
    refusing: bool = False


@dataclass(frozen=True)
class Attempt:
    """Outcome of one attempt.

    Parameters
    ----------
    refused : bool
        Too many attempts of this client wait; the token was not compared.
    is_news : bool
        Worth a line in the log: a token that this client has not sent before, or the first refusal.
    """

    right: bool = False
    refused: bool = False
    is_news: bool = False


class Throttle:
    """Compares tokens, one at a time for each client, with a delay after each wrong one.

    A client that repeats one wrong token, such as a program that does not know the new token yet, delays no
    other client behind the same address.

    Parameters
    ----------
    first, most : float
        Seconds after the first wrong token, and at most; doubles each time.
    """

    def __init__(self, first: float = 0.5, most: float = 8.0) -> None:
        self._first, self._most = first, most
        self._clients: dict[str, _Client] = {}
        self._key = secrets.token_bytes(32)

    async def attempt(self, address: str, given: str, is_right: Callable[[str], bool]) -> Attempt:
        """Compare a token.

        Parameters
        ----------
        address : str
            Of the client.
        """
        client = self._client(address)
        mark = hashlib.blake2b(given.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).digest()
        if mark in client.marks:
            await asyncio.sleep(self._first)
            return Attempt()
        if client.waiting >= MOST_WAITING:
            news, client.refusing = not client.refusing, True
            return Attempt(refused=True, is_news=news)
        client.waiting += 1
        try:
            async with client.lock:
                if is_right(given):
                    return Attempt(right=True)
                client.failures, client.last = client.failures + 1, time.monotonic()
                client.marks[mark] = None
                if len(client.marks) > _MOST_MARKS:
                    del client.marks[next(iter(client.marks))]
                await asyncio.sleep(self.delay(client.failures))
                return Attempt(is_news=True)
        finally:
            client.waiting -= 1
            client.refusing = client.refusing and client.waiting > 0

    def delay(self, failures: int) -> float:
        """Return the seconds after a number of failures."""
        return min(self._first * 2.0 ** min(failures - 1, 30), self._most)

    def _client(self, address: str) -> _Client:
        name = _network(address)
        now = time.monotonic()
        known = self._clients.get(name)
        if known is None or (not known.waiting and now - known.last > FORGET_SECONDS):
            if len(self._clients) >= MOST_CLIENTS:
                idle = (each for each, client in self._clients.items() if not client.waiting)
                self._clients.pop(min(idle, key=lambda each: self._clients[each].last, default=""), None)
            known = self._clients[name] = _Client()
        return known


def _network(address: str) -> str:
    """Return the address, or for IPv6 the network of 64 bits, which one client owns."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return address
