"""What System says, as HTML in which everything from outside is text; and the doctor, in a thread of its own."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from dashboard.pages.history_view import table
from dashboard.pages.words import duration, escaped, for_page, size, when
from wsi_denoise.doctor import Check
from wsi_denoise.jobs.values import DaemonInfo
from wsi_denoise.network.weights import ModelCard
from wsi_denoise.settings import Settings
from wsi_denoise.settings import table as every_setting
from wsi_denoise.system import clocks
from wsi_denoise.system.redact import public

LIBRARIES = (
    "wsi-denoise", "tiatoolbox", "openslide-python", "openslide-bin", "tifffile", "imagecodecs", "torch", "openvino",
    "dask", "distributed", "numpy", "streamlit", "sqlalchemy",
)  # fmt: skip
CHECKED = {"ok": ("ok", "green"), "warning": ("warning", "orange"), "broken": ("broken", "red")}


def settings(given: Settings, origins: Mapping[str, str], *, changed_only: bool = False) -> str:
    """Return every setting with its value and where it came from; secrets are not shown."""
    values = given.model_dump(mode="json")
    rows = []
    for name, default, description in every_setting():
        section, _, key = name.partition(".")
        value = public(name, values[section][key] if key else values[section])
        origin = origins.get(name, "not known")
        if changed_only and origin == "default":
            continue
        shown = json.dumps(value, ensure_ascii=False)
        rows.append(
            (
                f'<code title="{escape_attribute(description)}">{escaped(name)}</code>',
                f"<code>{escaped(shown)}</code>",
                "default" if origin == "default" else f"<strong>{escaped(origin)}</strong>",
                f"<code>{escaped(default)}</code>",
                escaped(description),
            )
        )
    return table(["Setting", "Value", "From", "Default", "What it is"], rows, short={0})


def escape_attribute(text: str) -> str:
    """Return text for use inside a quoted attribute."""
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def daemons(found: Sequence[DaemonInfo], now: datetime, given: Settings) -> str:
    """Return the daemons, what they run on and when they were last heard of."""
    rows = []
    for daemon in found:
        silent = clocks.silence(daemon.heartbeat, now).total_seconds()
        if daemon.stopped is not None:
            state = f"stopped {when(daemon.stopped, now=now)}"
            chip = '<span class="chip grey">stopped</span>'
        elif silent > given.jobs.lease_seconds:
            state = f"silent for {duration(silent)}"
            if daemon.heartbeat > now:
                state = f"its last heartbeat is {duration(silent)} ahead of this clock"
            chip = '<span class="chip red">lost</span>'
        else:
            state, chip = f"{duration(silent)} ago", '<span class="chip green">alive</span>'
        jobs = ", ".join(f'<a href="/history?job={job}" target="_self">job {job}</a>' for job in daemon.jobs)
        rows.append(
            (
                str(daemon.id),
                chip,
                f"{escaped(daemon.host)}, process {daemon.pid}",
                escaped(daemon.device or "not said"),
                escaped(daemon.facts.get("cluster", "not said")),
                state,
                jobs or "nothing",
                escaped(daemon.version),
            )
        )
    head = ["No", "State", "Machine", "Device", "Workers", "Last heard of", "Works on", "Version"]
    return table(head, rows, short={0, 1, 5, 7})


def disks(given: Settings) -> str:
    """Return how much room there is where this program writes and reads."""
    places = [("Output", given.output.folder), ("State", given.jobs.state), ("Quarantine", given.intake.quarantine)]
    places += [("Inbox", inbox) for inbox in given.intake.inbox]
    rows = []
    for name, folder in places:
        try:
            there = next(place for place in (folder, *folder.parents) if place.exists())
            usage = shutil.disk_usage(there)
        except (OSError, StopIteration):
            rows.append((name, escaped(folder), "cannot be asked", ""))
            continue
        share = 1 - usage.free / usage.total if usage.total else 1.0  # what is reserved for root is not free
        meter = (
            f'<meter min="0" max="1" value="{share:.3f}" high="0.9" aria-label="used">{share:.0%}</meter> {share:.0%}'
        )
        rows.append((name, escaped(folder), f"{size(usage.free)} free of {size(usage.total)}", meter))
    return table(["Folder", "Path", "Room", "Used"], rows, short={0, 2, 3})


def versions() -> str:
    """Return the versions of this program and what it stands on."""
    rows = []
    for name in LIBRARIES:
        try:
            rows.append((name, escaped(version(name))))
        except PackageNotFoundError:
            rows.append((name, "not installed"))
    return table(["Package", "Version"], rows)


def model(card: ModelCard) -> str:
    """Return a preset's card with its measured table."""
    kind = "what is removed" if card.residual else "the clean picture"
    trained = ", ".join(f"{escaped(source.name)} ({escaped(source.licence)})" for source in card.trained_on)
    facts = [
        (
            "Network",
            f"{escaped(card.architecture)}, {card.filters} filters, {card.parameters:,} parameters; learns {kind}",
        ),
        ("Trained on", f"{trained}; {card.samples_seen:,} crops, {escaped(card.protocol)} noise"),
        ("Weights", f"<code>SHA-256 {escaped(card.sha256)}</code>, {escaped(card.licence)}, {escaped(card.created)}"),
    ]
    parts = [f"<p>{escaped(card.purpose)}</p>"]
    if card.not_for_slides:
        parts.append("<p><strong>Not for slides: it only reproduces a published table.</strong></p>")
    parts.append(table([], [(f"<th scope=row class=s>{name}</th>", text) for name, text in facts]))
    if not card.measured:
        return "".join([*parts, "<p>Not measured yet.</p>"])
    rows = [
        (
            escaped(row.source),
            escaped(row.protocol),
            f"{row.sigma:g}",
            f"{row.noisy_psnr:.2f}",
            f"{row.psnr:.2f}",
            f"{row.psnr_low:.2f} to {row.psnr_high:.2f}",
            f"{row.noisy_ssim:.3f}",
            f"{row.ssim:.3f}",
            f"{row.images:,}",
        )
        for row in card.measured
    ]
    head = [
        "Images of",
        "Noise",
        "Sigma",
        "Noisy, dB",
        "Denoised, dB",
        "95 %",
        "Noisy, SSIM",
        "Denoised, SSIM",
        "Images",
    ]
    parts.append(table(head, rows, numbers=set(range(2, 9))))
    return "".join(parts)


