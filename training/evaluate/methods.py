"""Denoisers by name: presets, the triage decision ``auto``, training runs, and functions."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path

from training.evaluate import baselines
from training.run import checkpoint
from training.run.train import CHECKPOINT
from wsi_denoise.network import weights
from wsi_denoise.network.irunet import IRUNet

AUTO = "auto"


def of_preset(name: str) -> baselines.Method:
    """Return a preset as a method; ``auto`` decides per image which preset to run, if any."""
    return automatic() if name == AUTO else baselines.network(weights.load(name))


def automatic() -> baselines.Method:
    """Return the method that decides as the daemon does: each image counts as a slide.

    Raises
    ------
    ModuleNotFoundError
        If this version has no triage.
    """
    raise ModuleNotFoundError("wsi_denoise.processing.triage")


def network_of_run(run: Path) -> IRUNet:
    """Return the averaged network of a training run that is not shipped."""
    averaged, state = checkpoint.averaged_weights(run / CHECKPOINT)
    options = {name: state["configuration"][name] for name in ("filters", "residual", "full_skip")}
    network = IRUNet(**options)
    network.load_state_dict(averaged)
    return network.eval()


def of_function(address: str) -> baselines.Method:
    """Return a function by its address ``module:name``; it takes images, (n, height, width, 3) uint8, and sigma."""
    module, _, name = address.partition(":")
    found: baselines.Method = getattr(importlib.import_module(module), name)
    return found


def named(
    presets: Iterable[str], runs: Iterable[Path] = (), functions: Iterable[str] = ()
) -> dict[str, baselines.Method]:
    """Return methods by the name that a table shows."""
    return {
        **{name: of_preset(name) for name in presets},
        **{folder.name: baselines.network(network_of_run(folder)) for folder in runs},
        **{address: of_function(address) for address in functions},
    }


def checksums(presets: Iterable[str]) -> dict[str, str]:
    """Return the checksum of each preset's weights."""
    return {name: weights.card(name).sha256 for name in presets if name != AUTO}
