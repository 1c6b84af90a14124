"""Denoisers by name: presets, the triage decision ``auto``, training runs, and functions."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.evaluate import baselines
from training.run import checkpoint
from training.run.train import CHECKPOINT
from wsi_denoise.network import weights
from wsi_denoise.network.candidates import AUTO
from wsi_denoise.network.irunet import IRUNet
from wsi_denoise.processing.triage import triage
from wsi_denoise.slide.geometry import PATCH


def of_preset(name: str) -> baselines.Method:
    """Return a preset as a method; ``auto`` decides per image which preset to run, if any."""
    return automatic() if name == AUTO else baselines.network(weights.load(name))


def automatic() -> baselines.Method:
    """Return the method that decides as the daemon does. Each image counts as a slide that is all tissue."""
    preset = cache(lambda name: baselines.network(weights.load(name)))

    def denoiser(name: str) -> Callable[[baselines.Batch], baselines.Batch]:
        return lambda windows: preset(name)(windows, 0.0)

    def one(image: baselines.Batch) -> baselines.Batch:
        height, width = image.shape[:2]
        tissue = np.ones((-(-height // PATCH), -(-width // PATCH)), dtype=np.bool_)
        read = lambda x, y, across, down: image[y : y + down, x : x + across]  # noqa: E731
        used = triage(read, (width, height), tissue, "evaluation", AUTO, denoiser).used
        return denoiser(used)(image[None])[0] if used else image

    return lambda noisy, _sigma: np.stack([one(image) for image in noisy])


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


def about(presets: Sequence[str], started: float) -> dict[str, Any]:
    """Return the facts about a measurement that a table states: weights, threads, and minutes since `started`."""
    checksums = {name: weights.card(name).sha256 for name in presets if name != AUTO}
    minutes = round((time.monotonic() - started) / 60.0, 1)
    first = next(iter(checksums.values()), "")
    return {"sha256": first, "presets": checksums, "threads": torch.get_num_threads(), "minutes": minutes}
