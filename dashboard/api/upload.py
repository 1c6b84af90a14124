"""Uploads of slides, which are streamed into the inbox under a partial name and then renamed.

Streamlit's own upload keeps a file in memory whole; slides have gigabytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import unicodedata
from collections.abc import AsyncIterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import IO

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dashboard.access.protection import is_own_origin
from dashboard.api.upload_space import MOST_UPLOADS, Claim, TooManyUploads, upload_space
from dashboard.responses import Json, refusal
from wsi_denoise.errors import DiskFull, UploadRefused
from wsi_denoise.intake.files import SUFFIXES, UNSUPPORTED
from wsi_denoise.intake.ignored import patterns
from wsi_denoise.settings import Settings
from wsi_denoise.system import disk, files

LONGEST_NAME = 200
"""Bytes: partial names and the names of outputs are made from it, and file systems end at 255."""

IDLE_SECONDS = 60.0
"""An upload of which nothing arrives for this long is ended: its place and its space are for others."""

_SEVERAL_FILES = {".mrxs", ".vms", ".vmu", ".zarr"}
_WRITE_BYTES = 4 << 20
_FULL = {*disk.FULL, errno.EFBIG}


class _Refused(Exception):
    """An upload that is refused with an HTTP status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def check_name(name: str, ignore: list[str]) -> str:
    """Return a name that a slide may have in the inbox.

    Parameters
    ----------
    name : str
        As the browser sent it.
    ignore : list of str
        Patterns of names that intake ignores.

    Raises
    ------
    _Refused
    """
    shown = ascii(name)[1:-1][:80]
    if not name or name.strip() != name or len(name.encode("utf-8", "replace")) > LONGEST_NAME:
        raise _Refused(400, f"{shown} is not a file name of 1 to {LONGEST_NAME} bytes")
    if any(sign in "/\\:" or unicodedata.category(sign)[0] == "C" for sign in name) or name in {".", ".."}:
        raise _Refused(400, f"{shown} has characters that no file name should have")
    if any(fnmatch(name, pattern) for pattern in ignore):
        raise _Refused(400, f"{shown} is a name that intake ignores (intake.ignore, intake.ignore_system)")
    _check_suffix(Path(name).suffix.lower(), shown)
    return name


def _check_suffix(suffix: str, shown: str) -> None:
    if suffix in UNSUPPORTED:
        raise _Refused(415, f"{shown} is a {UNSUPPORTED[suffix]} file, which no reader here opens")
    if suffix in _SEVERAL_FILES:
        raise _Refused(415, f"a {suffix} slide is made of several files")
    if suffix not in SUFFIXES:
        raise _Refused(415, f"{shown} has no suffix of a slide ({', '.join(SUFFIXES)})")


def partial_name(name: str, ignore: list[str]) -> str:
    """Return a new name that intake ignores.

    Raises
    ------
    _Refused
        When the settings leave no such name.
    """
    stem = f".{name}.{secrets.token_hex(6)}"
    for candidate in (f"{stem}.part", *(f"{stem}{pattern[1:]}" for pattern in ignore if pattern.startswith("*."))):
        if any(fnmatch(candidate, pattern) for pattern in ignore):
            return candidate
    raise _Refused(503, 'intake.ignore has no pattern for partial files; ".*" or "*.part" is one')


def _check_origin(request: Request) -> None:
    # With a bearer token the guard asks for no origin.
    if not is_own_origin(request.headers):
        raise _Refused(403, "another site's page asked for it")


