"""Check whether everything that is needed is there and works."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from wsi_denoise import __version__
from wsi_denoise.errors import WsiDenoiseError
from wsi_denoise.settings import Loaded, Settings
from wsi_denoise.system import bundled
from wsi_denoise.system.bind_address import refuse_unguarded, url

State = Literal["ok", "warning", "broken"]

OPENSLIDE_NEEDED = (4, 0, 1)
#: Free space in GB below which a check warns, and below which no slide can be written.
DISK_WARNS, DISK_BROKEN = 20.0, 1.0
PROBE_SECONDS = 180.0

# In separate processes: a library that does not fit this machine ends its process, not the program.
_LIBRARIES = """
import json, sys
import numpy as np
found = {}
def probe(name, call):
    try:
        found[name] = [True, str(call())]
    except BaseException as error:
        found[name] = [False, f"{type(error).__name__}: {error}"]
def openslide():
    import openslide
    return openslide.__library_version__
def codecs():
    import imagecodecs
    tile = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for name in ("jpeg", "jpeg2k", "deflate", "zstd", "lzw"):
        lossy = name == "jpeg"
        encoded = getattr(imagecodecs, name + "_encode")(tile, **({"level": 90} if lossy else {}))
        decoded = getattr(imagecodecs, name + "_decode")(encoded)
        if lossy or name == "jpeg2k":
            assert np.shape(decoded) == tile.shape, name
        else:
            assert bytes(decoded) == tile.tobytes(), name
    return "jpeg, jpeg 2000, deflate, zstd and lzw, imagecodecs " + imagecodecs.__version__
def opencv():
    import cv2
    return cv2.__version__
probe("openslide", openslide)
probe("codecs", codecs)
probe("opencv", opencv)
json.dump(found, sys.stdout)
"""
_DEVICE = """
import json, sys
from wsi_denoise.network.denoiser import describe_device
from wsi_denoise.settings import ComputeSettings
given = json.load(sys.stdin)
print(describe_device(ComputeSettings(**given["compute"]), given["preset"]))
"""


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Parameters
    ----------
    state : str
        ``ok``; ``warning``: it works but may cause trouble; ``broken``: slides cannot be processed.
    """

    name: str
    state: State
    text: str

    def to_json(self) -> dict[str, str]:
        """Return plain values."""
        return asdict(self)


def examine(loaded: Loaded) -> list[Check]:
    """Return the results of all checks, in a fixed order. No check changes anything."""
    settings = loaded.settings
    looks: tuple[Callable[[Settings], Iterator[Check]], ...] = (
        _program,
        _libraries,
        _device,
        _weights,
        _database,
        lambda _: folder_checks(loaded),
        _disk,
        _inotify,
        _scheduler,
        _page,
        lambda _: viewer_checks(),
    )
    return [check for look in looks for check in look(settings)]


def _program(_settings: Settings) -> Iterator[Check]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Check("program", "ok", f"wsi-denoise {__version__}, Python {python}")
    for name in ("tiatoolbox", "torch", "dask", "streamlit"):
        try:
            yield Check(name, "ok", version(name))
        except PackageNotFoundError:
            yield Check(name, "broken", "not installed; install wsi-denoise again")


