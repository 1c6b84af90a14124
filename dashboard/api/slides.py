"""Routes below ``/slides``: tiles, maps, thumbnails and the download."""

from __future__ import annotations

import asyncio
import os
import unicodedata
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from dashboard import context
from dashboard.api.openapi import LEAST_SIDE, MOST_SIDE
from dashboard.responses import SECURITY, Json, NotFound, answer
from dashboard.tiles import maps
from dashboard.tiles.blocks import blocks
from dashboard.tiles.difference import MEASURES
from dashboard.tiles.render import FORMATS, MOST_GAIN, WHICH, Tiles
from dashboard.tiles.summary import summary
from wsi_denoise.errors import WsiDenoiseError
from wsi_denoise.jobs.values import Job
from wsi_denoise.settings import Settings

THREADS = min(4, os.cpu_count() or 1)

_CHANGING = {"Cache-Control": "no-store", **SECURITY}
_ABANDONED = 499

P = ParamSpec("P")
T = TypeVar("T")
Handler = Callable[["Slides", Request], Awaitable[Response]]


def _answer_errors(handler: Handler) -> Handler:
    """Return a handler that answers errors of ours instead of raising them."""

    @wraps(handler)
    async def guarded(self: Slides, request: Request) -> Response:
        try:
            return await handler(self, request)
        except (NotFound, WsiDenoiseError) as error:
            return answer(error)

    return guarded


class Slides:
    """Everything under ``/slides``. Reading and decoding happen in threads of its own, never in the event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.tiles = Tiles(settings, lambda number: context.store().job(number))
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="tiles")
        self._turns = asyncio.Semaphore(THREADS)

    async def _call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **kwargs))

    async def _job(self, request: Request) -> Job:
        return await self._call(self.tiles.job, request.path_params["job"])

    @_answer_errors
    async def descriptor(self, request: Request) -> Response:
        """Answer a picture's size and tiling."""
        which, suffix = _which(request), "jpeg"
        job = await self._job(request)
        # Now and not with the first tile: a viewer learns once what is missing.
        if which != "before":
            await self._call(self.tiles.after, job)
        if which != "after":
            await self._call(self.tiles.before, job)
        xml = self.tiles.geometry(job).descriptor(suffix)
        return Response(xml, media_type="application/xml", headers=_CHANGING)

    @_answer_errors
    async def tile(self, request: Request) -> Response:
        """Answer one tile."""
        asked = request.path_params
        which, suffix = _which(request), asked["suffix"]
        if suffix not in FORMATS:
            raise NotFound
        gain = _bounded(request, "gain", 1, 1, MOST_GAIN) if which == "difference" else 1
        of = _one_of(request, "of", MEASURES) if which == "difference" else MEASURES[0]
        place = (asked["level"], asked["column"], asked["row"])
        job = await self._job(request)
        tag = f'"{self.tiles.version(job, which, place, suffix, gain, of)}"'
        headers = {"ETag": tag, "Cache-Control": "private, max-age=3600", **SECURITY}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        async with self._turns:
            # A viewer that was moved on has no use for what it asked for before.
            if await request.is_disconnected():
                return Response(status_code=_ABANDONED)
            data = await self._call(self.tiles.tile, job, which, place, suffix, gain, of)
        return Response(data, media_type=FORMATS[suffix], headers=headers)

    @_answer_errors
    async def thumbnail(self, request: Request) -> Response:
        """Answer the whole original, small."""
        side = _bounded(request, "side", 256, LEAST_SIDE, MOST_SIDE)
        job = await self._job(request)
        async with self._turns:
            data = await self._call(self.tiles.thumbnail, job, side)
        headers = {"ETag": f'"{self.tiles.version(job, "thumbnail", side)}"', "Cache-Control": "private, max-age=60"}
        return Response(data, media_type="image/jpeg", headers=headers | SECURITY)

    @_answer_errors
    async def info(self, request: Request) -> Response:
        """Answer the facts that the viewer needs."""
        job = await self._job(request)
        return Json(await self._call(summary, self.tiles, job), headers=_CHANGING)

    @_answer_errors
    async def map(self, request: Request) -> Response:
        """Answer a per-patch map as a small picture."""
        name = request.path_params["name"]
        if name not in maps.NAMES:
            raise NotFound
        job = await self._job(request)
        data = await self._call(lambda: maps.load(job).picture(name))
        return Response(data, media_type="image/png", headers={"Cache-Control": "private, max-age=60", **SECURITY})

    @_answer_errors
    async def blocks(self, request: Request) -> Response:
        """Answer the finished blocks."""
        job = await self._job(request)
        found = await self._call(blocks, self._settings.jobs.state, job)
        return Json(found, headers=_CHANGING)

    @_answer_errors
    async def download(self, request: Request) -> Response:
        """Answer the denoised TIFF, whole or in ranges."""
        job = await self._job(request)
        await self._call(self.tiles.after, job)
        file = Path(job.output or "")
        # A TIFF is compressed already; packed again it would lose its length and its ranges.
        headers = {"Content-Encoding": "identity", "Cache-Control": "private, no-cache", **SECURITY}
        return _Download(file, media_type="image/tiff", filename=safe_name(file.name), headers=headers)

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        place = "/slides/{job:int}"
        return [
            Route(f"{place}/{{which}}.dzi", self.descriptor),
            Route(f"{place}/{{which}}_files/{{level:int}}/{{column:int}}_{{row:int}}.{{suffix}}", self.tile),
            Route(f"{place}/thumbnail.jpeg", self.thumbnail),
            Route(f"{place}/info.json", self.info),
            Route(f"{place}/maps/{{name}}.png", self.map),
            Route(f"{place}/blocks.json", self.blocks),
            Route(f"{place}/download", self.download),
        ]


class _Download(FileResponse):
    chunk_size = 1 << 20


def safe_name(name: str) -> str:
    """Return a file name without characters that steer a terminal or change the direction of text."""
    name = "".join("_" if unicodedata.category(sign)[0] in "CZ" and sign != " " else sign for sign in name)
    return name.replace("/", "_").replace("\\", "_").replace('"', "_") or "slide.tiff"


def _which(request: Request) -> str:
    which: str = request.path_params["which"]
    if which not in WHICH:
        raise NotFound
    return which


def _bounded(request: Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or len(text) > 6 or not low <= int(text) <= high:
        raise NotFound(f"{name} is a whole number from {low} to {high}.")
    return int(text)


def _one_of(request: Request, name: str, allowed: tuple[str, ...]) -> str:
    """Return a query parameter; the first of the allowed values is the default."""
    text = request.query_params.get(name, allowed[0])
    if text not in allowed:
        raise NotFound(f"{name} is one of {', '.join(allowed)}.")
    return text