def checks(found: Sequence[Check]) -> str:
    """Return the doctor's findings, what is wrong first."""
    order = ("broken", "warning", "ok")
    rows = []
    for check in sorted(found, key=lambda one: order.index(one.state)):
        word, colour = CHECKED[check.state]
        rows.append((f'<span class="chip {colour}">{word}</span>', escaped(check.name), escaped(for_page(check.text))))
    return table(["", "Check", "Result"], rows, short={0, 1})


@dataclass(frozen=True)
class Findings:
    """What the doctor found, and when; a failure of the doctor himself is said in `error`."""

    checks: tuple[Check, ...]
    at: datetime
    error: str = ""


class Doctor:
    """Looks in a thread of its own: some looks take half a minute, and a page must not wait for them.

    Parameters
    ----------
    examine : callable
        Makes the checks.
    """

    def __init__(self, examine: Callable[[], list[Check]]) -> None:
        self._examine = examine
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.findings: Findings | None = None

    @property
    def busy(self) -> bool:
        """Whether a check is running."""
        return self._thread is not None and self._thread.is_alive()

    def look(self) -> None:
        """Start looking, unless he does already."""
        with self._lock:
            if not self.busy:
                self._thread = threading.Thread(target=self._run, name="doctor", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        try:
            found, error = tuple(self._examine()), ""
        except Exception as failure:  # noqa: BLE001 - said on the page
            found, error = (), f"{type(failure).__name__}: {failure}"
        self.findings = Findings(found, datetime.now(UTC), error)