def _run(code: str, given: str = "") -> tuple[bool, str]:
    """Run Python code in a separate process; return whether it succeeded, and its output or error."""
    try:
        done = subprocess.run(  # noqa: S603 - our own code
            [sys.executable, "-P", "-c", code],
            input=given,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {PROBE_SECONDS:g} s"
    if done.returncode == 0:
        return True, done.stdout.strip()
    said = done.stderr.strip().splitlines()
    return False, said[-1] if said else f"the process ended with {done.returncode}"


def _libraries(_settings: Settings) -> Iterator[Check]:
    good, answer = _run(_LIBRARIES)
    if not good:
        yield Check("libraries", "broken", answer)
        return
    found: dict[str, tuple[bool, str]] = json.loads(answer.splitlines()[-1])
    works, text = found["openslide"]
    fresh = works and tuple(int(part) for part in text.split(".")[:3]) >= OPENSLIDE_NEEDED
    advice = (
        "" if fresh or not works else "; before 4.0.1 a crafted BIF file writes memory: pip install -U openslide-bin"
    )
    yield Check("openslide", "ok" if fresh else "broken", text + advice)
    works, text = found["codecs"]
    yield Check("codecs", "ok" if works else "broken", text)
    works, text = found["opencv"]
    advice = "" if works else "; on Debian: apt-get install libgl1 libglib2.0-0"
    yield Check("opencv", "ok" if works else "broken", text + advice)


def _device(settings: Settings) -> Iterator[Check]:
    good, answer = _run(
        _DEVICE, json.dumps({"compute": settings.compute.model_dump(mode="json"), "preset": settings.model.preset})
    )
    yield Check("device", "ok" if good else "broken", answer.splitlines()[-1] if answer else "nothing said")
    if good and importlib.util.find_spec("openvino") is None and "cuda" not in answer.lower():
        yield Check("openvino", "warning", "not installed; on a CPU it is twice as fast: wsi-denoise[cpu]")


def _weights(settings: Settings) -> Iterator[Check]:
    from hashlib import sha256  # noqa: PLC0415

    from wsi_denoise.network import candidates, weights  # noqa: PLC0415

    for name in sorted({name for preset in settings.presets for name in candidates.names(preset)}):
        try:
            card = weights.card(name)
            good = sha256((weights.folder() / f"{name}.safetensors").read_bytes()).hexdigest() == card.sha256
        except (WsiDenoiseError, OSError) as error:
            yield Check(f"preset {name}", "broken", str(error))
            continue
        refused = card.not_for_slides and not settings.model.allow_unsafe
        text = "not for slides" if refused else card.purpose
        yield Check(
            f"preset {name}", "ok" if good and not refused else "broken", text if good else "differs from its card"
        )


def _database(settings: Settings) -> Iterator[Check]:
    from wsi_denoise.jobs.store import JobStore  # noqa: PLC0415

    try:
        store = JobStore(settings.database_url)
    except WsiDenoiseError as error:
        yield Check("database", "broken", str(error))
        return
    try:
        if store.file is not None and not store.file.exists():
            yield Check("database", "ok", f"{store.file} is made at the first start")
            return
        store.check()
        jobs = sum(store.count_by_state().values())
        paused = store.paused()
        yield Check("database", "ok", f"{store}, {jobs} jobs")
        if paused is not None:
            yield Check("queue", "warning", f"paused: {paused}; wsi-denoise resume")
    except WsiDenoiseError as error:
        yield Check("database", "broken", str(error))
    finally:
        store.close()


def folder_checks(loaded: Loaded) -> Iterator[Check]:
    """Check the folders for input, output, state and quarantine. The default inbox is created at the first start."""
    settings, made_at_start = loaded.settings, loaded.origins["intake.inbox"] == "default"
    for inbox in settings.intake.inbox:
        yield _inbox(inbox, made_at_start=made_at_start)
    for name, folder in (
        ("output", settings.output.folder),
        ("state", settings.jobs.state),
        ("quarantine", settings.intake.quarantine),
    ):
        fault = "" if name == "state" else _not_as_marked(loaded, name)
        if fault:
            yield Check(name, "broken", f"{folder} {fault}; if it is the right folder: wsi-denoise confirm")
            continue
        place = _existing(folder)
        reason = _unwritable(place)
        later = "" if place == folder else ", made when needed"
        yield Check(name, "broken" if reason else "ok", f"{folder}{f' ({reason})' if reason else later}")


def _inbox(inbox: Path, *, made_at_start: bool) -> Check:
    if inbox.is_dir():
        good = os.access(inbox, os.R_OK | os.X_OK)
        return Check("inbox", "ok" if good else "broken", f"{inbox}{'' if good else ' may not be read'}")
    if made_at_start:
        return Check("inbox", "ok", f"{inbox} is made at the first start")
    return Check("inbox", "warning", f"{inbox} does not exist: mount it, or correct intake.inbox")


def _not_as_marked(loaded: Loaded, name: str) -> str:
    """Return why a folder differs from the one in the job database; empty if it is the same or not known yet."""
    from wsi_denoise.daemon.folders import output_folder, quarantine_folder  # noqa: PLC0415
    from wsi_denoise.jobs.store import JobStore  # noqa: PLC0415

    try:
        store = JobStore(loaded.settings.database_url)
        try:
            if store.file is not None and not store.file.exists():
                return ""
            return (output_folder if name == "output" else quarantine_folder)(loaded, store, "doctor").fault()
        finally:
            store.close()
    except WsiDenoiseError:
        return ""  # the check of the database reports the error


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest parent that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def _unwritable(folder: Path) -> str | None:
    # A file is written: permissions alone do not show a read-only or full file system.
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _disk(settings: Settings) -> Iterator[Check]:
    for name, folder in (("disk of output", settings.output.folder), ("disk of state", settings.jobs.state)):
        free = shutil.disk_usage(_existing(folder)).free / 1e9
        state: State = "broken" if free < DISK_BROKEN else "warning" if free < DISK_WARNS else "ok"
        yield Check(name, state, f"{free:.1f} GB free")


def _inotify(settings: Settings) -> Iterator[Check]:
    if not settings.intake.events:
        return
    try:
        limit = int(Path("/proc/sys/fs/inotify/max_user_watches").read_text("ascii"))
    except (OSError, ValueError):
        yield Check("file events", "warning", "this system tells no limit; the polling scan finds every slide anyway")
        return
    folders = sum(1 for inbox in settings.intake.inbox for _ in os.walk(inbox))
    short = folders > limit * 0.8
    advice = "; raise fs.inotify.max_user_watches, else slides are found by the polling scan only" if short else ""
    yield Check("file events", "warning" if short else "ok", f"folders: {folders}, limit: {limit}{advice}")


def _scheduler(settings: Settings) -> Iterator[Check]:
    address = settings.compute.scheduler
    if not address:
        return
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 8786), timeout=10):
            yield Check("scheduler", "ok", f"{address} answers")
    except (OSError, ValueError) as error:
        yield Check("scheduler", "broken", f"{address} ({error})")


def _page(settings: Settings) -> Iterator[Check]:
    try:
        refuse_unguarded(settings.dashboard)
    except WsiDenoiseError as error:
        yield Check("page", "broken", str(error))
    else:
        yield Check("page", "ok", url(settings.dashboard))


def viewer_checks() -> Iterator[Check]:
    """Check the script that shows slides in Compare."""
    library = bundled.module("dashboard.viewer.openseadragon")
    if library.present():
        yield Check("viewer", "ok", f"{library.NAME} {library.VERSION}")
    else:
        advice = f"Compare cannot show slides; to download it: python {library.__file__}"
        yield Check("viewer", "warning", f"{library.NAME} {library.VERSION} is missing; {advice}")


def summary(checks: list[Check]) -> dict[str, Any]:
    """Return the checks as ``doctor --json`` prints them."""
    return {"ok": not any(check.state == "broken" for check in checks), "checks": [check.to_json() for check in checks]}
