"""System: daemons, disks, checks, settings, models, versions."""

from __future__ import annotations

import html as markup
import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import streamlit as st

from dashboard import context
from dashboard.pages.components import heading, html, show_error
from dashboard.pages.markup import chip, escape, facts, job_link, table
from dashboard.pages.words import DAEMONS, Result, condition, for_page, heard, size, when
from wsi_denoise import doctor as examination
from wsi_denoise.doctor import Check
from wsi_denoise.errors import WsiDenoiseError
from wsi_denoise.jobs.values import DaemonInfo
from wsi_denoise.network import candidates, weights
from wsi_denoise.network.weights import MEASURED_COLUMNS, NUCLEI_COLUMNS, Measured, ModelCard, Nuclei
from wsi_denoise.settings import Loaded, Settings
from wsi_denoise.settings import table as every_setting
from wsi_denoise.system.disk import existing_folder
from wsi_denoise.system.redact import public

LIBRARIES = (
    "wsi-denoise", "tiatoolbox", "openslide-python", "openslide-bin", "tifffile", "imagecodecs", "torch", "openvino",
    "dask", "distributed", "numpy", "streamlit", "sqlalchemy",
)  # fmt: skip
CHECKED = {
    "broken": Result("broken", "red", "Something does not work."),
    "warning": Result("warning", "orange", "Something needs attention."),
    "ok": Result("ok", "green", "It works."),
}
"""State of a check to its chip, the worst first."""

SHOWN_DAEMONS = 10
REFRESH_SECONDS = 5.0
DOCTOR_SECONDS = 2.0


def draw() -> None:
    """Draw the page."""
    heading("System")
    state, options, presets, libraries = st.tabs(
        ["Machines", "Settings", "Models", "Versions"], key="tab", on_change="rerun", bind="query-params"
    )
    with state:
        machines()
        findings()
    with options:
        chosen_settings()
    with presets:
        models()
    with libraries:
        html(versions())


@st.fragment(run_every=REFRESH_SECONDS)
def machines() -> None:
    """Draw daemons and disks; they stay up to date."""
    given = context.settings()
    try:
        known = context.store().daemons(stopped=True)[:SHOWN_DAEMONS]
    except WsiDenoiseError as error:
        show_error(error)
        return
    none = "<p>No daemon has ever been started here: wsi-denoise up.</p>"
    found = daemons(known, datetime.now(UTC), given) if known else none
    html(f"<h2>Daemons, workers and devices</h2>{found}<h2>Free space</h2>{disks(given)}")


@st.cache_resource(show_spinner=False)
def doctor() -> Doctor:
    """Return the doctor, which all visitors share: ten open pages must not run ten checks."""
    return Doctor(lambda: examination.examine(Loaded(context.settings(), context.origins())))


@st.fragment(run_every=DOCTOR_SECONDS)
def findings() -> None:
    """Draw the findings of the doctor."""
    shared = doctor()
    if shared.findings is None and not shared.busy:
        shared.start()
    found = shared.findings
    head, button = st.columns([4, 1], vertical_alignment="center")
    with head:
        at = f"Checked at {when(found.at)}." if found else ""
        html(f"<h2>Checks</h2><p>{'Checking; this takes up to half a minute.' if shared.busy else at}</p>")
    button.button("Check again", key="look", disabled=shared.busy, on_click=shared.start, width="stretch")
    if found is not None:
        html(f"<p>{escape(found.error)}</p>" if found.error else checks(found.checks))


def chosen_settings() -> None:
    """Draw the settings."""
    html("<p>Later wins: defaults, wsi-denoise.toml, WSI_DENOISE_ variables, flags.</p>")
    only = st.toggle("Only those that are not the default", key="changed", bind="query-params")
    html(settings(context.settings(), context.origins(), changed_only=only))


def models() -> None:
    """Draw the presets."""
    html(
        "<p>PSNR and SSIM on images that were not trained on, with noise of a known strength. Noisy is "
        "the image as it came, denoised what the preset made of it: higher is better.</p>"
    )
    in_use = candidates.names(context.settings().model.preset)
    for card in weights.presets():
        with st.expander(card.name, expanded=card.name in in_use):
            html(model(card))


def settings(given: Settings, origins: Mapping[str, str], *, changed_only: bool = False) -> str:
    """Return every setting with its value and origin, without secrets."""
    values = given.model_dump(mode="json")
    rows = []
    for name, default, description in every_setting():
        section, _, key = name.partition(".")
        origin = origins.get(name, "not known")
        if changed_only and origin == "default":
            continue
        value = public(name, values[section][key] if key else values[section])
        rows.append(
            (
                f'<code title="{markup.escape(description)}">{escape(name)}</code>',
                f"<code>{escape(json.dumps(value, ensure_ascii=False))}</code>",
                "default" if origin == "default" else f"<strong>{escape(origin)}</strong>",
                f"<code>{escape(default)}</code>",
                escape(description),
            )
        )
    return table(["Setting", "Value", "From", "Default", "What it is"], rows, short={0})


