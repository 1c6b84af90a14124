"""A processed slide, a client of the routes, and a guarded page."""

import asyncio

import pytest

from dashboard import routes
from dashboard.access.throttle import Throttle
from dashboard.guard import Guard
from support.asgi import QUICK, TOKEN, Page, exchange


@pytest.fixture
def case(processed):
    return processed()


@pytest.fixture
def asked(asking):
    """Client of the routes with some settings."""
    return lambda settings: asking(routes.application(settings))


@pytest.fixture
def client(case, asked):
    return asked(case.settings)


@pytest.fixture
def page():
    """A page with the token, which keeps its sessions: ``page(path, ...)``; its ``inner`` was reached."""
    inner = Page()
    guard = Guard(inner, token=TOKEN, throttle=Throttle(**QUICK))

    def asked(path="/", **options):
        return asyncio.run(exchange(guard, path, **options))

    asked.inner = inner
    return asked
