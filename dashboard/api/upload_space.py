"""Disk space reserved for running uploads, so that together they do not fill the disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsi_denoise.daemon.disk_space import GB, Need, Promises, shared_folder
from wsi_denoise.errors import DiskFull, WsiDenoiseError
from wsi_denoise.settings import Settings

SPARE_BYTES = 256 << 20
"""Kept free whatever is uploaded, also where ``limits.free_gigabytes`` is less."""

MOST_UPLOADS = 4

_STEP_BYTES = 64 << 20


class TooManyUploads(Exception):
    """Every place is taken."""


class UploadSpace:
    """Bytes that uploads still have to write, reserved beside those of the daemons' slides.

    Parameters
    ----------
    folder : Path
        The inbox.
    reservations : Promises
        Those of this process: the daemons of this machine see them.
    """

    def __init__(self, folder: Path, reservations: Promises) -> None:
        self._folder, self._reservations = folder, reservations
        self._claims: set[Claim] = set()
        self._lock = threading.Lock()

    @contextmanager
    def claim(self) -> Iterator[Claim]:
        """Give an upload a place, and free the place and its reserved space at the end.

        Raises
        ------
        TooManyUploads
        """
        made = Claim(self)
        with self._lock:
            if len(self._claims) >= MOST_UPLOADS:
                raise TooManyUploads
            self._claims.add(made)
        try:
            yield made
        finally:
            with self._lock:
                self._claims.discard(made)
                self._publish()

    def _reserve(self, claim: Claim, total: int) -> None:
        with self._lock:
            before, claim.reserved = claim.reserved, total
            try:
                self._check(Need(self._folder, self._left()))
            except BaseException:
                claim.reserved = before
                raise

    def _check(self, need: Need) -> None:
        # First here: where reservations cannot be written down, `reserve` compares nothing.
        short = self._reservations.missing([need])
        if short:
            raise DiskFull(short)
        self._reservations.reserve([need])

    def _left(self) -> int:
        return sum(max(0, claim.reserved - claim.written) for claim in self._claims)

    def _publish(self) -> None:
        """Reserve the remaining bytes where daemons see them; called with the lock."""
        left = self._left()
        if not left:
            self._reservations.release()
            return
        with suppress(WsiDenoiseError):
            self._reservations.reserve([Need(self._folder, left)])


class Claim:
    """The part of one upload."""

    def __init__(self, space: UploadSpace) -> None:
        self.reserved = self.written = 0
        self._space = space
        self._published = 0

    def reserve(self, size: int) -> None:
        """Reserve space for a number of bytes from the first on.

        Raises
        ------
        DiskFull
        OSError
            When the folder cannot be examined.
        """
        self._space._reserve(self, size)  # noqa: SLF001 - of this module

    def expect(self, size: int) -> None:
        """Reserve in steps for an upload that did not announce its size; see :meth:`reserve`."""
        if size <= self.reserved:
            return
        try:
            self.reserve(size + _STEP_BYTES)
        except DiskFull:
            self.reserve(size)

    def wrote(self, size: int) -> None:
        """Note bytes that are on the disk now, and no longer need to be reserved."""
        self.written += size
        if self.written - self._published >= _STEP_BYTES:
            self._published = self.written
            with self._space._lock:  # noqa: SLF001
                self._space._publish()  # noqa: SLF001


def upload_space(settings: Settings) -> UploadSpace:
    """Return the space of uploads into the first inbox."""
    kept = max(settings.limits.free_gigabytes * GB, SPARE_BYTES)
    return UploadSpace(settings.intake.inbox[0], Promises(shared_folder() or settings.jobs.state / "space", kept))
