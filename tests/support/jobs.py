"""A job and a daemon as values, to be changed with `dataclasses.replace`."""

from datetime import UTC, datetime

from wsi_denoise.jobs.states import JobState
from wsi_denoise.jobs.values import DaemonInfo, Job

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLAIN = Job(
    id=1, slide="/in/a/x.svs", relative="a/x.svs", state=JobState.QUEUED, verdict=None, reasons=[], preset="paper",
    priority=0, progress=0.0, blocks_done=0, blocks_total=0, blocks_resumed=0, rate=None, seconds_left=None,
    created=NOW, started=None, finished=None, next_try=None, output=None, output_sha256=None, maps=None, attempts=0,
    error_code=None, error=None, metrics={}, fingerprint="f", size_bytes=34_500_000, mtime_ns=1, width=None,
    height=None, mpp=None, facts={}, settings={}, settings_hash="s", model_checksum=None, origin="daemon:1",
    duplicate_of=None, region=None, provenance={}, triage=None, daemon=None, cancel_requested=False,
)  # fmt: skip
DAEMON = DaemonInfo(1, "lab", 7, "0.1.0", "cpu", NOW, NOW, None, [], {})
