"""The settings: names, defaults, allowed values, and the ones that change pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from wsi_denoise.errors import SettingsInvalid
from wsi_denoise.settings import combinations, messages
from wsi_denoise.settings.values import (
    DatabaseUrl,
    FolderBelow,
    GivenPath,
    Host,
    Memory,
    Mode,
    Name,
    Number,
    Paths,
    Patterns,
    People,
    QuietHours,
    Scheduler,
    Token,
    WebAddress,
    Whole,
)

LONG = 1_000_000_000
"""Maximum number of seconds, megapixels or megabytes: larger values are mistakes, and overflow timers."""


class Section(BaseModel):
    """A group of settings. Unknown keys are rejected, so that typing errors are noticed."""

    # Users write a memory limit of 0 or a token of digits, which are text, without quotes.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )


class IntakeSettings(Section):
    """Watched folders, and when a file counts as complete."""

    inbox: Paths = Field([Path("inbox")], description="Folders that are watched, with everything below them.")
    scan_seconds: Number = Field(
        5.0, ge=0.01, le=LONG, description="Time between two polling scans (the truth; events are a hint)."
    )
    events: bool = Field(True, description="Listen to file events as well, to react sooner than the next scan.")  # noqa: FBT003
    settle_seconds: Number = Field(
        10.0,
        ge=0,
        le=LONG,
        description="Size and time of change must stand still for this long before a file opens.",
    )
    grace_seconds: Number = Field(
        3600.0,
        ge=0,
        le=LONG,
        description="A file that stands still but does not open is damaged, not being copied, after this long.",
    )
    ignore: Patterns = Field(
        [".*", "*.part", "*.partial", "*.tmp", "*.crdownload", "~$*", "Thumbs.db", "desktop.ini"],
        description="Patterns of file and folder names that are ignored, beside those of intake.ignore_system.",
    )
    ignore_system: bool = Field(
        True,  # noqa: FBT003
        description="Ignore the names of NAS systems, operating systems and transfer tools too; see docs/it/inbox.md.",
    )
    quarantine: GivenPath = Field(
        Path("quarantine"), description="Where the note and the link for a quarantined slide are put."
    )


class OutputSettings(Section):
    """Writing of denoised slides."""

    folder: GivenPath = Field(Path("denoised"), description="Where denoised slides are written.")
    compression: Literal["jpeg", "deflate", "zstd"] = Field(
        "jpeg", description="Codec of the output's tiles. deflate is the portable lossless choice."
    )
    quality: Whole = Field(
        95, ge=50, le=100, description="JPEG quality. See docs/evidence/compression.md for the measured table."
    )
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = Field(
        "4:4:4", description="JPEG chroma subsampling. 4:2:0 costs up to 8 dB on stained tissue."
    )
    overwrite: bool = Field(
        False,  # noqa: FBT003
        description="Replace an output of the same slide with other settings, after the new one has been verified.",
    )
    mode: Mode = Field(
        "", description='Permissions of outputs as in chmod, as text: "0640"; empty leaves them to the umask.'
    )
    verify_tiles: Whole = Field(
        24, ge=1, le=1_000_000, description="How many random tiles of a new file are decoded and compared."
    )


class TissueSettings(Section):
    """Selection of the patches that the network processes."""

    mode: Literal["auto", "all"] = Field(
        "auto", description="auto finds tissue on a thumbnail; all sends every patch, fluorescence included."
    )
    background: Literal["auto", "keep", "denoise", "flatten"] = Field(
        "auto",
        description="Patches without tissue: pixels kept as they are, denoised too, or set to the background colour; "
        "auto keeps clean glass and denoises noisy glass.",
    )
    dilate: Whole = Field(1, ge=0, le=16, description="Patches by which the tissue mask is widened.")


class ModelSettings(Section):
    """Choice of the network."""

    preset: Name = Field(
        "auto",
        description="Preset; wsi-denoise models lists them. auto samples each slide, and chooses one or none.",
    )
    allow_unsafe: bool = Field(
        False,  # noqa: FBT003
        description="Allow a preset whose card says that it must not be used on slides.",
    )


class ComputeSettings(Section):
    """Hardware, workers and arithmetic."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the network runs.")
    backend: Literal["auto", "torch", "openvino"] = Field("auto", description="What runs it; OpenVINO only on a CPU.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Arithmetic of the network; auto takes half precision where the device is faster in it."
    )
    window: Whole = Field(
        0, ge=0, le=16, description="Window side in patches; 0 takes the measured default of the device."
    )
    batch: Whole = Field(0, ge=0, le=1024, description="Windows per batch; 0 takes the measured default of the device.")
    halo: Whole = Field(
        48,
        ge=0,
        le=256,
        multiple_of=16,
        description="Context around a window in pixels; see docs/evidence/stitching.md.",
    )
    cores: Whole = Field(
        0, ge=0, le=65_536, description="Cores that are used at most; 0 is all that this program may use."
    )
    nice: Whole = Field(
        5, ge=0, le=19, description="How far worker processes of this machine give way to other programs, as nice does."
    )
    quiet_hours: QuietHours = Field(
        "", description="Times at which nothing is worked on, as in Mon-Fri 08:00-18:00, Sat 09:00-12:00."
    )
    workers: Whole = Field(0, ge=0, le=4096, description="Worker processes; 0 chooses from the core count.")
    threads: Whole = Field(0, ge=0, le=4096, description="Threads per worker process; 0 chooses from the core count.")
    scheduler: Scheduler = Field("", description="Address of a Dask scheduler; empty starts a cluster on this machine.")
    results: Literal["spool", "travel"] = Field(
        "spool",
        description="How a scheduler's workers hand in finished blocks: in the state folder, which they see as well,"
        " or over the network.",
    )


