"""Train a preset: ``python -m training.run.train --out RUN``.

The run is a folder: ``checkpoint.safetensors`` + ``checkpoint.json`` (resumable), ``curve.csv``, ``run.json``, and
``trace.json``: checksums of the weights after certain steps, to see early whether a run is being repeated.
Started again on the same folder it continues at its checkpoint. Batches depend on the seed and the step alone.
A file named ``stop`` in the folder ends the run after the current step; remove it to continue.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn

from training import command
from training.data import photographs, sources
from training.data.bank import Bank
from training.run import checkpoint, comparators, lineage, machine
from training.run.batches import Batches
from training.run.configuration import CHOICES, Configuration
from training.run.loss import loss_of
from training.run.soap import SOAP
from training.run.validation import validation_check
from wsi_denoise.network import weights
from wsi_denoise.network.irunet import IRUNet

CHECKPOINT = "checkpoint"
STOP = "stop"
"""A file of this name in a run's folder ends the run after the current step, with a checkpoint."""
ALSO = 0.2
"""Weight of each source of ``--also``; the project's sources have a total of 0.94, or 1.12 with the photographs."""


def is_traced(step: int) -> bool:
    """Return whether the checksum of the weights after a step is stored: 10, 100, 1000, and every 10,000."""
    return step in {10, 100, 1000} or (step > 0 and step % 10_000 == 0)


WARMING = 50
"""Warm-up steps of the schedule ``constant``; the warm-up of ``cosine`` is a share of all steps."""


def learning_rate(progress: float, highest: float, schedule: str = "cosine", step: int = WARMING) -> float:
    """Return the rate at a progress in [0, 1]: a warm-up over 2 %, then half a cosine down to a thousandth.

    With the schedule ``constant`` it depends only on `step`: it increases over the first steps and then stays constant.
    """
    if schedule == "constant":
        return highest * min((step + 1) / WARMING, 1.0)
    if progress < 0.02:
        return highest * max(progress / 0.02, 0.05)
    share = min((progress - 0.02) / 0.98, 1.0)
    return highest * (0.001 + 0.999 * 0.5 * (1.0 + float(np.cos(np.pi * share))))


def network_of(configuration: Configuration) -> nn.Module:
    """Return the network of a run, with random weights."""
    if configuration.architecture != "irunet":
        return comparators.built(configuration.architecture)
    return IRUNet(configuration.filters, residual=configuration.residual, full_skip=configuration.full_skip)


def optimizer_of(network: nn.Module, configuration: Configuration) -> torch.optim.Optimizer:
    """Return the optimizer of a run."""
    if configuration.optimizer == "soap":
        return SOAP(network.parameters(), lr=configuration.rate, every=configuration.every)
    return torch.optim.AdamW(network.parameters(), lr=configuration.rate, betas=(0.9, 0.99), weight_decay=1e-4)


class Run:
    """A training run in a folder.

    Parameters
    ----------
    folder : Path
        The run resumes from a checkpoint in it.
    check : callable, optional
        Takes a network in eval mode and returns metrics by name for the curve.
    workers : int
        As in :class:`Batches`.
    """

    def __init__(
        self,
        folder: Path,
        configuration: Configuration,
        bank: Bank,
        check: Callable[[nn.Module], dict[str, float]] | None = None,
        workers: int = 0,
    ) -> None:
        self.folder = folder
        self.configuration = configuration
        self._check = check
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(auto if configuration.device == "auto" else configuration.device)
        torch.backends.cudnn.benchmark = True  # worthwhile for only three sizes of crops
        torch.manual_seed(configuration.seed)
        self.network = network_of(configuration).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._eval = network_of(configuration).eval()
        if configuration.initial:
            self.network.load_state_dict(initial_weights(configuration.initial))
        self.optimizer = optimizer_of(self.network, configuration)
        self.average = checkpoint.Averaged(self.network, configuration.decay)
        self.batches = Batches(bank, configuration, workers)
        self.step = 0
        self.samples = 0
        self.elapsed = 0.0
        if (folder / f"{CHECKPOINT}.json").is_file():
            state = checkpoint.restore(folder / CHECKPOINT, self.network, self.average, self.optimizer)
            self.step, self.samples, self.elapsed = state["step"], state["samples"], state["elapsed"]

    @property
    def progress(self) -> float:
        """Completed share of the schedule: the larger of the shares of steps and of time."""
        done = self.step / self.configuration.steps
        if self.configuration.minutes:
            done = max(done, self.elapsed / (60.0 * self.configuration.minutes))
        return min(done, 1.0)

    def advance(self) -> float:
        """Take one step and return its loss."""
        started = time.monotonic()
        configuration = self.configuration
        noisy, clean, sigma = self.batches.at(self.step)
        noisy = noisy.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        clean, sigma = clean.to(self.device, non_blocking=True), sigma.to(self.device, non_blocking=True)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.progress, configuration.rate, configuration.schedule, self.step)
        # The loss changes gradually over a tenth of the schedule, because the gradients of both losses differ in size.
        polish = (self.progress - (1.0 - configuration.polish)) / 0.1 if configuration.polish else 0.0
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=configuration.bf16):
            output = self.network(noisy)
        loss = loss_of(output.float(), clean, sigma, min(max(polish, 0.0), 1.0))
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
            self.average.update(self.network)
        self.step += 1
        self.samples += len(clean)
        value = float(loss.detach())  # waits for the GPU
        self.elapsed += time.monotonic() - started
        return value

    def averaged(self) -> nn.Module:
        """Return the network with the averaged weights, on the CPU, in eval mode."""
        self._eval.load_state_dict({name: value.cpu() for name, value in self.average.weights.items()})
        return self._eval

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "step": self.step,
            "samples": self.samples,
            "elapsed": round(self.elapsed, 1),
            "progress": round(self.progress, 4),
            "configuration": asdict(self.configuration),
        }
        checkpoint.save(self.folder / CHECKPOINT, self.network, self.average, self.optimizer, state)

    def train(self, *, until: int = 0, every: float = 60.0, checks: float = 240.0) -> None:
        """Continue to the end of the schedule.

        Parameters
        ----------
        until : int
            Stop after this step, like an interrupted run; 0 for the end.
        every, checks : float
            Seconds between checkpoints, and between rows of the curve.
        """
        saved = checked = time.monotonic()
        losses: list[float] = []
        # A progress bar only on a terminal, not in a log.
        with Progress(disable=not sys.stdout.isatty(), transient=True) as bar:
            task = bar.add_task("training", total=1.0)
            stop = self.folder / STOP
            while self.progress < 1.0 and not 0 < until <= self.step and not stop.exists():
                losses.append(self.advance())
                if is_traced(self.step):
                    self.trace()
                now = time.monotonic()
                bar.update(task, completed=self.progress, description=f"step {self.step}, loss {losses[-1]:.4f}")
                if now - saved > every:
                    self.save()
                    saved = now
                if now - checked > checks or self.progress >= 1.0:
                    self.report(losses)
                    losses.clear()
                    checked = time.monotonic()
        self.save()
        self.batches.close()

    def trace(self) -> None:
        """Store the checksum of the averaged weights at this step."""
        known = lineage.traced(self.folder)
        known[str(self.step)] = checkpoint.digest(self.average.weights)
        (self.folder / lineage.TRACE).write_text(json.dumps(known, indent=1) + "\n", "utf-8")

    def report(self, losses: list[float]) -> None:
        """Add a row to the curve and print it."""
        row: dict[str, Any] = {
            "step": self.step,
            "samples": self.samples,
            "minutes": round(self.elapsed / 60.0, 2),
            "progress": round(self.progress, 4),
            "rate": f"{self.optimizer.param_groups[0]['lr']:.2e}",
            "loss": round(float(np.mean(losses)), 6),
        }
        if self._check is not None:
            row |= self._check(self.averaged())
        file = self.folder / "curve.csv"
        new = not file.exists()
        with file.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(" ".join(f"{name}={value}" for name, value in row.items()), flush=True)


