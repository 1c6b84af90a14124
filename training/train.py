"""Train a preset: ``python -m training.train --out RUN``.

The run is a folder: ``checkpoint.safetensors`` + ``checkpoint.json`` (resumable), ``curve.csv``, ``run.json``, and
``trace.json``: checksums of the weights after certain steps, to see early whether a run is being repeated.
Started again on the same folder it goes on where it was. Batches depend on the seed and the step alone.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from training import checkpoint, comparators, corruption, data, lineage, machine, photographs, widening
from training.soap import SOAP
from training.validation import validation_check
from wsi_denoise.network import weights
from wsi_denoise.network.irunet import IRUNet

CHECKPOINT = "checkpoint"
ALSO = 0.2
"""Weight of each source of ``--also``; those of the project add up to 0.94, with the photographs 1.12."""


CHOICES = {
    "protocol": tuple(corruption.CORRUPT),
    "optimizer": ("soap", "adamw"),
    "architecture": ("irunet", *comparators.NETWORKS),
}
"""What the fields of a configuration that are names may be."""


@dataclass(frozen=True)
class Configuration:
    """Everything that decides a run's result, besides its images and the number of threads.

    Parameters
    ----------
    filters, residual, full_skip
        As in :class:`wsi_denoise.network.irunet.IRUNet`.
    architecture : str
        ``irunet``, or one of :data:`training.comparators.NETWORKS`, which look at none of these.
    protocol : str
        ``fresh``, ``scanner`` or ``fixed-map``.
    steps : int
        Steps of the schedule.
    minutes : float or None
        Budget of wall clock; the schedule's progress is the larger of the share of steps and the share of time, so
        that the learning rate comes down in time on a machine of any speed.
    pixels : int
        Pixels per batch, in units of 1024; crops are of 64, 96 or 128 px, as many as fit.
    optimizer : str
        ``soap`` (:mod:`training.soap`) or ``adamw``.
    every : int
        Steps of SOAP between two looks at the eigenvectors; on a GPU a look takes as long as several steps.
    rate : float
        Highest learning rate.
    polish : float
        Share of the schedule, at its end, in which the loss is log mean square error per image (PSNR) instead of the
        mean absolute error.
    weak : float
        Exponent of 30 / (sigma + 10), by which images weigh in the PSNR loss: 0 for all alike, 1 as in the mean
        absolute error.
    floor : float
        Grey levels below which the error of an image without structure matters no more in the PSNR loss.
    decay : float
        Of the averaged weights.
    seed : int
    device : str
        ``cpu``, ``cuda`` or ``auto``.
    flat : float
        Share of crops without structure; see :class:`training.data.Bank`.
    initial : str
        Name of a preset, or a run's checkpoint without its suffix, whose averaged weights are the start; empty for
        random ones. Weights of a network with fewer filters are widened (:mod:`training.widening`).
    photographs : str
        Folder with the photographs of :mod:`training.photographs`, which are then trained on too; empty for none.
    bf16 : bool
        Autocast to bfloat16 (on a CPU with avx512_bf16, measured: 2.5 times as fast with channels_last).
    """

    filters: int = 16
    residual: bool = True
    full_skip: bool = True
    architecture: str = "irunet"
    protocol: corruption.Protocol = "fresh"
    steps: int = 60_000
    minutes: float | None = None
    pixels: int = 64
    optimizer: str = "soap"
    every: int = 10
    rate: float = 3e-3
    polish: float = 0.35
    weak: float = 0.0
    floor: float = 1.0
    decay: float = 0.999
    seed: int = 1
    device: str = "auto"
    bf16: bool = True
    flat: float = data.FLAT_SHARE
    initial: str = ""
    photographs: str = ""


def is_traced(step: int) -> bool:
    """Whether the weights after a step are noted: 10, 100, 1000, and every ten thousand."""
    return step in {10, 100, 1000} or (step > 0 and step % 10_000 == 0)


def learning_rate(progress: float, highest: float) -> float:
    """Return the rate at a progress in [0, 1]: up over the first 2 %, then half a cosine down to a thousandth."""
    if progress < 0.02:
        return highest * max(progress / 0.02, 0.05)
    share = min((progress - 0.02) / 0.98, 1.0)
    return highest * (0.001 + 0.999 * 0.5 * (1.0 + float(np.cos(np.pi * share))))


def loss_of(
    output: Tensor, clean: Tensor, sigma: Tensor, polish: float, *, weak: float = 0.0, floor: float = 1.0
) -> Tensor:
    """Loss of a batch.

    Parameters
    ----------
    output, clean : Tensor
        (batch, 3, height, width) in [0, 1].
    sigma : Tensor
        (batch,) in grey levels.
    polish : float
        0: mean absolute error, each image weighted by 30 / (sigma + 10), so that weak noise, whose errors are small,
        counts like strong noise does. 1: mean over the images of log(mean square error + one grey level squared),
        scaled to the same size. Between: a blend.
    weak, floor : float
        As in :class:`Configuration`.

    Notes
    -----
    Beyond black or white nothing is an error where the truth is black or white: the output is clamped when it is used.

    In an image without structure (:func:`is_smooth`) the square root of the mean fourth power stands for the mean
    square: few pixels that are far off, which an eye takes for structure, weigh more than many that are a little off.
    """
    error = output - clean
    beyond = ((clean >= 1.0) & (error > 0.0)) | ((clean <= 0.0) & (error < 0.0))
    error = error.masked_fill(beyond, 0.0)
    weight = 30.0 / (sigma + 10.0)
    absolute = (error.abs().mean(dim=(1, 2, 3)) * weight).mean()
    if polish <= 0:
        return absolute
    square = error.square()
    fourth = (square.square().mean(dim=(1, 2, 3)) + 1e-12).sqrt()
    smooth = is_smooth(clean)
    square = torch.where(smooth, fourth, square.mean(dim=(1, 2, 3)))
    least = torch.where(smooth, floor / 255.0, 1.0 / 255.0) ** 2
    logarithm = 0.01 * (torch.log(square + least) * weight**weak).mean()
    return (1.0 - polish) * absolute + polish * logarithm


def is_smooth(clean: Tensor) -> Tensor:
    """Whether neighbours differ by at most two grey levels everywhere, for each image: flat fields and soft ramps.

    Parameters
    ----------
    clean : Tensor
        (batch, 3, height, width) in [0, 1].
    """
    steps = [clean.diff(dim=axis).abs().amax(dim=(1, 2, 3)) for axis in (2, 3)]
    return torch.maximum(*steps) < 2.5 / 255.0


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


Batch = tuple[Tensor, Tensor, Tensor]
"""Noisy and clean crops, (batch, 3, side, side) in [0, 1], and sigma, (batch,) in grey levels."""


class Batches(Dataset[Batch]):
    """Noisy and clean batches by step, made ahead: one in a thread, or several in processes.

    Parameters
    ----------
    bank : data.Bank
    configuration : Configuration
    workers : int
        Processes that make them; 0 for a thread, which is enough for a CPU.
    """

    def __init__(self, bank: data.Bank, configuration: Configuration, workers: int = 0) -> None:
        self._bank = bank
        self._configuration = configuration
        self._workers = workers
        self._next = -1
        self._ahead: Iterator[Batch] = iter(())

    def __getitem__(self, step: int) -> Batch:
        """Return what :meth:`make` does."""
        return self.make(step)

    def at(self, step: int) -> Batch:
        """Return the batch of a step, while the next are being made."""
        if self._next != step:
            self._next, self._ahead = step, self._from(step)
        self._next += 1
        return next(self._ahead)

    def _from(self, step: int) -> Iterator[Batch]:
        if self._workers:
            steps = range(step, max(step + 1, self._configuration.steps))
            pinned = torch.cuda.is_available()
            loader = DataLoader(
                self, batch_size=None, sampler=steps, num_workers=self._workers, prefetch_factor=4, pin_memory=pinned
            )
            yield from loader
            return
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
            ahead = thread.submit(self.make, step)
            while True:
                step += 1
                batch, ahead = ahead.result(), thread.submit(self.make, step)
                yield batch

    def make(self, step: int) -> Batch:
        """Make the batch of a step; a function of the seed and the step only."""
        rng = np.random.default_rng([self._configuration.seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        fixed = self._configuration.protocol == "fixed-map"
        side = corruption.FIXED_SIDE if fixed else int(rng.choice([64, 96, 128], p=[0.5, 0.35, 0.15]))
        count = max(1, self._configuration.pixels * 1024 // side**2)
        clean = self._bank.draw(count, side, rng)
        noisy, sigma = corruption.CORRUPT[self._configuration.protocol](clean, generator)
        return noisy, clean, sigma

    def close(self) -> None:
        """Make no more."""
        self._next, self._ahead = -1, iter(())


class Run:
    """A training run in a folder.

    Parameters
    ----------
    folder : Path
        Goes on with the checkpoint that is there.
    configuration : Configuration
    bank : data.Bank
    check : callable, optional
        Takes a network in eval mode, gives named figures for the curve.
    workers : int
        As in :class:`Batches`.
    """

    def __init__(
        self,
        folder: Path,
        configuration: Configuration,
        bank: data.Bank,
        check: Callable[[nn.Module], dict[str, float]] | None = None,
        workers: int = 0,
    ) -> None:
        self.folder = folder
        self.configuration = configuration
        self._check = check
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(auto if configuration.device == "auto" else configuration.device)
        torch.backends.cudnn.benchmark = True  # three sizes of crops, again and again
        torch.manual_seed(configuration.seed)
        self.network = network_of(configuration).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._eval = network_of(configuration).eval()
        if configuration.initial:
            start = initial_weights(configuration.initial)
            if start["head.bias"].numel() != configuration.filters:
                start = widening.widened(start, configuration.filters, configuration.seed)
            self.network.load_state_dict(start)
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
        """Share of the schedule that is done, by steps or by time, whichever is more."""
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
            group["lr"] = learning_rate(self.progress, configuration.rate)
        # The loss changes over a tenth of the schedule, not at once: its gradients differ in size.
        polish = (self.progress - (1.0 - configuration.polish)) / 0.1 if configuration.polish else 0.0
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=configuration.bf16):
            output = self.network(noisy)
        share = min(max(polish, 0.0), 1.0)
        loss = loss_of(output.float(), clean, sigma, share, weak=configuration.weak, floor=configuration.floor)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
            self.average.update(self.network)
        self.step += 1
        self.samples += len(clean)
        self.elapsed += time.monotonic() - started
        return float(loss.detach())

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
        """Go on to the end of the schedule.

        Parameters
        ----------
        until : int
            Stop after this step, as if interrupted; 0 for the end.
        every, checks : float
            Seconds between checkpoints, and between rows of the curve.
        """
        saved = checked = time.monotonic()
        losses: list[float] = []
        # A bar for those who watch; in a log it would be noise.
        with Progress(disable=not sys.stdout.isatty(), transient=True) as bar:
            task = bar.add_task("training", total=1.0)
            while self.progress < 1.0 and not 0 < until <= self.step:
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
        """Note the checksum of the averaged weights at this step."""
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
    """Return the weights to start from.

    Parameters
    ----------
    name : str
        Of a preset, or a checkpoint's path without its suffix.
    """
    if Path(name).with_suffix(".safetensors").is_file():
        return checkpoint.averaged_weights(Path(name))[0]
    return {key: torch.from_numpy(value.copy()) for key, value in weights.arrays(name).items()}


def parser() -> argparse.ArgumentParser:
    """Return the command line; every field of :class:`Configuration` is an option."""
    defaults = Configuration()
    options = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    options.add_argument("--out", type=Path, required=True, help="folder of the run; an interrupted run goes on")
    options.add_argument("--shared", type=Path, default=data.shared_folder(), help="folder with data/ and reference/")
    options.add_argument(
        "--images",
        type=Path,
        action="append",
        help="train on the clean images in this folder, or PCam's HDF5 file, instead; may be repeated",
    )
    options.add_argument(
        "--also", type=Path, action="append", help="the same, in addition to the project's own sources"
    )
    options.add_argument("--threads", type=int, default=0, help="threads of torch; 0 leaves it to torch")
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


def chosen_sources(given: argparse.Namespace) -> tuple[data.Source, ...]:
    """Return the sources that the command line asks for."""
    if given.images:
        return tuple(data.own_source(place) for place in given.images)
    own = data.paper_sources if given.protocol == "fixed-map" else data.default_sources
    also = tuple(dataclasses.replace(data.own_source(place), weight=ALSO) for place in given.also or ())
    return own(given.shared) + photographs.sources(given.photographs) + also


def main(arguments: list[str] | None = None) -> None:
    """Train as the command line says."""
    given = parser().parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    configuration = Configuration(**{name: getattr(given, name) for name in asdict(Configuration())})
    sources = chosen_sources(given)
    given.out.mkdir(parents=True, exist_ok=True)
    place = given.out / "run.json"
    known = json.loads(place.read_text("utf-8")) if place.is_file() else {}
    check = None
    if (given.shared / "data").is_dir():
        check = validation_check(given.shared, compressed=configuration.protocol == "scanner")
    run = Run(given.out, configuration, data.Bank(sources, flat=configuration.flat), check, given.workers)
    record = {
        "configuration": asdict(configuration),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": machine.described(torch.get_num_threads(), run.device.type),
        "before": known.get("before") or lineage.stages_before(configuration.initial),
        "sources": [
            {"name": s.name, "licence": s.licence, "files": len(s.files), "sha256": data.digest(s.files)}
            for s in sources
        ],
    }
    place.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    print(f"step {run.step} of {configuration.steps}, on {run.device}", flush=True)
    run.train(until=given.until)


if __name__ == "__main__":
    main()