class JobsSettings(Section):
    """Job database, leases, retries and retention."""

    database: DatabaseUrl = Field("", description="SQLAlchemy URL; empty is SQLite in the state folder.")
    state: GivenPath = Field(Path(".wsi-denoise"), description="Folder of database, spool, maps and logs.")
    lease_seconds: Number = Field(
        60.0, ge=0.02, le=31_536_000, description="A running job without a heartbeat for this long is taken up again."
    )
    heartbeat_seconds: Number = Field(
        5.0, ge=0.01, le=15_768_000, description="Time between two heartbeats; at most half of jobs.lease_seconds."
    )
    attempts: Whole = Field(
        5, ge=1, le=1_000_000, description="Attempts before a job that could be tried again is failed for good."
    )
    retry_seconds: Number = Field(30.0, gt=0, le=3600, description="Wait before the second attempt; doubles each time.")

    keep_spool_days: Number = Field(
        14.0,
        ge=0,
        description="Days to keep the finished blocks of a failed or cancelled job for a retry; 0: indefinitely.",
    )
    keep_days: Number = Field(
        0.0,
        ge=0,
        description="Days to keep a job in the database; longer while its slide or output exists; 0: indefinitely.",
    )


class LimitSettings(Section):
    """Limits of slides, times and resources."""

    megapixels: Number = Field(40_000.0, gt=0, le=LONG, description="Largest slide, in millions of pixels at level 0.")
    open_seconds: Number = Field(300.0, gt=0, le=LONG, description="Longest time that opening a slide may take.")
    task_seconds: Number = Field(
        1800.0,
        gt=0,
        le=LONG,
        description="A worker that is at one block, or at one slide's assembly, for longer is ended.",
    )
    no_worker_seconds: Number = Field(
        300.0,
        gt=0,
        le=LONG,
        description="Seconds that a running job waits for a cluster without workers; then it is retried later.",
    )
    free_gigabytes: Number = Field(
        1.0,
        ge=0,
        le=1_000_000,
        description="Kept free on the disks of state and output: a slide that would take it waits.",
    )
    worker_memory: Memory = Field(
        "auto", description="Memory limit per worker process as Dask writes it: auto, 4GiB, 0 for none."
    )


class DashboardSettings(Section):
    """Address, access and uploads of the dashboard."""

    host: Host = Field("127.0.0.1", description="Address to listen on; any but loopback needs token or people.")
    port: Whole = Field(8501, ge=0, le=65535, description="Port to listen on.")
    token: Token = Field(
        "", description="Secret of printable ASCII that pages and routes ask for; needed off loopback."
    )
    people: People = Field(
        [],
        description="Users who may sign in by OIDC: addresses, or @domain for all of one; see below.",
    )
    upload_megabytes: Number = Field(
        20_000.0,
        gt=0,
        le=LONG,
        description="Largest file that the dashboard takes into the first inbox, in millions of bytes.",
    )


class NotifySettings(Section):
    """Notifications to a web address."""

    url: WebAddress = Field(
        "",
        description="A small JSON is posted here when a job is done, quarantined, failed or begins to wait, "
        "or the queue is paused.",
    )
    timeout: Number = Field(10.0, gt=0, le=3600, description="Seconds before a post is given up.")