class _Upload:
    """One upload, from its first byte to its name.

    Parameters
    ----------
    folder : Path
        The inbox.
    name : str
        Checked.
    limit : int
        Bytes.
    """

    def __init__(self, folder: Path, name: str, limit: int, ignore: list[str], claim: Claim) -> None:
        self._final, self._limit = folder / name, limit
        self._part = folder / partial_name(name, ignore)
        self._claim = claim

    async def take(self, body: AsyncIterator[bytes], announced: int | None) -> int:
        """Write the body, give it its name, and return its size in bytes.

        Raises
        ------
        _Refused
        ClientDisconnect, OSError
            Nothing is left behind.
        """
        file = await asyncio.to_thread(self._open, announced)
        try:
            with file:
                received = await self._write(file, body)
                if announced is not None and received != announced:
                    raise _Refused(400, f"{received} of {announced} bytes arrived")
                if not received:
                    raise _Refused(400, "the file is empty")
                await asyncio.to_thread(self._sync, file)
            await asyncio.to_thread(self._publish)
        finally:
            with contextlib.suppress(OSError):
                self._part.unlink(missing_ok=True)
        return received

    def _open(self, announced: int | None) -> IO[bytes]:
        if announced is not None and announced > self._limit:
            raise _Refused(413, f"it has {announced:,} bytes; dashboard.upload_megabytes allows {self._limit:,}")
        # Not its parents: a share that is not mounted must not be made on the local disk.
        self._part.parent.mkdir(exist_ok=True)
        if self._final.exists() or self._final.is_symlink():
            raise _Refused(409, f"there is a file {self._final.name} already")
        if announced is not None:
            self._claim.reserve(announced)
        else:
            self._claim.expect(1)
        return self._part.open("xb", buffering=0)

    async def _write(self, file: IO[bytes], body: AsyncIterator[bytes]) -> int:
        received, waiting = 0, bytearray()
        async for piece in _arriving(body):
            received += len(piece)
            if received > self._limit:
                raise _Refused(413, f"it is larger than the {self._limit:,} bytes of dashboard.upload_megabytes")
            waiting += piece
            if len(waiting) >= _WRITE_BYTES:
                await asyncio.to_thread(self._append, file, bytes(waiting), received)
                waiting.clear()
        await asyncio.to_thread(self._append, file, bytes(waiting), received)
        return received

    def _append(self, file: IO[bytes], data: bytes, received: int) -> None:
        self._claim.expect(received)
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        self._claim.wrote(len(data))

    @staticmethod
    def _sync(file: IO[bytes]) -> None:
        file.flush()
        os.fsync(file.fileno())

    def _publish(self) -> None:
        try:
            # Never replaces: of two uploads of one name, the second is refused.
            files.rename_new(self._part, self._final)
        except FileExistsError:
            raise _Refused(409, f"there is a file {self._final.name} already") from None
        files.sync(self._final.parent)


async def _arriving(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the parts of a body as they arrive.

    Raises
    ------
    _Refused
        When nothing arrives for too long.
    """
    parts = aiter(body)
    while True:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                piece = await anext(parts)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise _Refused(408, f"nothing arrived for {IDLE_SECONDS:g} s") from None
        yield piece


def routes(settings: Settings) -> list[BaseRoute]:
    """Return the route."""
    space = upload_space(settings)
    ignore = patterns(settings.intake)
    limit = int(settings.dashboard.upload_megabytes * 1e6)

    async def put(request: Request) -> Response:
        """Take a file into the first inbox."""
        try:
            _check_origin(request)
            name = check_name(request.path_params["name"], ignore)
            length = request.headers.get("content-length", "")
            announced = int(length) if length.isdecimal() else None
            with space.claim() as claim:
                upload = _Upload(settings.intake.inbox[0], name, limit, ignore, claim)
                size = await upload.take(request.stream(), announced)
        except _Refused as refused:
            return _ending(refused.status, refused.detail)
        except DiskFull:
            return _ending(507, "there is not enough free disk space beside what other uploads and slides will need")
        except TooManyUploads:
            return _ending(
                503, f"{MOST_UPLOADS} uploads are under way; try again when one has ended", {"Retry-After": "30"}
            )
        except ClientDisconnect:
            return Response(status_code=400)
        except OSError as error:
            status = 507 if error.errno in _FULL else 503
            return _refusal(status, f"the inbox cannot be written ({error.strerror})")
        return Json({"name": name, "bytes": size}, 201)

    return [Route("/upload/{name}", put, methods=["PUT"])]


def _ending(status: int, detail: str, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    """Return a refusal that ends the connection; the rest of the body is not read."""
    answer = _refusal(status, detail)
    answer.headers.update({"Connection": "close", **headers})
    return answer


def _refusal(status: int, detail: str) -> Response:
    error = UploadRefused(detail)
    return refusal(status, error.code, str(error))
