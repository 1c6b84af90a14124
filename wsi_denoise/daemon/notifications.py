"""Notify another program of an event of a job by a small HTTP POST."""

from __future__ import annotations

import json
import logging
import ssl
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Any

from wsi_denoise import NOTICE, __version__
from wsi_denoise.jobs.values import Job, iso

_log = logging.getLogger(__name__)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuse redirects: urllib would follow to any address, and turn the POST into a GET."""

    def redirect_request(self, *_args: Any, **_named: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def message(event: str, job: Job | None, now: datetime | None = None) -> dict[str, Any]:
    """Return the posted message. It omits names and paths of slides, which may contain accession numbers.

    Parameters
    ----------
    event : str
        ``done``, ``quarantined``, ``failed``, ``waiting`` or ``paused``.
    job : Job or None
        None for an event of the whole queue.
    now : datetime, optional
        With a time zone; the current time by default.
    """
    return {
        "event": event,
        "job_id": job.id if job else None,
        "state": job.state.value if job else None,
        "verdict": job.verdict if job else None,
        "error_code": job.error_code if job else None,
        "time": iso(now or datetime.now(UTC)),
        "notice": NOTICE,
    }


def post(url: str, timeout: float, event: str, job: Job | None) -> bool:
    """Post an event and return whether it was accepted. Never raise; post nothing without a URL.

    Parameters
    ----------
    url : str
        http or https, or empty.
    timeout : float
        Seconds.
    event, job
        As in :func:`message`.
    """
    if not url:
        return False
    if not url.lower().startswith(("http://", "https://")):
        _log.warning("notify.url is not an http address; nothing is posted")
        return False
    body = json.dumps(message(event, job)).encode()
    headers = {"Content-Type": "application/json", "User-Agent": f"wsi-denoise/{__version__}"}
    try:
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")  # noqa: S310 - just checked
        with _opener.open(request, timeout=timeout):
            return True
    except Exception as error:  # noqa: BLE001 - another program must not stop the slide
        _log.warning("notify.url did not take the event %s: %s", event, _why(error))
        return False


def _why(error: Exception) -> str:
    """Return why a post failed, without the address: it may contain secrets, and users see the log.

    Most exception texts quote a part of the URL, such as "nonnumeric port: 'password@host'" or the "not valid for" of
    a certificate.
    """
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLError):
        return getattr(cause, "reason", None) or type(cause).__name__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) if isinstance(cause, str | TimeoutError) else type(cause).__name__