def daemons(found: Sequence[DaemonInfo], now: datetime, given: Settings) -> str:
    """Return the daemons with machine, device, last heartbeat and jobs."""
    rows = [
        (
            str(daemon.id),
            chip(DAEMONS[condition(daemon, now, given)]),
            f"{escape(daemon.host)}, process {daemon.pid}",
            escape(daemon.device or "not known"),
            escape(daemon.facts.get("cluster", "not known")),
            when(daemon.stopped, now=now) or heard(daemon, now),
            ", ".join(job_link(job) for job in daemon.jobs) or "nothing",
            escape(daemon.version),
        )
        for daemon in found
    ]
    head = ["No", "State", "Machine", "Device", "Workers", "Last heartbeat", "Works on", "Version"]
    return table(head, rows, short={0, 1, 5, 7})


def disks(given: Settings) -> str:
    """Return the free space where this program reads and writes."""
    places = [("Output", given.output.folder), ("State", given.jobs.state), ("Quarantine", given.intake.quarantine)]
    places += [("Inbox", inbox) for inbox in given.intake.inbox]
    rows = []
    for name, folder in places:
        try:
            usage = shutil.disk_usage(existing_folder(folder))
        except OSError:
            rows.append((name, escape(folder), "cannot be read", ""))
            continue
        share = 1 - usage.free / usage.total if usage.total else 1.0  # what is reserved for root is not free
        meter = (
            f'<meter min="0" max="1" value="{share:.3f}" high="0.9" aria-label="used">{share:.0%}</meter> {share:.0%}'
        )
        rows.append((name, escape(folder), f"{size(usage.free)} free of {size(usage.total)}", meter))
    return table(["Folder", "Path", "Space", "Used"], rows, short={0, 2, 3})


def versions() -> str:
    """Return the versions of this program and of its libraries."""
    rows = []
    for name in LIBRARIES:
        try:
            rows.append((name, escape(version(name))))
        except PackageNotFoundError:
            rows.append((name, "not installed"))
    return table(["Package", "Version"], rows)


def model(card: ModelCard) -> str:
    """Return a preset's card with its measurements."""
    kind = "what is removed" if card.residual else "the clean picture"
    trained = ", ".join(f"{escape(source.name)} ({escape(source.licence)})" for source in card.trained_on)
    rows = [
        (
            "Network",
            f"{escape(card.architecture)}, {card.filters} filters, {card.parameters:,} parameters; learns {kind}",
        ),
        ("Trained on", f"{trained}; {card.samples_seen:,} crops, {escape(card.protocol)} noise"),
        ("Weights", f"<code>SHA-256 {escape(card.sha256)}</code>, {escape(card.licence)}, {escape(card.created)}"),
    ]
    parts = [f"<p>{escape(card.purpose)}</p>"]
    if card.not_for_slides:
        parts.append("<p><strong>Not for slides: it only reproduces a published table.</strong></p>")
    parts.append(facts(rows))
    if not card.measured:
        return "".join([*parts, "<p>Not measured yet.</p>"])
    parts.append(table(MEASURED_COLUMNS, map(_cells, card.measured), numbers=set(range(2, 9))))
    if card.nuclei:
        parts.append("<p>Nuclei per image, and images with more than 5 % fewer nuclei than the clean image:</p>")
        parts.append(table(NUCLEI_COLUMNS, map(_cells, card.nuclei), numbers=set(range(1, 8))))
    return "".join(parts)


def _cells(row: Measured | Nuclei) -> list[str]:
    return [escape(cell) for cell in row.cells()]


def checks(found: Sequence[Check]) -> str:
    """Return the doctor's findings, the worst first."""
    worst_first = sorted(found, key=lambda one: list(CHECKED).index(one.state))
    rows = [(chip(CHECKED[one.state]), escape(one.name), escape(for_page(one.text))) for one in worst_first]
    return table(["", "Check", "Result"], rows, short={0, 1})


@dataclass(frozen=True)
class Findings:
    """Checks of the doctor and their time; `error` is a failure of the doctor itself."""

    checks: tuple[Check, ...]
    at: datetime
    error: str = ""


class Doctor:
    """Runs the checks in a thread: they take up to half a minute, and a page must not wait for them.

    Parameters
    ----------
    examine : callable
        Runs the checks.
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

    def start(self) -> None:
        """Start the checks, unless they are running."""
        with self._lock:
            if not self.busy:
                self._thread = threading.Thread(target=self._run, name="doctor", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        try:
            found, error = tuple(self._examine()), ""
        except Exception as failure:  # noqa: BLE001 - shown on the page
            found, error = (), f"{type(failure).__name__}: {failure}"
        self.findings = Findings(found, datetime.now(UTC), error)
