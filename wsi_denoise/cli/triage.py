"""``wsi-denoise run --triage``: print whether slides need denoising, and with which preset."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_denoise.cli import printing
from wsi_denoise.errors import WsiDenoiseError

if TYPE_CHECKING:
    from wsi_denoise.intake.arguments import Found
    from wsi_denoise.quality.triage import Triage
    from wsi_denoise.settings import Settings

Region = tuple[int, int, int, int]


def show(slides: Sequence[Found], settings: Settings, region: Region | None, *, as_json: bool) -> int:
    """Print the decision about each slide, and return the exit code. Nothing is queued or written."""
    found: list[dict[str, Any]] = []
    for slide in slides:
        try:
            if slide.error is not None:
                raise slide.error
            decision = _decide(slide.path, settings, region)
        except WsiDenoiseError as error:
            printing.tell(f"wsi-denoise: {printing.plain(error)}")
            found.append({"slide": str(slide.path), "triage": None, "error_code": error.code, "error": str(error)})
        else:
            found.append({"slide": str(slide.path), "triage": decision.to_json(), "error_code": None, "error": None})
            if not as_json:
                print(printing.plain(f"{slide.path.name}: {decision} ({decision.seconds:.1f} s)"))
    if as_json:
        printing.as_json({"slides": found, "total": len(found)})
    return 1 if any(each["error"] for each in found) else 0


def _decide(path: Path, settings: Settings, region: Region | None) -> Triage:
    from wsi_denoise.intake.fingerprint import fingerprint
    from wsi_denoise.processing.plan import plan_slide

    with tempfile.TemporaryDirectory(prefix="wsi-denoise-") as spool:
        preset = settings.preset_for(Path(path.name))
        return plan_slide(path, fingerprint(path), settings, preset, Path(spool), region).triage