def initial_weights(name: str) -> dict[str, Tensor]:
    """Return the weights of a preset, or of a checkpoint by its path without suffix."""
    if Path(name).with_suffix(".safetensors").is_file():
        return checkpoint.averaged_weights(Path(name))[0]
    return {key: torch.from_numpy(value.copy()) for key, value in weights.arrays(name).items()}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; every field of :class:`Configuration` is an option."""
    defaults = Configuration()
    options = command.parser("training.run.train", __doc__, "shared", "threads")
    options.add_argument("--out", type=Path, required=True, help="folder of the run; an interrupted run continues")
    options.add_argument(
        "--images",
        type=Path,
        action="append",
        help="train on the clean images in this folder, or PCam's HDF5 file, instead; may be repeated",
    )
    options.add_argument(
        "--also", type=Path, action="append", help="the same, in addition to the project's own sources"
    )
    options.add_argument("--workers", type=int, default=0, help="processes that make batches, to keep a GPU busy")
    options.add_argument("--until", type=int, default=0, help="stop after this step, as if interrupted")
    for name, value in asdict(defaults).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            options.add_argument(flag, action=argparse.BooleanOptionalAction, default=value)
        elif name in CHOICES:
            options.add_argument(flag, choices=CHOICES[name], default=value)
        else:
            options.add_argument(flag, type=float if value is None else type(value), default=value)
    return options


def chosen_sources(given: argparse.Namespace) -> tuple[sources.Source, ...]:
    """Return the sources for the command-line options."""
    if given.images:
        return tuple(sources.own_source(place) for place in given.images)
    own = sources.paper_sources if given.protocol == "fixed-map" else sources.default_sources
    also = tuple(dataclasses.replace(sources.own_source(place), weight=ALSO) for place in given.also or ())
    return own(given.shared) + photographs.sources_in(given.photographs) + also


def main(arguments: list[str] | None = None) -> None:
    """Train for the command-line options."""
    given = command.parsed(parser(), arguments)
    configuration = Configuration(**{name: getattr(given, name) for name in asdict(Configuration())})
    images = chosen_sources(given)
    given.out.mkdir(parents=True, exist_ok=True)
    place = given.out / "run.json"
    known = json.loads(place.read_text("utf-8")) if place.is_file() else {}
    check = None
    if (given.shared / "data").is_dir():
        check = validation_check(given.shared, compressed=configuration.protocol in {"scanner", "camera"})
    bank = Bank(images, flat=configuration.flat, texture=configuration.texture)
    run = Run(given.out, configuration, bank, check, given.workers)
    record = {
        "configuration": asdict(configuration),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": machine.described(torch.get_num_threads(), run.device.type),
        "before": known.get("before") or lineage.stages_before(configuration.initial),
        "sources": [
            {"name": s.name, "licence": s.licence, "files": len(s.files), "sha256": sources.digest(s.files)}
            for s in images
        ],
    }
    place.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    print(f"step {run.step} of {configuration.steps}, on {run.device}", flush=True)
    run.train(until=given.until)


if __name__ == "__main__":
    main()