class LogSettings(Section):
    """Level, content and rotation of the log."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    names: bool = Field(
        True,  # noqa: FBT003
        description="Names of files in the log; switch them off where it is sent elsewhere: job numbers remain.",
    )
    megabytes: Number = Field(10.0, ge=0.001, le=1_000_000, description="Size at which the log file is rotated.")
    files: Whole = Field(5, ge=1, le=1000, description="How many rotated log files are kept.")


class FolderSettings(Section):
    """A folder below an inbox with its own preset."""

    path: FolderBelow = Field(description="Folder, relative to the inbox.")
    preset: Name = Field(description="Preset for the slides in it.")


class Settings(BaseModel):
    """All settings, frozen; :func:`wsi_denoise.settings.load` makes them."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    intake: IntakeSettings = IntakeSettings()
    output: OutputSettings = OutputSettings()
    tissue: TissueSettings = TissueSettings()
    model: ModelSettings = ModelSettings()
    compute: ComputeSettings = ComputeSettings()
    jobs: JobsSettings = JobsSettings()
    limits: LimitSettings = LimitSettings()
    dashboard: DashboardSettings = DashboardSettings()
    notify: NotifySettings = NotifySettings()
    log: LogSettings = LogSettings()
    folders: Annotated[
        list[FolderSettings],
        Field(
            description="Folders with a preset of their own.",
            json_schema_extra={"allowed": "tables with a relative path and a preset"},
        ),
    ] = []

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the job database."""
        return self.jobs.database or f"sqlite:///{self.jobs.state / 'jobs.sqlite'}"

    @property
    def presets(self) -> frozenset[str]:
        """Presets that slides may get."""
        return frozenset({self.model.preset, *(folder.preset for folder in self.folders)})

    def preset_for(self, relative: Path) -> str:
        """Return the preset of a slide by its path relative to the inbox; the deepest matching folder wins."""
        matching = [folder for folder in self.folders if relative.is_relative_to(folder.path)]
        return max(matching, key=lambda folder: len(folder.path.parts)).preset if matching else self.model.preset

    def pixel_settings(self) -> dict[str, Any]:
        """Return the settings that change the output's pixels or name, by ``section.key``, in JSON types."""
        changing = {
            "output": ("compression", "quality", "subsampling"),
            "tissue": ("mode", "background", "dilate"),
            "compute": ("halo",),
        }
        values = self.model_dump(mode="json")
        return {f"{section}.{key}": values[section][key] for section, keys in changing.items() for key in keys}

    def with_values(self, values: Mapping[str, Any]) -> Settings:
        """Return the settings with some values replaced by those of a job, ``section.key`` to value in JSON types.

        Raises
        ------
        SettingsInvalid
            For an unknown name or a value out of range.
        """
        merged = self.model_dump()
        for name, value in values.items():
            section, _, key = name.partition(".")
            if not key or key not in merged.get(section, {}):
                raise SettingsInvalid(f"{name}: unknown name{messages.nearest_of(name, names())}")
            merged[section][key] = value
        try:
            settings = Settings(**merged)
        except ValidationError as error:
            raise SettingsInvalid(first_fault(error)[1]) from error
        for name, wrong in combinations.contradictions(settings):
            raise SettingsInvalid(f"{name}: {wrong}")
        return settings

    def pixel_hash(self) -> str:
        """Return a hash of :meth:`pixel_settings`, 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.pixel_settings(), sort_keys=True).encode()).hexdigest()[:16]


def allowed_values() -> dict[str, str]:
    """Return descriptions of the allowed values of all settings, by name."""
    return {name: messages.allowed(field) for name, field in fields()}


def table() -> list[tuple[str, str, str]]:
    """Return (name, default, description) of every setting, in order, for docs and ``config``."""
    rows = []
    for name, field in fields():
        default = field.get_default(call_default_factory=True)
        shown = json.dumps(default if isinstance(default, str | int | float | bool) else _jsonable(default))
        rows.append((name, shown, field.description or ""))
    return rows


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Yield the name and the field of every setting, in order."""
    for section, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            for key, inner in kind.model_fields.items():
                yield f"{section}.{key}", inner
        else:
            yield section, field


def _jsonable(value: Any) -> Any:
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def names() -> dict[str, FieldInfo]:
    """Return the fields of all settings by name, with ``folders.path`` and ``folders.preset`` for a folder."""
    return dict(fields()) | {f"folders.{key}": field for key, field in FolderSettings.model_fields.items()}


def first_fault(error: ValidationError) -> tuple[str, str]:
    """Return the name of the first invalid setting, and the message."""
    # An unknown name first: it may be a typing error, which causes a missing name too.
    found = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    return messages.fault(found[0], names())
