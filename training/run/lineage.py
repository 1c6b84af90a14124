"""The runs that a run's initial weights came from.

They are stored at the start of a run, because later another run may have the name of its ancestor.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.data.bank import FLAT_SHARE
from training.run import checkpoint
from wsi_denoise.network import weights

TRACE = "trace.json"
SELDOM = {"every": 10, "texture": 0.0, "schedule": "cosine"}
"""Values of a run that its card omits."""
NOT_OF_A_STAGE = frozenset({"before", "finished", "threads", "torch"})
"""Values that a card states only for its own run."""


def options_that_decide(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a run's configuration that are needed to repeat it, besides its steps and its network."""
    kept = {key: configuration[key] for key in ("seed", "rate", "polish", "decay", "pixels", "bf16")}
    some = {"photographs": True} if configuration.get("photographs") else {}
    some |= {key: configuration[key] for key, usual in SELDOM.items() if configuration.get(key, usual) != usual}
    # Older runs and cards state no optimizer; they used AdamW.
    optimizer = configuration.get("optimizer", "adamw")
    return {**kept, "optimizer": optimizer, "flat": configuration.get("flat", FLAT_SHARE), **some}


def stages_before(initial: str) -> list[dict[str, Any]]:
    """Return the runs that weights came from, earliest first, for ``Configuration.initial``."""
    if not initial:
        return []
    if Path(initial).with_suffix(".safetensors").is_file():
        return _of_run(Path(initial))
    card = weights.card(initial)
    earlier = card.training.get("before", [])
    samples = card.samples_seen - sum(stage["samples"] for stage in earlier)
    known = {key: value for key, value in card.training.items() if key not in NOT_OF_A_STAGE}
    stage = {"filters": card.filters, "protocol": card.protocol, "samples": samples, "flat": FLAT_SHARE, **known}
    return [*earlier, stage]


def _of_run(place: Path) -> list[dict[str, Any]]:
    _, state = checkpoint.averaged_weights(place)
    record = json.loads((place.parent / "run.json").read_text("utf-8"))
    configuration = state["configuration"]
    same = {"filters": configuration["filters"], "protocol": configuration["protocol"], "samples": state["samples"]}
    ran = {"steps": state["step"], "minutes": round(state["elapsed"] / 60.0, 1)}
    trace = traced(place.parent)
    noted: dict[str, Any] = {"trace": trace} if trace else {}
    if "machine" in record:
        noted["machine"] = record["machine"]
    return [*record.get("before", []), {**same, **ran, **options_that_decide(configuration), **noted}]


def traced(run: Path) -> dict[str, str]:
    """Return the stored checksums of a run's weights by step."""
    place = run / TRACE
    return json.loads(place.read_text("utf-8")) if place.is_file() else {}
