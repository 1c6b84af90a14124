"""Checkpoints of a training run: tensors as safetensors, everything else as JSON. No pickle.

A checkpoint consists of two files, ``NAME.safetensors`` and ``NAME.json``. The second states the checksum of the first.
Each is written under a temporary name and renamed, so that a run that is killed during saving can be resumed. If it is
killed between the two renames, the checksum does not match, and reading the checkpoint raises an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.data.sources import checksum


class CheckpointDamagedError(RuntimeError):
    """The two files of a checkpoint do not belong together."""


class Averaged:
    """Exponential moving average of a network's parameters.

    The weight of the old average in step n (from 0) is ``min(decay, (1 + n) / (10 + n))``.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Update the average with the network's parameters."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1.0 - decay)
            else:
                self.weights[name].copy_(value)


def save(
    path: Path, network: nn.Module, average: Averaged, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write a checkpoint.

    Parameters
    ----------
    path : Path
        Without suffix.
    state : dict
        In JSON types: step, elapsed seconds, samples, configuration.
    """
    tensors = {f"network/{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.weights.items()}
    names = [name for name, _ in network.named_parameters()]
    for index, moments in optimizer.state_dict()["state"].items():
        for kind, value in moments.items():
            tensors[f"optimizer/{kind}/{names[index]}"] = torch.as_tensor(value)
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".safetensors.part")
    save_file(tensors, temporary)
    record = {**state, "average_steps": average.steps, "sha256": checksum(temporary)}
    note = path.with_suffix(".json.part")
    note.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    os.replace(temporary, path.with_suffix(".safetensors"))  # noqa: PTH105 - atomic, and says so
    os.replace(note, path.with_suffix(".json"))  # noqa: PTH105


def digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the bytes of tensors in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint's tensors and state.

    Raises
    ------
    CheckpointDamagedError
        If the tensors do not have the checksum in the JSON file.
    """
    state = json.loads(path.with_suffix(".json").read_text("utf-8"))
    file = path.with_suffix(".safetensors")
    if checksum(file) != state["sha256"]:
        raise CheckpointDamagedError(f"{file} is not what {path.with_suffix('.json').name} describes")
    return load_file(file), state


def restore(path: Path, network: nn.Module, average: Averaged, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Load a checkpoint into a run, on the run's device, and return its state."""
    tensors, state = read(path)
    network.load_state_dict(_part(tensors, "network/"))
    for name, value in _part(tensors, "average/").items():
        average.weights[name].copy_(value)  # which stays on its device
    average.steps = state["average_steps"]
    inner = optimizer.state_dict()
    names = [name for name, _ in network.named_parameters()]
    inner["state"] = {index: moments for index, name in enumerate(names) if (moments := _moments(tensors, name))}
    optimizer.load_state_dict(inner)
    return state


def _moments(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the state of any optimizer for a parameter."""
    kinds = (key.split("/", 2) for key in tensors if key.startswith("optimizer/") and key.endswith(f"/{name}"))
    return {kind: tensors[f"optimizer/{kind}/{name}"] for _, kind, of in kinds if of == name}


def averaged_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the averaged weights, which are shipped, and the state."""
    tensors, state = read(path)
    return _part(tensors, "average/"), state


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
